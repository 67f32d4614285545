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

// {text, spans, note} of what was stored, without spans that do not fit; undefined where there is no text.
export function textOf(stored) {
	if (typeof stored?.text !== "string") return;
	const text = stored.text.replace(/\r\n?/g, "\n"); // as a text area holds it
	let last = 0;
	const spans = listOf(stored.spans).filter((span) => {
		const { start, end } = Object(span);
		const fits = Number.isInteger(start) && Number.isInteger(end) && last <= start && start <= end && end <= text.length;
		if (fits) last = end;
		return fits;
	});
	return { text, spans, note: typeof stored.note === "string" ? stored.note : "" };
}
