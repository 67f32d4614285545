// What has been: the states of this visit, to be undone, and the runs of all visits, kept in this browser alone.

import { item, made } from "./dom.js";
import { stretches } from "./marks.js";

const KEY = "bluejay-history";
const MOST = 50; // runs

// The states {text, marks, samples} before and after each run or example. Typing in between is the text field's own undo.
export class Undo {
	states = [];
	at = -1;

	// Note where things stand; what had been undone before is forgotten.
	record(state) {
		if (this.isCurrent(state)) this.states[this.at] = state;
		else this.states.splice(++this.at, Infinity, state);
	}

	back(state) {
		this.record(state);
		return this.states[--this.at];
	}

	forth() {
		return this.states[++this.at];
	}

	canGoBack(state) {
		return this.at > 0 || (this.at === 0 && !this.isCurrent(state));
	}

	canGoForth(state) {
		return this.at < this.states.length - 1 && this.isCurrent(state);
	}

	// Whether things stand as a run or an example left them.
	isCurrent({ text, samples }) {
		const current = this.states[this.at];
		return current?.text === text && current.samples === samples;
	}
}

export class Past {
	constructor(list, onChoose) {
		Object.assign(this, { list, onChoose });
		this.show();
	}

	get runs() {
		return stored(KEY) ?? [];
	}

	add({ text, marks }, settings, note) {
		let runs = [{ text, marks: stretches(marks), settings, note, when: Date.now() }, ...this.runs].slice(0, MOST);
		while (runs.length && !store(KEY, runs)) runs = runs.slice(0, runs.length >> 1); // a full store forgets the oldest
		this.show();
	}

	forget() {
		store(KEY, []);
		this.show();
	}

	show() {
		const when = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "short" });
		const items = this.runs.map((run) => {
			const title = made("strong", run.text.trim().slice(0, 60) || "(nothing)");
			title.dir = "auto";
			return item(() => this.onChoose(run), title, made("span", `${when.format(run.when)} · ${run.note}`));
		});
		this.list.replaceChildren(...items);
	}
}

// The browser's local storage. Browsers may forbid it; the page works all the same.
export function stored(key) {
	try {
		return JSON.parse(localStorage.getItem(key));
	} catch {
		return null;
	}
}

export function store(key, value) {
	try {
		localStorage.setItem(key, JSON.stringify(value));
		return true;
	} catch {
		return false;
	}
}
