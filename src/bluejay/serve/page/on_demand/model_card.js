// What the model is: its figures, its limits, and what its makers say about it.

import { element, made } from "./dom.js";

export async function showCard(model) {
	const card = await fetch("card").then((response) => response.json()).catch(() => ({}));
	const count = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
	const facts = {
		Name: model.id,
		Size: `${count.format(model.n_parameters)} parameters`,
		Reads: `${model.max_model_len} tokens, its answer included`,
		...card.facts,
	};
	element("facts").replaceChildren(...Object.entries(facts).flatMap(([name, fact]) => [made("dt", name), made("dd", fact)]));
	element("card").textContent = card.text || "Its makers left no card that says what it was trained on.";
}
