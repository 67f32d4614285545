// The list of earlier runs.

import { create, listItem } from "../dom.js";
import { bringBack, clearHistory, historyEntries, listen } from "./history.js";
import { textOf } from "../storage.js";

// Keep the list up to date; choosing an entry calls `onChoose` with it. What was deleted can be brought back until the list
// changes otherwise.
export function showHistory(panel, onChoose) {
	const note = create("p", "The latest runs, 50 at most, stored in this browser only. ");
	const list = create("ul");
	let deleted; // entries
	const button = create("button", "", () => {
		const entries = deleted ? undefined : historyEntries();
		if (entries) clearHistory();
		else bringBack(deleted);
		update(entries);
	});
	note.append(button);
	panel.replaceChildren(note, list);
	const update = (entries) => {
		deleted = entries;
		button.textContent = deleted ? "Bring back" : "Delete all";
		list.replaceChildren(...historyEntries().map(entryOf).filter(Boolean).map((entry) => entryItem(entry, onChoose)));
	};
	update();
	listen(() => update());
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
