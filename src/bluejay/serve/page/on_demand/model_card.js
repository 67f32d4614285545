// The model card: the model's figures, its limits, its evaluation, and what its authors say about it.

import { create } from "../dom.js";
import editor from "../editor.js";

export async function showModelCard(panel, model) {
	const card = await fetch("card").then((response) => response.json()).catch(() => ({}));
	const count = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
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
	panel.replaceChildren(list, ...summary(card.evaluation), create("p", editor.limits), text);
}

// What `bluejay eval --report` found, if that lies beside the model: every figure with its interval and its n.
function summary(evaluation) {
	if (!evaluation) return [];
	const table = create("table");
	const figure = (value) => (value === null ? "?" : value.toPrecision(3));
	table.append(create("caption", `Evaluated ${evaluation.date}, with 95 % intervals`));
	table.append(row("th", "Task", "Figure", "n"), ...evaluation.figures.map(({ task, title, value, low, high, n }) =>
		row("td", `${task}: ${title}`, `${figure(value)} (${figure(low)} to ${figure(high)})`, n)));
	return [table, create("pre", evaluation.command)];
}

function row(kind, ...texts) {
	const made = create("tr");
	made.append(...texts.map((text) => create(kind, text)));
	return made;
}
