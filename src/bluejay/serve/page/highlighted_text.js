// Colours on text, without a single element in it: the text stays one text node, and CSS highlights say what its
// ranges look like. So nothing that anyone wrote can become markup, and no colour moves a letter.
// https://drafts.csswg.org/css-highlight-api-1/

import { highlighted } from "./code.js";
import { stretches, upTo } from "./marks.js";

const NEAR_END = 48; // pixels from the end that still count as reading the end
const LIMITS = [0.8, 0.5, 0.2, 0.05]; // probabilities at which the colour deepens

export const probability = ({ logprob }) => Math.exp(logprob);

const levelOf = (mark) => `p${LIMITS.filter((limit) => probability(mark) < limit).length}`;

const group = (name) => CSS.highlights.get(name) ?? CSS.highlights.set(name, new Highlight()).get(name);

// A text that people see in colours, the mirror of the text area or a sample, in what they scroll it with.
export class Paper {
	text = "";
	marks = [];
	look = {};
	painted = []; // [name, range]
	node = document.createTextNode("");
	following = true;
	top = 0;

	constructor(element, scroller) {
		Object.assign(this, { element, scroller });
		element.replaceChildren(this.node);
		scroller.addEventListener("scroll", () => this.scrolled());
	}

	show(text, marks = []) {
		Object.assign(this, { text, marks });
		this.node.data = ended(text);
		this.paint();
	}

	// Who reads the end stays there; a way up is the person's, unless the text became shorter.
	scrolled() {
		const { scrollHeight, scrollTop: top, clientHeight } = this.scroller;
		const left = scrollHeight - top - clientHeight;
		this.following = top < this.top ? left < 1 : this.following || left < NEAR_END;
		this.top = top;
	}

	// Pieces at the end, as they come from a stream.
	append(pieces) {
		for (const { text, ...known } of pieces.filter(({ text }) => text)) {
			const from = this.text.length;
			this.text += text;
			this.marks = [...this.marks, { from, to: this.text.length, ...known }];
		}
		this.node.data = ended(this.text);
		this.frame ??= requestAnimationFrame(() => {
			this.paint();
			if (this.following) this.toEnd();
		});
	}

	toEnd() {
		this.following = true;
		this.scroller.scrollTop = this.scroller.scrollHeight;
	}

	// The first so many characters stay.
	cut(length) {
		this.show(this.text.slice(0, length), upTo(this.marks, length));
	}

	// How it looks: {code, probabilities, tinted}.
	dress(look) {
		this.look = look;
		this.element.classList.toggle("code", look.code);
		this.paint();
	}

	paint() {
		this.erase();
		if (!globalThis.Highlight) return; // an old browser shows the text in one colour
		const { code, probabilities, tinted } = this.look;
		const known = ({ logprob }) => probabilities && logprob !== undefined;
		for (const mark of this.marks.filter(known)) this.colour(levelOf(mark), mark.from, mark.to);
		const rest = this.marks.filter((mark) => tinted && !known(mark));
		for (const { from, to } of stretches(rest)) this.colour("model", from, to);
		if (code && !probabilities) for (const [from, to, kind] of highlighted(this.text)) this.colour(kind, from, to);
	}

	colour(name, from, to) {
		const { node } = this;
		const range = new StaticRange({ startContainer: node, startOffset: from, endContainer: node, endOffset: to });
		group(name).add(range);
		this.painted.push([name, range]);
	}

	erase() {
		this.frame = cancelAnimationFrame(this.frame);
		for (const [name, range] of this.painted) CSS.highlights.get(name).delete(range);
		this.painted = [];
	}

	// Where on the screen a mark stands, one box for each line.
	boxes({ from, to }) {
		const range = document.createRange();
		range.setStart(this.node, from);
		range.setEnd(this.node, to);
		return [...range.getClientRects()];
	}
}

// A last line that is empty has no height without something that stands on it.
const ended = (text) => `${text}\u200b`;
