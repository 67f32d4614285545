// The runs of all visits, latest first, stored in this browser only.

import { mergeSpans } from "../spans.js";
import { load, listOf, save, saveState } from "../storage.js";

const KEY = "bluejay-history";
const MAX_ENTRIES = 50;
let onChange; // shows what is stored now
let told = false; // whether the user knows what is not stored

// As they were stored, which may be anything.
export const historyEntries = () => listOf(load(KEY));

export function addToHistory(state, settings, note) {
	const entry = { ...merged(state), samples: state.samples?.map(merged), settings, note, when: Date.now() };
	store([entry, ...historyEntries()].slice(0, MAX_ENTRIES));
	onChange?.();
}

// `listener` is called after changes, also those of other tabs.
export function listen(listener) {
	onChange = listener;
	addEventListener("storage", ({ key }) => (key ?? KEY) === KEY && listener());
}

export const clearHistory = () => save(KEY, []);

export const bringBack = (entries) => store([...historyEntries(), ...entries].slice(0, MAX_ENTRIES));

// Save the state of the page where there was no room for it: old runs go first, then what is known of the tokens,
// then samples. Returns what the user must know where that does not help, the first time.
export function makeRoom(state) {
	const runs = historyEntries();
	for (let left = runs; left.length; ) {
		left = newer(left);
		if (save(KEY, left) && saveState(state)) return "";
	}
	const texts = { ...merged(state), samples: state.samples?.map(merged) };
	if (saveState(texts)) return "";
	const withoutSamples = saveState({ ...texts, samples: [] });
	if (!withoutSamples) store(runs); // they went in vain
	const lost = withoutSamples ? "the samples; a reload would lose them" : "the text; a reload would lose it";
	const message = told ? "" : ` This browser does not store ${lost}.`;
	told = true;
	return message;
}

// Without the oldest where there is no room for all.
function store(entries) {
	while (entries.length && !save(KEY, entries)) entries = newer(entries);
}

const newer = (entries) => entries.slice(0, entries.length >> 1);
const merged = (part) => ({ ...part, spans: mergeSpans(part.spans) });
