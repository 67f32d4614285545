// Is a text code, which of its parts are what, and where does its function end? Guesses that hold for the languages
// that people try first; nothing here is a parser.

const BEGINNINGS = // of a line
	"async class const def elif else except export fn for from func function if import int let private public return " +
	"static struct try var void while with";
const KEYWORDS = new Set(
	(BEGINNINGS + " and as assert await bool break case catch char continue default del do double enum extends false False " +
		"finally float global impl implements in interface is lambda long match mut new nil None nonlocal not null or " +
		"package pass pub raise self super switch this throw true True type typedef undefined use yield").split(" "),
);
const STRINGS = /"""[^]*?(?:"""|$(?![^]))|'''[^]*?(?:'''|$(?![^]))|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|`(?:\\.|[^`\\])*`?/.source;
const NUMBER = /\b(?:0x[\da-fA-F]+|\d[\d_]*(?:\.\d+)?(?:e[+-]?\d+)?)\b/.source;
const WORD = /[\p{L}_$][\p{L}\p{N}_$]*/u.source;
const HASH = /#.*/.source;
const SLASHES = /\/\/.*|\/\*[^]*?(?:\*\/|$(?![^]))|^#.*/.source;
const STARTS = new RegExp(`^\\s*(?:${BEGINNINGS.replaceAll(" ", "|")}|#include|#!|@\\w)\\b`);
const SIGNS = /[=(){}[\]]|[:;]\s*$|^\s*(?:import \w[\w.]*|from \S+ import .*|return .*)$/;

// Whether a third of the lines look like a program's.
export function looksLikeCode(text) {
	const lines = text.split("\n").filter((line) => line.trim());
	const code = lines.filter((line) => (STARTS.test(line) && SIGNS.test(line)) || /^\s*(?:\/\/|\/\*|[})\]])|[{};]\s*$/.test(line));
	return code.length > 0 && code.length * 3 >= lines.length;
}

const hashed = (text) => /^\s*(?:async def|def|class)\b[^{]*$|^\s*(?:import|from|elif|except)\b|^#(?!include|define)/m.test(text);

// The parts of a program as [from, to, kind].
export function highlighted(text) {
	const comment = hashed(text) ? HASH : SLASHES;
	const token = new RegExp(`(${comment})|(${STRINGS})|(${NUMBER})|(${WORD})`, "gmu");
	const parts = [];
	let naming = false;
	for (const match of text.matchAll(token)) {
		const [whole, comment, string, number, word] = match;
		const end = match.index + whole.length;
		const kind = comment ? "comment" : string ? "string" : number ? "number" : KEYWORDS.has(word) ? "keyword" : "name";
		const named = naming || text[end] === "(";
		naming = /^(?:def|class|function|fn|func|struct|interface)$/.test(word ?? "");
		if (kind !== "name" || named) parts.push([match.index, end, kind]);
	}
	return parts;
}

// How much of what the model added belongs to the function that the prompt begins, or else to the first one that the
// model begins; -1 as long as its end has not come.
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

// The end of an indented block: the last line before one that is indented no further than its head. undefined where
// none of it is the model's.
function endOfBlock(text, opener, promptLength) {
	let at = opener.index;
	let end = at;
	let quoted = false; // within a text of three quotes
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

// The end of a block in braces: the innermost that the prompt leaves open, or the first that is opened after it.
function endOfBraces(text, promptLength) {
	const token = new RegExp(`${SLASHES}|${STRINGS}|([{}])`, "gm");
	let depth = 0;
	let target; // the depth at which it has ended
	for (const { 1: brace, index } of text.matchAll(token)) {
		if (index >= promptLength) target ??= Math.max(0, depth - 1);
		if (brace) depth += brace === "{" ? 1 : -1;
		if (brace === "}" && depth <= target) return index + 1;
	}
	return -1;
}
