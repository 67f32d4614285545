// The popover of one token: how likely it was, the likeliest alternatives, and another try from there.

import { endsText } from "../api.js";
import { create, listItem } from "../dom.js";
import { probability } from "../highlighted_text.js";
import { newSeed } from "../settings.js";
import { spansUpTo } from "../spans.js";
import { listOf } from "../storage.js";
import { SpanPopover } from "./span_popover.js";
import { percent, visible } from "./token_text.js";

// Tokens that are only part of a character cannot be put into a text alone.
const isText = (text) => !/^bytes:|\ufffd/.test(text);

// The likeliest tokens at the place of a span as [text, logprob]; what was stored may be anything.
const likeliest = ({ top }) => listOf(top).filter((one) => typeof one?.[0] === "string");

// The colours of probabilities, from likely to unlikely.
function legend() {
	const node = Object.assign(create("p"), { id: "legend" });
	const colours = [..."abcde"].map((letter, level) => Object.assign(create("i", letter), { className: `p${level}` }));
	node.append(create("span", "likely "), ...colours, create("span", " unlikely"));
	return node;
}

export class AlternativesPopover extends SpanPopover {
	// `onRewrite` gets the text with its spans and, if the model is to continue it, changes to the settings.
	constructor(popover, pane, onRewrite, announce) {
		super(popover, pane, announce);
		this.onRewrite = onRewrite;
		this.legend = legend();
		document.getElementById("error").after(this.legend);
	}

	set enabled(on) {
		super.enabled = on;
		this.legend.hidden = !on;
	}

	// The tokens for which it can open now.
	get spans() {
		const off = !this.on || this.pane.textarea.readOnly;
		return off ? [] : this.pane.spans.filter(({ logprob }) => logprob !== undefined);
	}

	describe(span) {
		return `“${this.pane.text.slice(span.start, span.end)}” ${percent(probability(span))}. Tab for alternatives.`;
	}

	fill(span) {
		const token = this.pane.text.slice(span.start, span.end);
		const title = create("p");
		title.append(create("b", visible(token)), ` ${percent(probability(span))}`);
		const list = create("ol");
		for (const [text, logprob] of likeliest(span)) list.append(this.alternative(span, text, logprob, text === token));
		const resample = create("button", "Resample from here", () => this.leave(() => this.resample(span)));
		this.popover.replaceChildren(title, list, resample);
	}

	alternative(span, text, logprob, chosen) {
		const share = Math.exp(logprob);
		const name = create("span", endsText(text) ? "end of text" : visible(text));
		const node = listItem(() => this.leave(() => this.choose(span, text, logprob)), name, create("small", percent(share)));
		node.firstChild.style.setProperty("--share", share);
		node.firstChild.disabled = chosen || !isText(text);
		return node;
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
}
