// The model card: the choice of a model where there are several, its figures, its limits, its evaluation, and what its
// authors say about it.

import { getJson } from "../api.js";
import { create } from "../dom.js";
import limits from "./limits.js";

const count = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export class ModelCard {
	constructor(panel, models) {
		this.models = models;
		this.card = create("div");
		this.choices = create("fieldset");
		panel.replaceChildren(this.card);
	}

	// Show the models that the server has by now, and the card of the one that writes.
	async open() {
		await this.models.fetch();
		const choose = (model) => (this.models.use(model), this.show());
		this.choices.replaceChildren(create("legend", "Which model writes"), ...this.models.list.map((model) => choice(model, choose)));
		this.choices.querySelector(`[value="${CSS.escape(this.models.current.id)}"]`).checked = true;
		if (this.models.several) this.card.before(this.choices);
		await this.show();
	}

	async show() {
		const model = this.models.current;
		const card = await getJson("card", this.models.key).catch(({ message }) => ({ text: message }));
		if (model !== this.models.current) return; // another was chosen meanwhile
		const facts = {
			Name: model.id,
			Size: `${count.format(model.n_parameters)} parameters`,
			Context: `${model.max_model_len} tokens, prompt and answer together`,
			...card.facts,
		};
		const list = create("dl");
		list.append(...Object.entries(facts).flatMap(([name, fact]) => [create("dt", name), create("dd", fact)]));
		const text = create("pre", card.text || "This model has no card that says what it was trained on.");
		text.dir = "auto";
		this.card.replaceChildren(list, ...summary(card.evaluation), create("p", limits), text);
	}
}

// A radio button with the name of a model, its size, and what it is good for.
function choice(model, choose) {
	const { id, n_parameters: size, loaded, good_for: purpose } = model;
	const label = create("label");
	const figures = `${count.format(size)} parameters${loaded ? "" : " · loaded when first used"}`;
	const radio = Object.assign(create("input"), { type: "radio", name: "model", value: id, onchange: () => choose(model) });
	const parts = [create("strong", id), create("small", figures), create("span", purpose)];
	label.append(radio, ...parts.flatMap((part) => [" ", part]));
	return label;
}

// What `bluejay eval --report` found, if that lies beside the model: every figure with its interval and its n.
function summary(evaluation) {
	if (!evaluation) return [];
	const table = create("table");
	const figure = (value) => (value === null ? "?" : value.toPrecision(3));
	table.append(create("caption", `Evaluated ${evaluation.date}, with 95 % intervals`));
	table.append(row("th", "Task", "Figure", "n"), ...evaluation.figures.map(({ task, title, value, low, high, n }) =>
		row("td", `${task}: ${title}`, `${figure(value)} (${figure(low)} to ${figure(high)})`, n)));
	return evaluation.command ? [table, create("pre", evaluation.command)] : [table];
}

function row(kind, ...texts) {
	const made = create("tr");
	made.append(...texts.map((text) => create(kind, text)));
	return made;
}
