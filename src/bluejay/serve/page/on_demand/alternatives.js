// The popover of one token: how likely it was, the likeliest alternatives, and another try from there.

import { endsText } from "../api.js";
import { create, listItem } from "../dom.js";
import { probability } from "../highlighted_text.js";
import { newSeed } from "../settings.js";
import { spansUpTo } from "../spans.js";
import { listOf } from "../storage.js";

const HOVER_MS = 120; // how long a pointer rests before the popover opens, or may take to reach it before it closes
const GAP = 4; // pixels between the token and the popover

// Tokens that are only part of a character cannot be put into a text alone.
const isText = (text) => !/^bytes:|\ufffd/.test(text);

// The likeliest tokens at the place of a span as [text, logprob]; what was stored may be anything.
const likeliest = ({ top }) => listOf(top).filter((one) => typeof one?.[0] === "string");

// A token with its white space made visible.
const visible = (text) => text.replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length)).replaceAll("\n", "↵").replaceAll("\t", "⇥");

const { format: percent } = new Intl.NumberFormat("en", { style: "percent", maximumSignificantDigits: 2 });

export class AlternativesPopover {
	span = null; // the token that it is open for

	// `onRewrite` gets the text with its spans and, if the model is to continue it, changes to the settings.
	constructor(popover, pane, onRewrite, announce) {
		Object.assign(this, { popover, pane, onRewrite, announce });
		const { textarea, scroller } = pane;
		Object.assign(textarea, {
			onpointermove: (event) => this.hover(event),
			onpointerleave: () => this.later(null),
			onpointerdown: ({ pointerType }) => (this.touched = pointerType !== "mouse"),
			onmousedown: (event) => this.tap(event),
			onclick: () => this.touched || this.followCaret(),
			onkeyup: ({ key }) => /^(?:Arrow|Page|Home|End|Tab)/.test(key) && this.followCaret(),
		});
		popover.onpointerenter = () => clearTimeout(this.timer);
		popover.onpointerleave = ({ pointerType }) => pointerType === "mouse" && this.later(null);
		scroller.onscroll = onscroll = onresize = () => this.hide();
	}

	set enabled(on) {
		this.on = on;
		if (!on) this.hide();
	}

	hover(event) {
		const { pointerType, buttons, movementX, movementY } = event;
		// The event also comes when the page moves under a resting pointer.
		if (pointerType !== "mouse" || buttons || !(movementX || movementY)) return;
		const span = this.at(event);
		if (span !== this.span) this.later(span);
		else clearTimeout(this.timer);
	}

	later(span) {
		clearTimeout(this.timer);
		this.timer = setTimeout(() => (span ? this.show(span) : this.hide()), HOVER_MS);
	}

	// The first tap on a token opens the popover and no keyboard; a second tap is for editing.
	tap(event) {
		const span = this.touched && this.at(event);
		if (!span || span === this.span) return;
		event.preventDefault();
		this.show(span);
	}

	// Open for the token at the caret, after keys or a click moved it.
	followCaret() {
		const { selectionStart: at, selectionEnd } = this.pane.textarea;
		const span = at === selectionEnd && this.tokens.find(({ start, end }) => start <= at && at < end);
		if (!span) return this.hide();
		if (span === this.span) return;
		this.show(span);
		this.announce(`“${this.pane.text.slice(span.start, span.end)}” ${percent(probability(span))}. Tab for alternatives.`);
	}

	at({ clientX: x, clientY: y }) {
		const hit = ({ left, right, top, bottom }) => left <= x && x < right && top <= y && y < bottom;
		return this.tokens.find((span) => this.boxes(span).some(hit)) ?? null;
	}

	// The tokens for which it can open now.
	get tokens() {
		const off = !this.on || this.pane.textarea.readOnly;
		return off ? [] : this.pane.spans.filter(({ logprob }) => logprob !== undefined);
	}

	show(span) {
		clearTimeout(this.timer);
		this.span = span;
		const token = this.pane.text.slice(span.start, span.end);
		const title = create("p");
		title.append(create("b", visible(token)), ` ${percent(probability(span))}`);
		const list = create("ol");
		for (const [text, logprob] of likeliest(span)) list.append(this.alternative(span, text, logprob, text === token));
		const resample = create("button", "Resample from here", () => this.leave(() => this.resample(span)));
		this.popover.replaceChildren(title, list, resample);
		this.popover.showPopover();
		this.moveTo(this.boxes(span).at(-1)); // a space at the end of a line has a box of its own
	}

	alternative(span, text, logprob, chosen) {
		const share = Math.exp(logprob);
		const name = create("span", endsText(text) ? "end of text" : visible(text));
		const node = listItem(() => this.leave(() => this.choose(span, text, logprob)), name, create("small", percent(share)));
		node.firstChild.style.setProperty("--share", share);
		node.firstChild.disabled = chosen || !isText(text);
		return node;
	}

	moveTo(box) {
		const { offsetWidth: width, offsetHeight: height, style } = this.popover;
		const below = box.bottom + GAP;
		style.left = `${Math.max(8, Math.min(box.left, innerWidth - width - 8))}px`;
		style.top = `${below + height <= innerHeight ? below : Math.max(8, box.top - GAP - height)}px`;
	}

	// Close, give the focus back to the text, then act.
	leave(act) {
		this.hide();
		this.pane.focus();
		act();
	}

	choose(span, text, logprob) {
		const before = this.textBefore(span);
		if (endsText(text)) return this.onRewrite(before);
		const chosen = { ...span, end: span.start + text.length, logprob };
		this.onRewrite({ text: before.text + text, spans: [...before.spans, chosen] }, { n: 1 });
	}

	// With a new seed even if the settings have one, which would give the same text again.
	resample(span) {
		this.onRewrite(this.textBefore(span), { n: 1, seed: newSeed() });
	}

	textBefore({ start }) {
		return { text: this.pane.text.slice(0, start), spans: spansUpTo(this.pane.spans, start) };
	}

	// The boxes of a span on the screen, one for each line.
	boxes({ start, end }) {
		const range = document.createRange();
		range.setStart(this.pane.node, start);
		range.setEnd(this.pane.node, end);
		return [...range.getClientRects()];
	}

	hide() {
		clearTimeout(this.timer);
		if (!this.span) return;
		this.span = null;
		if (this.popover.contains(document.activeElement)) this.pane.focus();
		this.popover.hidePopover();
	}
}
