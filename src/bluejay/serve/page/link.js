// A link that carries prompt and settings, behind the #, which browsers do not send to the server.

import { promptLength } from "./marks.js";

export function linkTo({ text, marks }, settings, withAnswer) {
	const length = promptLength(marks, text);
	const parts = new URLSearchParams({ ...settings, prompt: text.slice(0, length) });
	if (withAnswer) parts.set("answer", text.slice(length));
	return `${location.origin}${location.pathname}#${parts}`;
}

// What the page's address carries: {text, marks, settings}, or nothing.
export function linked(hash) {
	const { prompt, answer = "", ...settings } = Object.fromEntries(new URLSearchParams(hash.slice(1)));
	if (prompt === undefined) return;
	const marks = answer ? [{ from: prompt.length, to: prompt.length + answer.length }] : [];
	return { text: prompt + answer, marks, settings };
}
