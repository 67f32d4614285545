export const element = (id) => document.getElementById(id);

// A new element with a text; a button if it does something.
export function made(tag, text = "", onClick = undefined) {
	const node = document.createElement(tag);
	node.textContent = text;
	if (onClick) Object.assign(node, { type: "button", onclick: onClick });
	return node;
}

// A list item with a button of several parts.
export function item(onClick, ...parts) {
	const node = made("li");
	node.append(made("button", "", onClick));
	node.firstChild.append(...parts);
	return node;
}
