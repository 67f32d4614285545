// The model card: the model's figures, its limits, and what its authors say about it.

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
	panel.replaceChildren(list, create("p", editor.limits), text);
}
