// The settings of a run and their controls. The sliders are there from the start; the panel "More" adds its controls
// when it is first needed.

import { byId } from "./dom.js";

const LENGTH = byId("max_tokens");
const MAX_TOKENS = LENGTH.max; // of one run; the user can run again
const N_SEEDS = 1e6; // few enough that people can tell each other a seed
const PAGE_ONLY = ["end_of_function", "font"]; // settings that the API does not have

export const newSeed = () => Math.floor(Math.random() * N_SEEDS);

// A control's id is the name of its setting. Its `parse`, if it has one, makes the API's parameter from its text: it
// returns undefined for none, and throws an Error for a text that is not valid.
export class Settings {
	controls = [];
	others = {}; // values of settings that have no control yet; null when all controls are there
	notice = new Text(); // says where the length is less than was asked for

	constructor(controls, onChange) {
		this.onChange = onChange;
		this.add(controls);
	}

	add(controls) {
		for (const control of controls) {
			control.oninput = () => {
				if (control.dataset.step) control.step = control.dataset.step;
				control.dataset.wanted = control.value;
				this.showValues();
				this.onChange();
			};
		}
		this.controls.push(...controls);
		this.showValues();
	}

	addLast(controls) {
		const { others } = this;
		this.others = null;
		this.add(controls);
		this.change(others);
	}

	// Numbers, texts and switches by name.
	get values() {
		return { ...this.others, ...Object.fromEntries(this.controls.map((control) => [control.id, valueOf(control)])) };
	}

	// As they are stored between visits, with the length that was asked for.
	get stored() {
		return { ...this.values, max_tokens: wanted() };
	}

	// Settings that `values` does not name get their defaults.
	set values(values) {
		if (this.others) this.others = {};
		for (const control of this.controls) setDefault(control);
		this.change(values);
	}

	// Change the settings that `values` names. Values may be strings, as in links; an invalid one becomes the default.
	change(values) {
		for (const [name, value] of Object.entries(values)) {
			if (Object(value) === value) continue; // no text, number or switch
			const control = this.controls.find(({ id }) => id === name);
			if (control) setValue(control, value);
			else if (this.others) this.others[name] = value;
		}
		this.showValues();
	}

	// Whether a run needs controls that are not there yet.
	get incomplete() {
		return Object.keys(this.others ?? {}).some((name) => !PAGE_ONLY.includes(name));
	}

	set context(tokens) {
		LENGTH.max = Math.max(8, Math.min(MAX_TOKENS, tokens) & ~7);
		keepBetweenSteps(LENGTH, wanted());
		const { value } = LENGTH;
		this.notice.data = value < wanted() ? ` Length is now ${value}: the model's context has no more.` : "";
		this.showValues();
	}

	// The parameters of the API. The seed is always among them, so that the page can tell which one was used.
	get parameters() {
		const sent = { n: 1, seed: newSeed() };
		for (const control of this.controls) {
			const value = control.parse ? control.parse(control.value) : valueOf(control);
			if (value !== undefined && !PAGE_ONLY.includes(control.id)) sent[control.name || control.id] = value;
		}
		return sent;
	}

	showValues() {
		for (const control of this.controls) validate(control);
		for (const slider of this.controls.filter(({ type }) => type === "range")) {
			const value = slider.valueAsNumber;
			const short = value.toFixed(2);
			const text = slider.id === "max_tokens" ? `${value} tokens` : Number(short) === value ? short : value;
			slider.parentElement.dataset.value = slider.ariaValueText = text;
		}
	}
}

const wanted = () => Math.min(MAX_TOKENS, LENGTH.dataset.wanted ?? LENGTH.defaultValue);

function setValue(control, value) {
	if (control.type === "checkbox") control.checked = String(value) === "true";
	else control.value = value;
	if (control.type === "range") keepBetweenSteps(control, parseFloat(value));
	validate(control);
	if (!control.checkValidity() || control.selectedIndex < 0) setDefault(control);
}

// A slider moves by steps; a link sets it to any number in its range.
function keepBetweenSteps(slider, number) {
	if (Number.isNaN(number)) return setDefault(slider);
	slider.dataset.wanted = number;
	slider.step = slider.dataset.step ??= slider.step;
	slider.value = number;
	if (slider.valueAsNumber === Math.min(number, slider.max)) return;
	slider.step = slider.id === "max_tokens" ? 1 : "any";
	slider.value = number;
}

function setDefault(control) {
	if (control.type === "checkbox") control.checked = control.defaultChecked;
	else control.value = control.defaultValue ?? control.options[0].value;
	delete control.dataset.wanted;
	validate(control);
}

function validate(control) {
	try {
		control.parse?.(control.value);
		control.setCustomValidity("");
	} catch (error) {
		control.setCustomValidity(error.message);
	}
}

function valueOf({ type, checked, value, valueAsNumber }) {
	if (type === "checkbox") return checked;
	return /range|number/.test(type) ? valueAsNumber : value;
}
