// Which parts of a text the model wrote: marks {from, to, logprob, top} in order, in UTF-16 units as strings count. A
// mark is a token, with the natural logarithm of its probability and the likeliest tokens in its place as [text,
// logprob]; where these are missing it is only known to be the model's.

// The marks after a person turned one text into another; what they touched is theirs from then on.
export function afterEdit(marks, before, after) {
	const shorter = Math.min(before.length, after.length);
	let start = 0;
	while (start < shorter && before[start] === after[start]) start++;
	let tail = 0;
	while (tail < shorter - start && before.at(-1 - tail) === after.at(-1 - tail)) tail++;
	const end = before.length - tail;
	const shift = after.length - before.length;
	return marks.flatMap((mark) => {
		if (mark.to <= start) return mark;
		if (mark.from >= end) return shifted(mark, shift);
		const rest = [{ from: mark.from, to: start }, { from: end + shift, to: mark.to + shift }];
		return rest.filter(({ from, to }) => from < to);
	});
}

// The marks of the first so many characters.
export function upTo(marks, length) {
	const begun = marks.filter(({ from }) => from < length);
	return begun.map((mark) => (mark.to <= length ? mark : { from: mark.from, to: length }));
}

// The mark when so many characters more stand before it.
export const shifted = (mark, by) => ({ ...mark, from: mark.from + by, to: mark.to + by });

// One mark for each stretch of the model's, without what is known of its tokens.
export function stretches(marks) {
	const merged = [];
	for (const { from, to } of marks) {
		if (merged.at(-1)?.to === from) merged.at(-1).to = to;
		else merged.push({ from, to });
	}
	return merged;
}

// Where the model's words at the end of a text begin: what stands before is the prompt.
export function promptLength(marks, text) {
	const last = stretches(marks).at(-1);
	return last?.to === text.length ? last.from : text.length;
}
