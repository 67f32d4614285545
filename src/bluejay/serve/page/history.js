// The runs of all visits, latest first, stored in this browser only.

import { mergeSpans } from "./spans.js";
import { load, listOf, save, textOf } from "./storage.js";

const KEY = "bluejay-history";
const MAX_ENTRIES = 50;

// Another version of the page, or a person, may have stored anything.
export const historyEntries = () => listOf(load(KEY)).map(entryOf).filter(Boolean);

export function addToHistory({ text, spans }, settings, note) {
	const entry = { text, spans: mergeSpans(spans), settings, note, when: Date.now() };
	let entries = [entry, ...historyEntries()].slice(0, MAX_ENTRIES);
	while (entries.length && !save(KEY, entries)) entries = entries.slice(0, entries.length >> 1); // drop the oldest
}

export const clearHistory = () => save(KEY, []);

function entryOf(stored) {
	const text = textOf(stored);
	return text && { ...text, settings: Object(stored.settings), when: Math.abs(stored.when) < 8e15 ? stored.when : 0 };
}
