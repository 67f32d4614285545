// What a person may see and do with one token: how likely it was, what else could have stood there, and trying again.

import { item, made } from "./dom.js";
import { probability } from "./paint.js";

const HOVER = 120; // ms that a pointer rests before a token answers, and that it may take to reach the answer
const GAP = 4; // pixels between a token and what is said about it

// The special tokens that end a text: <|endoftext|>, </s>, <eos>.
export const isEnd = (text) => /^(?:<\|\w+\|>|<\/s>|<eos>)$/.test(text);

// Tokens that are part of a character cannot be put into a text alone.
const isText = (text) => !/^bytes:|\ufffd/.test(text);

// A token with its white space made visible.
const shown = (text) => text.replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length)).replaceAll("\n", "↵").replaceAll("\t", "⇥");

const { format: percent } = new Intl.NumberFormat("en", { style: "percent", maximumSignificantDigits: 2 });

export class TokenCard {
	constructor(card, surface, onChoose, onResample, announce) {
		Object.assign(this, { card, surface, onChoose, onResample, announce, mark: null });
		const { textarea, scroller } = surface;
		Object.assign(textarea, {
			onpointermove: (event) => this.hover(event),
			onpointerleave: () => this.later(null),
			onpointerdown: ({ pointerType }) => (this.touched = pointerType !== "mouse"),
			onmousedown: (event) => this.tap(event),
			onclick: () => this.touched || this.follow(),
			onkeyup: ({ key }) => /^(?:Arrow|Page|Home|End|Tab)/.test(key) && this.follow(),
		});
		card.onpointerenter = () => clearTimeout(this.timer);
		card.onpointerleave = ({ pointerType }) => pointerType === "mouse" && this.later(null);
		scroller.onscroll = onscroll = onresize = () => this.hide();
	}

	set enabled(on) {
		this.on = on;
		if (!on) this.hide();
	}

	hover(event) {
		const { pointerType, buttons, movementX, movementY } = event;
		// A pointer that rests while the page changes under it asks nothing.
		if (pointerType !== "mouse" || buttons || !(movementX || movementY)) return;
		const mark = this.at(event);
		if (mark !== this.mark) this.later(mark);
		else clearTimeout(this.timer);
	}

	later(mark) {
		clearTimeout(this.timer);
		this.timer = setTimeout(() => (mark ? this.show(mark) : this.hide()), HOVER);
	}

	// A finger on a token asks about it and opens no keyboard; a second tap is for editing.
	tap(event) {
		const mark = this.touched && this.at(event);
		if (!mark || mark === this.mark) return;
		event.preventDefault();
		this.show(mark);
	}

	// The caret, moved by keys or a click.
	follow() {
		const { selectionStart: at, selectionEnd: end } = this.surface.textarea;
		const mark = at === end && this.tokens.find(({ from, to }) => from <= at && at < to);
		if (!mark) return this.hide();
		if (mark === this.mark) return;
		this.show(mark);
		this.announce(`“${this.surface.text.slice(mark.from, mark.to)}” ${percent(probability(mark))}. Tab for alternatives.`);
	}

	at({ clientX: x, clientY: y }) {
		const hit = ({ left, right, top, bottom }) => left <= x && x < right && top <= y && y < bottom;
		return this.tokens.find((mark) => this.surface.boxes(mark).some(hit)) ?? null;
	}

	// Those that can be asked about now.
	get tokens() {
		const asleep = !this.on || this.surface.textarea.readOnly;
		return asleep ? [] : this.surface.marks.filter(({ logprob }) => logprob !== undefined);
	}

	show(mark) {
		clearTimeout(this.timer);
		this.mark = mark;
		const token = this.surface.text.slice(mark.from, mark.to);
		const title = made("p");
		title.append(made("b", shown(token)), ` ${percent(probability(mark))}`);
		const list = made("ol");
		for (const [text, logprob] of mark.top ?? []) list.append(this.alternative(text, Math.exp(logprob), text === token));
		this.card.replaceChildren(title, list, made("button", "Resample from here", () => this.leave(this.onResample)));
		this.card.showPopover();
		this.place(this.surface.boxes(mark).at(-1)); // a space at the end of a line has a box of its own
	}

	alternative(text, share, chosen) {
		const name = made("span", isEnd(text) ? "end of text" : shown(text));
		const node = item(() => this.leave(this.onChoose, text), name, made("small", percent(share)));
		node.firstChild.style.setProperty("--share", share);
		node.firstChild.disabled = chosen || !isText(text);
		return node;
	}

	place(box) {
		const { offsetWidth: width, offsetHeight: height, style } = this.card;
		const below = box.bottom + GAP;
		style.left = `${Math.max(8, Math.min(box.left, innerWidth - width - 8))}px`;
		style.top = `${below + height <= innerHeight ? below : Math.max(8, box.top - GAP - height)}px`;
	}

	// Close, give the keyboard back to the text, then act.
	leave(act, text) {
		const { mark } = this;
		this.hide();
		this.surface.focus();
		act(mark, text);
	}

	hide() {
		clearTimeout(this.timer);
		if (!this.mark) return;
		this.mark = null;
		if (this.card.contains(document.activeElement)) this.surface.focus();
		this.card.hidePopover();
	}
}
