// The text that the user and the model write together. A plain textarea holds it, so that caret, selection, paste, undo,
// input methods and screen readers work as usual; an inert copy of the text beneath it carries the colours.

import { HighlightedText } from "./highlighted_text.js";
import { spansAfterEdit } from "./spans.js";

export class EditorPane extends HighlightedText {
	constructor(textarea, mirror, scroller, onEdit) {
		super(mirror, scroller);
		this.textarea = textarea;
		textarea.oninput = () => {
			super.show(textarea.value, spansAfterEdit(this.spans, this.text, textarea.value));
			onEdit();
		};
	}

	// Caret and selection stay in place as far as the new text reaches.
	show(text, spans) {
		const { selectionStart, selectionEnd } = this.textarea;
		this.textarea.value = text;
		this.textarea.setSelectionRange(selectionStart, selectionEnd);
		super.show(this.textarea.value, spans);
	}

	// While the model writes, the user can read and select but not edit.
	set busy(busy) {
		this.textarea.readOnly = busy;
		if (busy) this.scrollToEnd();
	}

	append(pieces) {
		const end = this.text.length;
		super.append(pieces);
		this.textarea.setRangeText(this.text.slice(end), end, end, "preserve");
	}

	applyStyle(style) {
		const { classList } = this.textarea.parentElement;
		classList.toggle("code", style.code);
		classList.toggle("highlighted", style.code && !style.probabilities);
		super.applyStyle({ ...style, tinted: true });
	}

	focus() {
		this.textarea.focus({ preventScroll: true });
	}
}
