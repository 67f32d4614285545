// A link carries a prompt and settings after the #, which browsers do not send to the server.

// The {text, spans, settings} of such a link, all settings as strings; undefined if there is no prompt.
export function parseLink(hash) {
	const { prompt, answer = "", ...settings } = Object.fromEntries(new URLSearchParams(hash.slice(1)));
	if (prompt === undefined) return;
	const spans = answer ? [{ start: prompt.length, end: prompt.length + answer.length }] : [];
	return { text: prompt + answer, spans, settings };
}
