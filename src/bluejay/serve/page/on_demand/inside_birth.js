// The checkpoints of the run that made the model: at each its loss, which heads were there, and what it writes.

import { create } from "../dom.js";
import { newSeed } from "../settings.js";
import { bar, part, table } from "./inside_parts.js";
import { percent } from "./token_text.js";

const PAPER = "https://arxiv.org/abs/2209.11895";
const PROMPT = 1000; // signs at the end of the text that the checkpoints continue
const [WIDTH, HEIGHT] = [300, 60];
const SVG = "http://www.w3.org/2000/svg";

export class Birth {
	found = []; // of each checkpoint: {name, share, loss, repeat_gain, induction, ...}
	ended = false; // whether another model was chosen, of which no checkpoint of this one must be asked for

	// `get` gives what the server answers at a path, `getText` the text of the page; `announce` tells a screen reader.
	constructor(get, getText, announce) {
		Object.assign(this, { get, getText, announce });
		this.note = create("p");
		this.shown = create("div");
		this.button = create("button", "Show the run", () => this.load());
		const told = "What the model would have written after this text on its way, its loss, and its heads that continue what was said before (induction).";
		this.part = part("How it learnt", told, PAPER, this.note, this.button, this.shown);
		this.part.hidden = true;
	}

	// Ask once which checkpoints there are.
	async begin() {
		if (this.checkpoints) return;
		this.part.hidden = false;
		this.button.hidden = true;
		try {
			this.checkpoints = (await this.get("v1/lens/checkpoints")).data;
			const { length } = this.checkpoints;
			this.note.textContent = length ? `The run kept ${length} models.` : "The run of this model kept no checkpoints; checkpoint.at in a recipe keeps them.";
			this.button.hidden = !length;
		} catch ({ message }) {
			this.note.textContent = message;
		}
	}

	async load() {
		if (this.button.ariaDisabled === "true") return; // not disabled, which would lose the keyboard focus
		this.button.ariaDisabled = true;
		try {
			const body = { prompt: Array.from(this.getText()).slice(-PROMPT).join(""), seed: newSeed() };
			const texts = []; // apart from those on show, which continue another prompt
			for (const [i, known] of this.checkpoints.entries()) {
				const path = `v1/lens/checkpoints/${encodeURIComponent(known.name)}`;
				this.found[i] ??= { ...known, ...(await this.get(path)) };
				if (this.ended) return;
				texts[i] = (await this.get(`${path}/completions`, body)).text;
				if (this.ended) return;
				this.note.textContent = `${i + 1} of ${this.checkpoints.length} models have written.`;
			}
			this.show(body.prompt, texts);
		} catch ({ message }) {
			if (this.ended) return;
			this.note.textContent = message;
			this.announce(message);
		}
		this.button.ariaDisabled = false;
	}

	show(prompt, texts) {
		this.button.textContent = "Write again";
		const last = this.found.length - 1;
		const slider = Object.assign(create("input"), { type: "range", min: 0, max: last, value: last, ariaLabel: "Checkpoint" });
		const heads = create("div");
		const text = Object.assign(create("pre"), { className: "sample", dir: "auto", tabIndex: 0, role: "region", ariaLabel: "What it writes" });
		slider.oninput = () => {
			const one = this.found[slider.valueAsNumber];
			const best = one.induction.flat();
			const loss = one.loss === null ? "" : `loss ${one.loss.toFixed(2)}, `;
			const share = one.share === null ? one.name : `${percent(one.share)} of the run`;
			text.replaceChildren(prompt, create("mark", texts[slider.valueAsNumber]));
			const told = `${share}: ${loss}a repeated token is easier by ${one.repeat_gain.toFixed(2)} bits, strongest induction head ${percent(Math.max(...best))}`;
			this.note.textContent = slider.ariaValueText = told;
			const rows = one.induction.map((values, layer) => [layer, ...values.map((value) => bar(Math.max(0, value), percent(value)))]);
			heads.replaceChildren(table(["Layer", ...one.induction[0].keys()], rows));
			const x = (slider.valueAsNumber * WIDTH) / Math.max(1, last);
			this.cursor.setAttribute("d", `M${x} 0V${HEIGHT}`);
		};
		heads.className = "wide";
		Object.assign(heads, { tabIndex: 0, role: "region", ariaLabel: "Induction scores of the heads" });
		this.shown.replaceChildren(slider, text, this.chart(), heads);
		slider.oninput();
		this.announce(this.note.textContent);
	}

	// Loss and strongest head over the checkpoints; the slider tells the same in words.
	chart() {
		const svg = drawing("svg", { viewBox: `0 -2 ${WIDTH} ${HEIGHT + 4}`, "aria-hidden": true });
		const most = Math.max(...this.found.map(({ loss }) => loss ?? 0));
		const line = (name, value) => {
			const points = this.found.map((one, i) => `${(i * WIDTH) / Math.max(1, this.found.length - 1)} ${HEIGHT * (1 - value(one))}`);
			return drawing("path", { class: name, d: `M${points.join("L")}` });
		};
		this.cursor = drawing("path", { class: "cursor" });
		svg.append(this.cursor, line("strongest", ({ induction }) => Math.max(0, ...induction.flat())));
		if (most) svg.append(line("loss", ({ loss }) => (loss ?? most) / most));
		const legend = Object.assign(create("small", "— strongest induction head, from 0 to 1   ┄ loss, from 0 to its highest"), { ariaHidden: true });
		const both = create("div");
		both.append(svg, legend);
		return both;
	}
}

function drawing(tag, attributes) {
	const node = document.createElementNS(SVG, tag);
	for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
	return node;
}
