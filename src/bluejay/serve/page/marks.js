// Which parts of the text the model wrote: a list of [start, end) pairs, in order, in UTF-16 units as strings count.

// The marks after a person turned one text into another; what they touched is theirs from then on.
export function afterEdit(marks, before, after) {
  const shorter = Math.min(before.length, after.length);
  let start = 0;
  while (start < shorter && before[start] === after[start]) start++;
  let tail = 0;
  while (tail < shorter - start && before.at(-1 - tail) === after.at(-1 - tail)) tail++;
  const end = before.length - tail;
  const shift = after.length - before.length;
  return marks
    .flatMap(([from, to]) => [
      [from, Math.min(to, start)],
      [Math.max(from, end) + shift, to + shift],
    ])
    .filter(([from, to]) => from < to);
}

// The marks after the model wrote from `start` to the end.
export function afterAppend(marks, start, end) {
  const last = marks.at(-1);
  if (last?.[1] === start) return [...marks.slice(0, -1), [last[0], end]];
  return start < end ? [...marks, [start, end]] : marks;
}

// Marks from outside, as far as they make sense for a text.
export function checked(marks, text) {
  if (!Array.isArray(marks)) return [];
  let at = 0;
  return marks.filter((mark) => {
    if (!Array.isArray(mark) || !mark.every(Number.isInteger)) return false;
    const [from, to] = mark;
    const fits = at <= from && from < to && to <= text.length;
    if (fits) at = to;
    return fits;
  });
}
