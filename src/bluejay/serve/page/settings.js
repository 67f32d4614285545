// The controls and what they stand at.

import { element } from "./dom.js";

const LONGEST = 1024; // tokens in one run; a person can run again
const SEEDS = 1e6; // few enough for one to be told to others

export const newSeed = () => Math.floor(Math.random() * SEEDS);

export class Settings {
	constructor(onChange) {
		this.controls = [...document.querySelectorAll("label > :not(#key, #with_answer)")];
		for (const control of this.controls) control.oninput = () => (this.show(), onChange());
		this.show();
	}

	// Numbers, texts and switches by name, as they are kept between visits.
	get values() {
		return Object.fromEntries(this.controls.map((control) => [control.id, valueOf(control)]));
	}

	// A link has texts for all of them; what cannot be is as at first.
	set values(values) {
		for (const control of this.controls.filter(({ id }) => id in values)) {
			control.checked = String(values[control.id]) === "true";
			if (control.type !== "checkbox") control.value = values[control.id];
			if (!control.checkValidity()) control.value = control.defaultValue;
		}
		this.show();
	}

	set context(tokens) {
		const slider = element("max_tokens");
		slider.max = Math.max(8, Math.min(LONGEST, tokens) & ~7);
		this.show();
	}

	// What the API gets. The seed is always sent, so that the page can say which one it was.
	get request() {
		const { seed, stop_before, end_of_function, font, ...sent } = this.values;
		const stop = stopsIn(stop_before);
		return { ...sent, seed: seed ? Number(seed) : newSeed(), ...(stop.length && { stop }) };
	}

	show() {
		for (const slider of this.controls.filter(({ type }) => type === "range")) {
			const value = slider.valueAsNumber;
			const text = slider.id === "max_tokens" ? `${value} tokens` : value.toFixed(2);
			slider.parentElement.dataset.value = slider.ariaValueText = text;
		}
		const stops = element("stop_before");
		stops.setCustomValidity(stopsIn(stops.value).length > 4 ? "At most four stop sequences, one a line." : "");
	}
}

// Stop sequences: one a line, as they are written in a program's text.
function stopsIn(text) {
	const lines = text.split("\n").filter(Boolean);
	return lines.map((line) => line.replaceAll("\\n", "\n").replaceAll("\\t", "\t"));
}

function valueOf({ type, checked, value, valueAsNumber }) {
	if (type === "checkbox") return checked;
	return /range|number/.test(type) ? valueAsNumber : value;
}
