// Several continuations of one text, side by side, until the user keeps one.

import { create } from "../dom.js";
import { HighlightedText } from "../highlighted_text.js";

export class Samples {
	panes = [];
	style = {};
	list = undefined; // the samples {text, spans, note} on show; a new list for every change

	constructor(section, onKeep, onDiscard) {
		Object.assign(this, { section, onKeep, onDiscard });
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
		this.panes = (list ?? []).map((sample, i) => new SamplePane(sample, i + 1, this.onKeep));
		this.section.hidden = !list;
		this.section.replaceChildren(create("button", "Discard all", this.onDiscard), ...this.panes.map(({ box }) => box));
		this.applyStyle(this.style);
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
		Object.assign(content, { className: "sample", dir: "auto", tabIndex: 0, role: "region", ariaLabel });
		super(content, content);
		this.show(text, spans);
		this.note = create("small", note);
		const keep = create("button", "Keep this one", () => onKeep(this));
		keep.ariaLabel = `Keep this one: sample ${number}`;
		this.box = create("article");
		this.box.append(content, this.note, keep);
	}
}
