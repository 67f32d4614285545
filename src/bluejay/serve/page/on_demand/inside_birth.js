// The checkpoints of the run that made the model: its loss, and which heads were there at each.

import { create } from "../dom.js";
import { bar, part, percent, table } from "./inside_parts.js";

const PAPER = "https://arxiv.org/abs/2209.11895";
const [WIDTH, HEIGHT] = [300, 60];
const SVG = "http://www.w3.org/2000/svg";

export class Birth {
	found = []; // of each checkpoint: {name, loss, repeat_gain, induction, ...}

	// `get` gives what the server answers at a path; `announce` tells a screen reader.
	constructor(get, announce) {
		Object.assign(this, { get, announce });
		this.note = create("p");
		this.shown = create("div");
		this.button = create("button", "Show the run", () => this.load());
		const told = "Heads that continue what was said before (induction) over the checkpoints of the model's run, beside its loss.";
		this.part = part("Birth of heads", told, PAPER, this.note, this.button, this.shown);
		this.part.hidden = true;
	}

	// Ask once which checkpoints there are.
	async begin() {
		if (this.checkpoints) return;
		this.checkpoints = (await this.get("v1/lens/checkpoints").catch(() => ({ data: [] }))).data;
		const { length } = this.checkpoints;
		this.note.textContent = length ? `The run kept ${length} models.` : "The run of this model kept no checkpoints; checkpoint.at in a recipe keeps them.";
		this.button.hidden = !length;
		this.part.hidden = false;
	}

	async load() {
		this.button.disabled = true;
		try {
			for (const { name, loss } of this.checkpoints.slice(this.found.length)) {
				this.found.push({ loss, ...(await this.get(`v1/lens/checkpoints/${encodeURIComponent(name)}`)) });
				this.note.textContent = `${this.found.length} of ${this.checkpoints.length} models were scored.`;
			}
			this.show();
		} catch ({ message }) {
			this.note.textContent = message;
			this.announce(message);
		}
		this.button.disabled = false;
	}

	show() {
		this.button.hidden = true;
		const last = this.found.length - 1;
		const slider = Object.assign(create("input"), { type: "range", min: 0, max: last, value: last, ariaLabel: "Checkpoint" });
		const heads = create("div");
		slider.oninput = () => {
			const one = this.found[slider.valueAsNumber];
			const best = one.induction.flat();
			const loss = one.loss === null ? "" : `loss ${one.loss.toFixed(2)}, `;
			const told = `${one.name}: ${loss}a repeated token is easier by ${one.repeat_gain.toFixed(2)} bits, strongest induction head ${percent(Math.max(...best))}`;
			this.note.textContent = slider.ariaValueText = told;
			const rows = one.induction.map((values, layer) => [layer, ...values.map((value) => bar(Math.max(0, value), percent(value)))]);
			heads.replaceChildren(table(["Layer", ...one.induction[0].keys()], rows));
			const x = (slider.valueAsNumber * WIDTH) / Math.max(1, last);
			this.cursor.setAttribute("d", `M${x} 0V${HEIGHT}`);
		};
		heads.className = "wide";
		Object.assign(heads, { tabIndex: 0, role: "region", ariaLabel: "Induction scores of the heads" });
		this.shown.replaceChildren(this.chart(), slider, heads);
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
