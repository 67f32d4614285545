// The browser's storage; that of the session is the tab's own. Browsers may forbid it; the page works without.

export function load(key, storage = "localStorage") {
	try {
		return JSON.parse(globalThis[storage].getItem(key));
	} catch {
		return null;
	}
}

// Whether the value was stored.
export function save(key, value, storage = "localStorage") {
	try {
		globalThis[storage].setItem(key, JSON.stringify(value));
		return true;
	} catch {
		return false;
	}
}

const STATE = "bluejay"; // the item that holds the state of the page
const TAB = "sessionStorage";

export const loadState = () => load(STATE, TAB) ?? load(STATE);

// Whether it was stored for a reload of this tab and for new ones.
export function saveState(state) {
	const inTab = save(STATE, state, TAB);
	if (!inTab) save(STATE, null, TAB); // what it holds is old
	return save(STATE, state) && inTab;
}

// A text area turns all line ends into line feeds, and spans count what it holds.
export const withLineFeeds = (text) => text.replace(/\r\n?/g, "\n");

export const listOf = (stored) => (Array.isArray(stored) ? stored : []);

// {text, spans, note, samples} of what was stored, without spans that do not fit; undefined where there is no text.
export function textOf(stored) {
	if (typeof stored?.text !== "string") return;
	const text = withLineFeeds(stored.text);
	let last = 0;
	const spans = listOf(stored.spans).filter((span) => {
		const { start, end } = Object(span);
		const fits = Number.isInteger(start) && Number.isInteger(end) && last <= start && start <= end && end <= text.length;
		if (fits) last = end;
		return fits;
	});
	const samples = listOf(stored.samples).map(textOf).filter(Boolean);
	return { text, spans, note: typeof stored.note === "string" ? stored.note : "", ...(samples.length && { samples }) };
}
