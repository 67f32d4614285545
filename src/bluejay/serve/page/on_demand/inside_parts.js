// What the parts of the panel "Inside" are made of: sections, tables, bars, numbers.

import { create } from "../dom.js";

export const signed = (value, digits = 2) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;

// A section: its name, one sentence with a link to the method's source, and what it shows.
export function part(name, told, address, ...nodes) {
	const section = create("section");
	const link = create("a", "Method");
	Object.assign(link, { href: address, target: "_blank", rel: "noopener noreferrer", ariaLabel: `Method: ${name}` });
	const sentence = create("p", `${told} `);
	sentence.append(link);
	section.append(create("h2", name), sentence, ...nodes);
	return section;
}

export function row(...nodes) {
	const made = Object.assign(create("div"), { className: "row" });
	made.append(...nodes);
	return made;
}

// A menu of values and their names.
export function choice(label, options) {
	const made = Object.assign(create("select"), { ariaLabel: label });
	made.append(...Object.entries(options).map(([value, name]) => new Option(name, value)));
	return made;
}

// A text with a bar behind it, as long as a share from -1 to 1.
export function bar(share, text) {
	const node = create("span", text);
	node.className = share < 0 ? "bar less" : "bar";
	node.style.setProperty("--share", Math.abs(share));
	return node;
}

// A table whose first column names the rows; cells are texts or elements.
export function table(head, rows) {
	const made = create("table");
	const line = (kinds, cells) => {
		const node = create("tr");
		node.append(...cells.map((cell, i) => {
			const [tag, scope] = kinds(i);
			const data = create(tag);
			if (scope) data.scope = scope;
			data.append(cell);
			return data;
		}));
		return node;
	};
	made.append(line(() => (["th", "col"]), head), ...rows.map((cells) => line((i) => (i ? ["td"] : ["th", "row"]), cells)));
	return made;
}
