// Text with colours but without elements in it: the text is one text node, and CSS highlights colour ranges of it. So
// nothing that anyone wrote can become markup, and no colour moves a letter.

import { syntaxSpans } from "./code.js";
import editor from "./editor.js";
import { mergeSpans, spansUpTo } from "./spans.js";

const NEAR_END = 48; // pixels from the end that still count as reading the end

export const probability = ({ logprob }) => Math.exp(logprob);

// p0 for a likely token to p4 for an unlikely one: the name of its highlight.
const levelOf = (span) => `p${editor.probability_thresholds.filter((limit) => probability(span) < limit).length}`;

const highlight = (name) => CSS.highlights.get(name) ?? CSS.highlights.set(name, new Highlight()).get(name);

// A coloured text in `element`, which `scroller` scrolls.
export class HighlightedText {
	text = "";
	spans = [];
	style = {};
	ranges = new Map(); // {name of the highlight, range} by the part that it covers
	node = new Text();
	following = true; // whether the view stays at the end of the text
	top = 0;
	drawn = {}; // functions that give parts {start, end, name} of the text to highlight by that name

	constructor(element, scroller) {
		Object.assign(this, { element, scroller });
		element.replaceChildren(this.node);
		scroller.addEventListener("scroll", () => this.scrolled());
	}

	show(text, spans = []) {
		Object.assign(this, { text, spans });
		this.node.data = text;
		this.highlight();
	}

	// A reader at the end stays there. Scrolling up stops that, unless it was caused by the text becoming shorter.
	scrolled() {
		const { scrollHeight, scrollTop: top, clientHeight } = this.scroller;
		const left = scrollHeight - top - clientHeight;
		this.following = top < this.top ? left < 1 : this.following || left < NEAR_END;
		this.top = top;
	}

	// Add pieces {text, logprob, top} at the end.
	append(pieces) {
		for (const { text, ...known } of pieces.filter(({ text }) => text)) {
			const start = this.text.length;
			this.text += text;
			this.node.appendData(text);
			this.spans = [...this.spans, { start, end: this.text.length, ...known }];
		}
		this.frame ??= requestAnimationFrame(() => {
			this.frame = undefined;
			this.highlight();
			if (this.following) this.scrollToEnd();
		});
	}

	scrollToEnd() {
		this.following = true;
		this.scroller.scrollTop = this.scroller.scrollHeight;
	}

	truncate(length) {
		this.show(this.text.slice(0, length), spansUpTo(this.spans, length));
	}

	// style: {code: as a program, probabilities: coloured by them, tinted: the model's words on a tint}
	applyStyle(style) {
		this.style = style;
		this.element.classList.toggle("code", style.code);
		this.highlight();
	}

	// Highlights that stay are left alone: the browser paints anew what a changed one covers.
	highlight() {
		if (!globalThis.Highlight) return; // an old browser shows the text in one colour
		const former = this.ranges;
		this.ranges = new Map();
		for (const part of this.parts()) {
			const key = `${part.name} ${part.start} ${part.end}`;
			if (this.ranges.has(key)) continue;
			this.ranges.set(key, former.get(key) ?? this.addHighlight(part));
			former.delete(key);
		}
		removeHighlights(former);
	}

	*parts() {
		const { code, probabilities, tinted } = this.style;
		const known = ({ logprob }) => probabilities && logprob !== undefined;
		for (const span of this.spans.filter(known)) yield { ...span, name: levelOf(span) };
		const rest = this.spans.filter((span) => tinted && !known(span));
		for (const span of mergeSpans(rest)) yield { ...span, name: "model" };
		for (const parts of Object.values(this.drawn)) yield* parts();
		if (!code || probabilities) return;
		for (const [start, end, name] of syntaxSpans(this.text)) yield { start, end, name };
	}

	addHighlight({ name, start, end }) {
		const { node } = this;
		const range = new StaticRange({ startContainer: node, startOffset: start, endContainer: node, endOffset: end });
		highlight(name).add(range);
		return { name, range };
	}

	clearHighlights() {
		this.frame = cancelAnimationFrame(this.frame);
		removeHighlights(this.ranges);
		this.ranges.clear();
	}
}

function removeHighlights(ranges) {
	for (const { name, range } of ranges.values()) CSS.highlights.get(name).delete(range);
}
