// Several continuations of one text, side by side, until one is kept.

import { made } from "./dom.js";
import { Paper } from "./paint.js";

const NONE = [];

export class Samples {
	cards = [];
	look = {};
	list = NONE; // what is shown, as it is kept: {text, marks, note}; another list whenever it changes

	constructor(section, onKeep, onDiscard) {
		Object.assign(this, { section, onKeep, onDiscard });
	}

	// Room for n samples that are to come.
	begin(n) {
		this.show(Array(n).fill({ text: "", marks: [], note: "" }));
		return this.cards;
	}

	// Take note of what the cards hold now.
	settle() {
		if (this.cards.length) this.list = this.cards.map(({ text, marks, note }) => ({ text, marks, note: note.textContent }));
	}

	show(list = NONE) {
		for (const card of this.cards) card.erase();
		this.list = list;
		this.cards = list.map((one, i) => new Card(one, i + 1, this.onKeep));
		this.section.hidden = !list.length;
		this.section.replaceChildren(made("button", "Discard all", this.onDiscard), ...this.cards.map(({ box }) => box));
		this.dress(this.look);
	}

	dress(look) {
		this.look = look;
		for (const card of this.cards) card.dress(look);
	}
}

class Card extends Paper {
	constructor({ text, marks, note }, number, onKeep) {
		const words = made("pre");
		const ariaLabel = `Text of sample ${number}`; // arrow keys scroll it
		super(Object.assign(words, { className: "words", dir: "auto", tabIndex: 0, role: "region", ariaLabel }), words);
		this.show(text, marks);
		this.note = made("small", note);
		const keep = made("button", "Keep this one", () => onKeep(this));
		keep.ariaLabel = `Keep this one: sample ${number}`;
		this.box = made("article");
		this.box.append(words, this.note, keep);
	}
}
