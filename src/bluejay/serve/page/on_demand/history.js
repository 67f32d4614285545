// The runs of all visits, latest first, stored in this browser only.

import { mergeSpans } from "../spans.js";
import { load, listOf, save, saveState } from "../storage.js";

const KEY = "bluejay-history";
const MAX_ENTRIES = 50;
let onChange; // shows a new entry
let told = false; // whether the user knows that the text is not stored

// As they were stored, which may be anything.
export const historyEntries = () => listOf(load(KEY));

export function addToHistory(state, settings, note) {
	const entry = { ...merged(state), samples: state.samples?.map(merged), settings, note, when: Date.now() };
	store([entry, ...historyEntries()].slice(0, MAX_ENTRIES));
	onChange?.();
}

export const listen = (listener) => (onChange = listener);

export const clearHistory = () => save(KEY, []);

// Save the state of the page where there was no room for it: old runs go first, then what is known of the tokens. Returns
// what the user must know where that does not help, the first time.
export function makeRoom(state) {
	const runs = historyEntries();
	for (let left = runs; left.length; ) {
		left = newer(left);
		if (save(KEY, left) && saveState(state)) return "";
	}
	if (saveState({ ...state, spans: [], samples: [] })) return "";
	store(runs); // they went in vain
	const message = told ? "" : " This browser does not store the text; a reload would lose it.";
	told = true;
	return message;
}

// Without the oldest where there is no room for all.
function store(entries) {
	while (entries.length && !save(KEY, entries)) entries = newer(entries);
}

const newer = (entries) => entries.slice(0, entries.length >> 1);
const merged = (part) => ({ ...part, spans: mergeSpans(part.spans) });
