// Several continuations of one text, side by side, until the user keeps one.

import { create } from "../dom.js";
import { HighlightedText } from "../highlighted_text.js";
import { shiftSpan } from "../spans.js";

export class Samples {
	panes = [];
	style = {};
	list = undefined; // the samples {text, spans, note} on show; a new list for every change

	// `onChange` gets the text of `editor` with its spans, to show it without the samples.
	constructor(section, editor, onChange) {
		Object.assign(this, { section, editor, onChange });
	}

	// Empty panes for n samples that are about to be generated.
	begin(n) {
		this.show(Array(n).fill({ text: "", spans: [], note: "" }));
		return this.panes;
	}

	// Update the list from the panes.
	settle() {
		if (this.list) this.list = this.panes.map(({ text, spans, note }) => ({ text, spans, note: note.textContent }));
	}

	show(list) {
		for (const pane of this.panes) pane.clearHighlights();
		this.list = list;
		this.panes = (list ?? []).map((sample, i) => new SamplePane(sample, i + 1, (kept) => this.keep(kept)));
		this.section.hidden = !list;
		this.section.replaceChildren(create("button", "Discard all", () => this.replace(this.editor)), ...this.panes.map(({ box }) => box));
		this.applyStyle(this.style);
	}

	keep({ text, spans }) {
		const { editor } = this;
		const kept = spans.map((span) => shiftSpan(span, editor.text.length));
		this.replace({ text: editor.text + text, spans: [...editor.spans, ...kept] });
	}

	// The button that was pressed goes with the samples; the text has the keyboard focus then.
	replace({ text, spans }) {
		this.onChange({ text, spans });
		this.editor.focus();
	}

	applyStyle(style) {
		this.style = style;
		for (const pane of this.panes) pane.applyStyle(style);
	}
}

class SamplePane extends HighlightedText {
	constructor({ text, spans, note }, number, onKeep) {
		const content = create("pre");
		const ariaLabel = `Text of sample ${number}`; // it can have the focus, so that arrow keys scroll it
		Object.assign(content, { className: "sample", dir: "auto", translate: false, tabIndex: 0, role: "region", ariaLabel });
		super(content, content);
		this.show(text, spans);
		this.note = create("small", note);
		const keep = create("button", "Keep this one", () => onKeep(this));
		keep.ariaLabel = `Keep this one: sample ${number}`;
		this.box = create("article");
		this.box.append(content, this.note, keep);
	}
}
