// Short names for making and finding elements.

export const byId = (id) => document.getElementById(id);

// A new element with a text; a button with `onClick` does something.
export function create(tag, text = "", onClick) {
	const node = document.createElement(tag);
	node.textContent = text;
	if (onClick) Object.assign(node, { type: "button", onclick: onClick });
	return node;
}

// A list item that holds one button made of several parts.
export function listItem(onClick, ...parts) {
	const node = create("li");
	node.append(create("button", "", onClick));
	node.firstChild.append(...parts);
	return node;
}
