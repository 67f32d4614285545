// A popover for parts of the text: it opens for the part on which the pointer rests, which a finger taps, or to which
// keys or a click move the caret.

const HOVER_MS = 120; // how long a pointer rests before the popover opens, or may take to reach it before it closes
const GAP = 4; // pixels between the text and the popover

const same = (one, other) => one?.start === other?.start && one?.end === other?.end;

// A class that extends it has `spans`, the parts {start, end} for which it can open now, `fill(span)`, and
// `describe(span)`, what a screen reader hears.
export class SpanPopover {
	span = null; // the part that it is open for
	on = false;
	range = document.createRange(); // what is measured

	constructor(popover, pane, announce) {
		Object.assign(this, { popover, pane, announce });
		const { textarea, scroller } = pane;
		listen(textarea, {
			pointermove: (event) => this.hover(event),
			pointerleave: () => this.later(null),
			pointerdown: ({ pointerType }) => (this.touched = pointerType !== "mouse"),
			mousedown: (event) => this.tap(event),
			click: (event) => this.touched || this.followCaret(event),
			keyup: ({ key }) => /^(?:Arrow|Page|Home|End|Tab)/.test(key) && this.followCaret(),
		});
		popover.onpointerenter = () => clearTimeout(this.timer);
		popover.onpointerleave = ({ pointerType }) => pointerType === "mouse" && this.later(null);
		for (const target of [scroller, window]) listen(target, { scroll: () => this.hide() });
		listen(window, { resize: () => this.hide() });
	}

	set enabled(on) {
		this.on = on;
		if (!on) this.hide();
	}

	hover(event) {
		const { pointerType, buttons, movementX, movementY } = event;
		// The event also comes when the page moves under a resting pointer.
		if (!this.on || pointerType !== "mouse" || buttons || !(movementX || movementY)) return;
		const span = this.at(event);
		if (!same(span, this.span)) this.later(span);
		else clearTimeout(this.timer);
	}

	later(span) {
		clearTimeout(this.timer);
		if (span || this.span) this.timer = setTimeout(() => (span ? this.show(span) : this.hide()), HOVER_MS);
	}

	// The first tap on a part opens the popover and no keyboard; a second tap is for editing.
	tap(event) {
		const span = this.touched && this.at(event);
		if (!span || same(span, this.span)) return;
		event.preventDefault();
		this.show(span);
	}

	// Open for the part at the caret, after keys or a click moved it.
	followCaret() {
		const { selectionStart: at, selectionEnd } = this.pane.textarea;
		const span = at === selectionEnd && this.spans.find(({ start, end }) => start <= at && at < end);
		if (!span) return this.hide();
		if (same(span, this.span)) return;
		[this.box] = this.boxes({ start: at, end: at + 1 });
		this.show(span);
		this.announce(this.describe(span));
	}

	at({ clientX: x, clientY: y }) {
		const hit = ({ left, right, top, bottom }) => left <= x && x < right && top <= y && y < bottom;
		const caret = document.caretPositionFromPoint?.(x, y);
		const known = caret?.offsetNode === this.pane.textarea; // or else every part is measured
		const near = ({ start, end }) => !known || (start <= caret.offset && caret.offset <= end);
		return this.spans.find((span) => near(span) && (this.box = this.boxes(span).find(hit))) ?? null;
	}

	show(span) {
		clearTimeout(this.timer);
		this.span = span;
		this.fill(span);
		this.popover.showPopover();
		this.place();
	}

	// Below the line at which it opened, or above it where there is more room.
	place() {
		const box = this.box ?? this.boxes(this.span).at(-1); // a space at the end of a line has a box of its own
		const { offsetWidth: width, offsetHeight: height, style } = this.popover;
		const below = box.bottom + GAP;
		style.left = `${Math.max(8, Math.min(box.left, innerWidth - width - 8))}px`;
		style.top = `${below + height <= innerHeight ? below : Math.max(8, box.top - GAP - height)}px`;
	}

	// The boxes of a part on the screen, one for each line.
	boxes({ start, end }) {
		this.range.setStart(this.pane.node, start);
		this.range.setEnd(this.pane.node, end);
		return [...this.range.getClientRects()];
	}

	hide() {
		clearTimeout(this.timer);
		if (!this.span) return;
		this.span = null;
		if (this.popover.contains(document.activeElement)) this.pane.focus();
		this.popover.hidePopover();
	}
}

function listen(target, listeners) {
	for (const [name, listener] of Object.entries(listeners)) target.addEventListener(name, listener);
}

// A function from an offset in characters to one in UTF-16 units.
export function utf16Offsets(text) {
	const offsets = [0];
	for (const character of text) offsets.push(offsets.at(-1) + character.length);
	return (index) => offsets[index];
}
