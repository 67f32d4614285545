// The list of earlier runs.

import { create, listItem } from "../dom.js";
import { clearHistory, historyEntries, listen } from "./history.js";
import { textOf } from "../storage.js";

// Keep the list up to date; choosing an entry calls `onChoose` with it.
export function showHistory(panel, onChoose) {
	const note = create("p", "Stored in this browser only. ");
	const list = create("ul");
	note.append(create("button", "Delete all", () => (clearHistory(), update())));
	panel.replaceChildren(note, list);
	const entries = () => historyEntries().map(entryOf).filter(Boolean);
	const update = () => list.replaceChildren(...entries().map((entry) => entryItem(entry, onChoose)));
	update();
	listen(update);
}

function entryItem(entry, onChoose) {
	const when = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "short" });
	const title = create("strong", entry.text.trim().slice(0, 60) || "(empty)");
	title.dir = "auto";
	return listItem(() => onChoose(entry), title, create("span", `${when.format(entry.when)} · ${entry.note}`));
}

// undefined for what is no entry.
function entryOf(stored) {
	const text = textOf(stored);
	return text && { ...text, settings: Object(stored.settings), when: Math.abs(stored.when) < 8e15 ? stored.when : 0 };
}
