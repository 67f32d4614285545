// The runs of all visits, latest first, stored in this browser only.

import { mergeSpans } from "./spans.js";
import { load, listOf, save } from "./storage.js";

const KEY = "bluejay-history";
const MAX_ENTRIES = 50;

// As they were stored, which may be anything.
export const historyEntries = () => listOf(load(KEY));

export function addToHistory({ text, spans }, settings, note) {
	const entry = { text, spans: mergeSpans(spans), settings, note, when: Date.now() };
	let entries = [entry, ...historyEntries()].slice(0, MAX_ENTRIES);
	while (entries.length && !save(KEY, entries)) entries = entries.slice(0, entries.length >> 1); // drop the oldest
}

export const clearHistory = () => save(KEY, []);
