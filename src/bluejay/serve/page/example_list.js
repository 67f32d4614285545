import { create, listItem } from "./dom.js";
import examples from "./examples.js";

// Fill the list of examples, texts to continue with settings; `onPick` gets the one that the user picks.
export function showExamples(list, onPick) {
	for (const example of examples) {
		const { top_p, temperature } = example.settings;
		const figures = create("small", `top-p ${top_p} · temp. ${temperature}`);
		const parts = [create("strong", example.title), figures, create("span", example.watch_for)];
		list.append(listItem(() => onPick(example), ...parts));
	}
}
