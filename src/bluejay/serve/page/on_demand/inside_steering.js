// Steering: a direction between two sets of texts is added to the model's residual stream while it reads and writes. A
// slider beside the others sets its strength.

import { create } from "../dom.js";
import { part, row } from "./inside_parts.js";

const PAPER = "https://arxiv.org/abs/2308.10248";
const LIMIT = 4; // strengths from minus this to this

export class Steering {
	// `ask` asks /v1/lens, `getText` gives the text on which the cost is measured; `announce` tells a screen reader.
	constructor(sliders, ask, getText, announce) {
		Object.assign(this, { sliders, ask, getText, announce });
		this.toward = lines("Steer toward these texts, one per line", "I love this wonderful day");
		this.away = lines("Steer away from these texts, one per line", "I hate this terrible day");
		this.layer = Object.assign(create("input"), { type: "number", min: 0, ariaLabel: "Layer", placeholder: "middle layer" });
		this.layer.setAttribute("form", ""); // it is no setting of a run
		this.note = create("p");
		const add = create("button", "Add a slider", () => this.add());
		const told = "Add what sets the first texts apart from the others to every token; a slider beside Top-p says how much.";
		this.part = part("Steering", told, PAPER, this.toward, this.away, row(this.layer, add), this.note);
	}

	// What a run sends; nothing while the slider is at zero.
	get parameters() {
		const strength = this.slider?.valueAsNumber;
		return strength ? { steering: { ...this.direction, strength } } : {};
	}

	add() {
		if (!this.layer.reportValidity()) return undefined;
		const texts = ({ value }) => value.split("\n").filter((line) => line.trim());
		const layer = this.layer.value === "" ? {} : { layer: this.layer.valueAsNumber };
		const direction = { toward: texts(this.toward), away: texts(this.away), ...layer };
		if (!direction.toward.length || !direction.away.length) return this.say("Both fields need a text.");
		this.direction = direction;
		if (!this.slider) {
			this.slider = Object.assign(create("input"), { id: "steering", type: "range", min: -LIMIT, max: LIMIT, step: 0.1, value: 0 });
			const label = create("label", "Steering");
			label.append(this.slider);
			this.sliders.append(label);
			this.slider.oninput = () => this.showValue();
			this.slider.onchange = () => this.measure();
		}
		this.slider.valueAsNumber ||= 1;
		this.showValue();
		return this.measure();
	}

	// Back to zero.
	reset() {
		if (!this.slider) return;
		this.measured = undefined;
		this.slider.value = 0;
		this.showValue();
	}

	showValue() {
		this.slider.parentElement.dataset.value = this.slider.ariaValueText = this.slider.valueAsNumber.toFixed(1);
	}

	// Say what it costs on the text.
	async measure() {
		const input = this.getText();
		const { steering } = this.parameters;
		this.measured = steering;
		if (!steering) return this.say("At zero the model is as it is.");
		if (!input) return this.say("Write a text to see what steering costs on it.");
		const answer = await this.ask({ input, steering });
		if (steering !== this.measured) return undefined; // the slider was moved, or another model chosen, meanwhile
		if (!answer) return this.refuse();
		const { layer, plain, steered } = answer.steering;
		const change = `${plain.toFixed(2)} to ${steered.toFixed(2)}`;
		return this.say(`Before layer ${layer}, the text goes from ${change} bits per byte. Torch writes what is steered, more slowly than the engine.`);
	}

	// A run would be refused, too.
	refuse() {
		this.reset();
		this.say("This cannot be steered; the slider is at zero. Why stands at the top of the panel.");
	}

	say(text) {
		this.note.textContent = text;
		this.announce(text);
	}
}

const lines = (label, value) => Object.assign(create("textarea"), { rows: 2, value, ariaLabel: label, dir: "auto" });
