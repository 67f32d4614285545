// The parts of a text that the model wrote: spans {start, end, logprob, top} in order, counted in UTF-16 units. A
// span is one token; `logprob` is the natural logarithm of its probability and `top` lists the likeliest tokens at its
// place as [text, logprob]. Both are missing where only the author is known.

// The spans after the user edited a text. What the edit touches becomes the user's.
export function spansAfterEdit(spans, before, after) {
	const shorter = Math.min(before.length, after.length);
	let start = 0;
	while (start < shorter && before[start] === after[start]) start++;
	let tail = 0;
	while (tail < shorter - start && before.at(-1 - tail) === after.at(-1 - tail)) tail++;
	const end = before.length - tail;
	const shift = after.length - before.length;
	return spans.flatMap((span) => {
		if (span.end <= start) return span;
		if (span.start >= end) return shiftSpan(span, shift);
		const rest = [{ start: span.start, end: start }, { start: end + shift, end: span.end + shift }];
		return rest.filter(({ start, end }) => start < end);
	});
}

// The spans of the first `length` characters.
export function spansUpTo(spans, length) {
	const begun = spans.filter(({ start }) => start < length);
	return begun.map((span) => (span.end <= length ? span : { start: span.start, end: length }));
}

export const shiftSpan = (span, by) => ({ ...span, start: span.start + by, end: span.end + by });

// Adjacent spans joined, without what is known of their tokens.
export function mergeSpans(spans) {
	const merged = [];
	for (const { start, end } of spans) {
		if (merged.at(-1)?.end === start) merged.at(-1).end = end;
		else merged.push({ start, end });
	}
	return merged;
}
