// Text with colours but without elements in it: the text is one text node, and CSS highlights colour ranges of it. So
// nothing that anyone wrote can become markup, and no colour moves a letter.
// https://drafts.csswg.org/css-highlight-api-1/

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
	ranges = []; // [name of the highlight, range]
	node = document.createTextNode("");
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
		this.node.data = withLastLine(text);
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
			this.spans = [...this.spans, { start, end: this.text.length, ...known }];
		}
		this.node.data = withLastLine(this.text);
		this.frame ??= requestAnimationFrame(() => {
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

	highlight() {
		this.clearHighlights();
		if (!globalThis.Highlight) return; // an old browser shows the text in one colour
		const { code, probabilities, tinted } = this.style;
		const known = ({ logprob }) => probabilities && logprob !== undefined;
		for (const span of this.spans.filter(known)) this.addHighlight(levelOf(span), span.start, span.end);
		const rest = this.spans.filter((span) => tinted && !known(span));
		for (const { start, end } of mergeSpans(rest)) this.addHighlight("model", start, end);
		for (const { name, start, end } of Object.values(this.drawn).flatMap((parts) => parts())) this.addHighlight(name, start, end);
		if (!code || probabilities) return;
		for (const [start, end, kind] of syntaxSpans(this.text)) this.addHighlight(kind, start, end);
	}

	addHighlight(name, startOffset, endOffset) {
		const { node } = this;
		const range = new StaticRange({ startContainer: node, startOffset, endContainer: node, endOffset });
		highlight(name).add(range);
		this.ranges.push([name, range]);
	}

	clearHighlights() {
		this.frame = cancelAnimationFrame(this.frame);
		for (const [name, range] of this.ranges) CSS.highlights.get(name).delete(range);
		this.ranges = [];
	}
}

// An empty last line has no height unless a character stands on it.
const withLastLine = (text) => `${text}\u200b`;
