// How tokens and their probabilities are written.

export const { format: percent } = new Intl.NumberFormat("en", { style: "percent", maximumSignificantDigits: 2 });

// A token whose white space and control characters are seen.
export const visible = (text) => {
	const spaced = text.replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length)).replaceAll("\n", "↵").replaceAll("\t", "⇥");
	return spaced.replace(/[\0-\x1f]/g, (sign) => String.fromCodePoint(0x2400 + sign.codePointAt(0)));
};
