// Finds where a function ends, in languages that indent their blocks and in those with braces.
// `terminal/function_end.py` has the same rules.

import { SLASH_COMMENT, STRING } from "../code.js";

// The number of characters of `added` that belong to the function that the prompt begins, or else to the first function
// that `added` begins; -1 until that function has ended.
export function functionEnd(prompt, added) {
	const text = prompt + added;
	const openers = [...text.matchAll(/^([ \t]*)(?:async[ \t]+def|def|class)\b[^{\n]*$/gm)];
	const begun = openers.findLast(({ index }) => index < prompt.length);
	const next = openers.find(({ index }) => index >= prompt.length);
	const ends = [begun, next].map((opener) => opener && endOfBlock(text, opener, prompt.length));
	if (!openers.length) ends.push(endOfBraces(text, prompt.length));
	const end = ends.find((end) => end !== undefined) ?? -1;
	return end < 0 ? -1 : Math.max(0, end - prompt.length);
}

// The end of an indented block: the last line before one that is indented no further than the block's first line.
// undefined if the block ends within the prompt.
function endOfBlock(text, opener, promptLength) {
	let at = opener.index;
	let end = at;
	let quoted = false; // inside a triple-quoted string
	for (const line of text.slice(at).split("\n")) {
		const [indent] = line.match(/^[ \t]*/);
		const outside = at > opener.index && !quoted && indent.length <= opener[1].length && /^[^\s)\]}]/.test(line.slice(indent.length));
		if (outside) return end <= promptLength ? undefined : end;
		if ((line.match(/"""|'''/g) ?? []).length % 2) quoted = !quoted;
		if (line.trim()) end = at + line.length;
		at += line.length + 1;
	}
	return -1;
}

// The end of a block in braces: the innermost block that the prompt leaves open, or the first one opened after it.
function endOfBraces(text, promptLength) {
	const token = new RegExp(`${SLASH_COMMENT}|${STRING}|([{}])`, "gm");
	let depth = 0;
	let target; // the depth after the block has ended
	for (const { 1: brace, index } of text.matchAll(token)) {
		if (index >= promptLength) target ??= Math.max(0, depth - 1);
		if (brace) depth += brace === "{" ? 1 : -1;
		if (brace === "}" && depth <= target) return index + 1;
	}
	return -1;
}
