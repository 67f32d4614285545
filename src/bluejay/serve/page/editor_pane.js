// The one text that the person and the model write. A plain textarea holds it, so that caret, selection, paste, undo,
// input methods and screen readers work as everywhere; a mirror of the same text under it carries the colours.

import { afterEdit } from "./marks.js";
import { Paper } from "./paint.js";

export class Surface extends Paper {
	constructor(textarea, mirror, scroller, onEdit) {
		super(mirror, scroller);
		this.textarea = textarea;
		textarea.oninput = () => {
			super.show(textarea.value, afterEdit(this.marks, this.text, textarea.value));
			onEdit();
		};
	}

	// Caret and selection stay where they are, as far as the new text reaches.
	show(text, marks) {
		const { selectionStart, selectionEnd } = this.textarea;
		this.textarea.value = text;
		this.textarea.setSelectionRange(selectionStart, selectionEnd);
		super.show(this.textarea.value, marks);
	}

	// While the model writes, its words go to the end and the person may read and select, not edit.
	set busy(busy) {
		this.textarea.readOnly = busy;
		if (busy) this.toEnd();
	}

	append(pieces) {
		const end = this.text.length;
		super.append(pieces);
		this.textarea.setRangeText(this.text.slice(end), end, end, "preserve");
	}

	dress(look) {
		const { classList } = this.textarea.parentElement;
		classList.toggle("code", look.code);
		classList.toggle("painted", look.code && !look.probabilities);
		super.dress({ ...look, tinted: true });
	}

	focus() {
		this.textarea.focus({ preventScroll: true });
	}
}
