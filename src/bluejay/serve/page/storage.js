// The browser's local storage. Browsers may forbid it; the page works without.

export function load(key) {
	try {
		return JSON.parse(localStorage.getItem(key));
	} catch {
		return null;
	}
}

// Whether the value was stored.
export function save(key, value) {
	try {
		localStorage.setItem(key, JSON.stringify(value));
		return true;
	} catch {
		return false;
	}
}

export const listOf = (stored) => (Array.isArray(stored) ? stored : []);

// The {text, spans, note} in what was stored, without spans that do not lie in the text; undefined if there is no text.
export function textOf(stored) {
	if (typeof stored?.text !== "string") return;
	const text = stored.text.replace(/\r\n?/g, "\n"); // as a text area holds it
	const spans = [];
	for (const { start, end, logprob, top } of listOf(stored.spans).map(Object)) {
		if (!Number.isInteger(start) || !Number.isInteger(end)) continue;
		if (start < (spans.at(-1)?.end ?? 0) || end < start || end > text.length) continue;
		spans.push({ start, end, ...(Number.isFinite(logprob) && { logprob, ...(isTop(top) && { top }) }) });
	}
	return { text, spans, note: typeof stored.note === "string" ? stored.note : "" };
}

const isTop = (top) => listOf(top).length > 0 && top.every((one) => typeof one?.[0] === "string" && Number.isFinite(one[1]));
