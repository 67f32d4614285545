// Recognises program code and its syntax by rules of thumb for common languages.

const LINE_STARTS =
	"async class const def elif else except export fn for from func function if import int let private public return " +
	"static struct try var void while with";
const KEYWORDS = new Set(
	(LINE_STARTS + " and as assert await bool break case catch char continue default del do double enum extends false False " +
		"finally float global impl implements in interface is lambda long match mut new nil None nonlocal not null or " +
		"package pass pub raise self super switch this throw true True type typedef undefined use yield").split(" "),
);
export const STRING = /"""[^]*?(?:"""|$(?![^]))|'''[^]*?(?:'''|$(?![^]))|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|`(?:\\.|[^`\\])*`?/.source;
export const SLASH_COMMENT = /\/\/.*|\/\*[^]*?(?:\*\/|$(?![^]))|^#.*/.source;
const HASH_COMMENT = /#.*/.source;
const NUMBER = /\b(?:0x[\da-fA-F]+|\d[\d_]*(?:\.\d+)?(?:e[+-]?\d+)?)\b/.source;
const WORD = /[\p{L}_$][\p{L}\p{N}_$]*/u.source;
const STATEMENT = new RegExp(`^\\s*(?:${LINE_STARTS.replaceAll(" ", "|")}|#include|#!|@\\w)\\b`);
const PUNCTUATION = /[=(){}[\]]|[:;]\s*$|^\s*(?:import \w[\w.]*|from \S+ import .*|return .*)$/;
const BLOCK = /^\s*(?:\/\/|\/\*|[})\]])|[{};]\s*$/;
const USES_HASH = /^[ \t]*(?:(?:async def|def|class)\b[^{]*$|(?:import|from|elif|except)\b)|^#(?!include|define)/m;

// Whether at least a third of the lines look like code.
export function looksLikeCode(text) {
	const lines = text.split("\n").filter((line) => line.trim());
	const code = lines.filter((line) => (STATEMENT.test(line) && PUNCTUATION.test(line)) || BLOCK.test(line));
	return code.length > 0 && code.length * 3 >= lines.length;
}

// The coloured parts of a program as [start, end, comment | string | number | keyword | name].
export function syntaxSpans(text) {
	const comment = USES_HASH.test(text) ? HASH_COMMENT : SLASH_COMMENT;
	const token = new RegExp(`(${comment})|(${STRING})|(${NUMBER})|(${WORD})`, "gmu");
	const spans = [];
	let afterDefinition = false;
	for (const match of text.matchAll(token)) {
		const [whole, comment, string, number, word] = match;
		const end = match.index + whole.length;
		const kind = comment ? "comment" : string ? "string" : number ? "number" : KEYWORDS.has(word) ? "keyword" : "name";
		const named = afterDefinition || text[end] === "(";
		afterDefinition = /^(?:def|class|function|fn|func|struct|interface)$/.test(word ?? "");
		if (kind !== "name" || named) spans.push([match.index, end, kind]);
	}
	return spans;
}
