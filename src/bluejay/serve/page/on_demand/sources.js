// Where the words of the text come from: asks the server which parts of the text stand in what the model was trained on,
// underlines them, and says how much of the answer is quoted.

import { create } from "../dom.js";
import { mergeSpans, spansAfterEdit } from "../spans.js";
import { SourcesPopover } from "./sources_popover.js";
import { utf16Offsets } from "./span_popover.js";

const TYPING_MS = 300; // after which a text that does not change is traced
const WRITING_MS = 1000; // between two questions while the model writes, at least
const PAUSES = 40; // and for so many times as long as an answer took: with the drawing, 5 % of the time at most
const POLL_MS = 500; // between two questions how far the index is
const MAX_CHARS = 16_000; // of a text, its end is traced
const MAX_QUOTES = 100;
const KINDS = { quoted: "in matches of five tokens or more", interpolated: "only in shorter matches", new: "in none" };
const NOTHING = { text: "", quotes: [] };

export class Sources {
	on = false;
	available = false; // whether the server can trace texts
	traced = NOTHING; // the text that was traced last, and its quotes {start, end, tokens, count, n_documents, documents, ...}
	length = MAX_CHARS;
	next = 0; // when the text may be traced again while the model writes
	round = {}; // another object for each model, key and use of the switch; what was asked in an earlier one is not heard

	// `ask(path, body)` asks the server; `announce` tells a screen reader.
	constructor(pane, ask, announce) {
		Object.assign(this, { pane, ask, announce });
		this.popover = new SourcesPopover(pane, announce, () => this.quotes, ask);
		this.popover.onNext = () => this.showNext();
		this.note = create("div");
		this.shares = create("div");
		this.shares.ariaHidden = true; // the note says the same
		this.button = create("button", "Next quote", () => this.showNext());
		this.bar = Object.assign(create("section"), { id: "sources-bar", ariaLabel: "Sources of the text" });
		this.make = create("button", "", () => this.makeIndex());
		this.make.hidden = true;
		this.bar.append(this.shares, this.note, this.button, this.make);
		pane.scroller.after(this.popover.popover, this.bar);
		pane.drawn.sources = () => this.quotes.map(({ start, end }) => ({ start, end, name: "quoted" }));
	}

	set enabled(on) {
		if (on === this.on) return;
		this.on = this.popover.enabled = on;
		this.bar.hidden = !on;
		this.timer = clearTimeout(this.timer);
		this.traced = NOTHING;
		this.round = {};
		this.asking = false;
		if (on) this.begin();
	}

	// The model or the key has changed.
	restart() {
		if (!this.on) return;
		this.enabled = false;
		this.enabled = true;
	}

	// Ask whether and in what texts can be traced.
	async begin() {
		const { round } = this;
		this.available = false;
		this.telling = true;
		this.make.ariaDisabled = false;
		this.say("Opening the index…");
		try {
			const { available, reason, charged, corpora, index } = await this.ask("v1/trace");
			if (round !== this.round) return;
			Object.assign(this, { available, charged });
			this.make.hidden = !index;
			this.make.textContent = index ? `Make the index (${size(index.bytes)}, about ${Math.ceil(index.seconds)} s)` : "";
			const names = corpora.map(({ name, tokens }) => `${name} (${tokens.toLocaleString("en")} tokens)`);
			this.say(available ? `Searching ${names.join(", ")}.` : unavailable(reason));
		} catch ({ message, status }) {
			if (round !== this.round) return;
			this.say(status === 404 || status === 405 ? unavailable("") : message);
		}
		if (!this.available) this.announce(this.note.textContent);
		this.update(this.writing);
	}

	// Have the server make the index that is missing, and say how far it is.
	async makeIndex() {
		if (this.make.ariaDisabled === "true") return; // not disabled or hidden, which would lose the keyboard focus
		const { round } = this;
		this.make.ariaDisabled = true;
		try {
			await this.ask("v1/trace/index", {});
			for (let status = {}; !status.available; status = await this.ask("v1/trace")) {
				if (round !== this.round) return;
				const { done, tokens, error } = status.index ?? {};
				if (error) throw new Error(`The index could not be made: ${error}.`);
				this.say(`Making the index: ${Math.floor((100 * (done ?? 0)) / (tokens || 1))}%`);
				await new Promise((resolve) => setTimeout(resolve, POLL_MS));
			}
			if (round !== this.round) return;
			if (document.activeElement === this.make) this.pane.focus();
			this.begin();
		} catch ({ message }) {
			if (round !== this.round) return;
			this.say(message);
			this.make.ariaDisabled = false;
		}
		this.announce(this.note.textContent);
	}

	// The quotes of the text as it is now.
	get quotes() {
		const { traced, pane } = this;
		if (this.shown?.traced !== traced || this.shown.text !== pane.text)
			this.shown = { traced, text: pane.text, quotes: this.quotesOf(pane.text) };
		return this.shown.quotes;
	}

	// The quotes that are left in a text that was edited since. What an edit touched is no quote any more.
	quotesOf(text) {
		return spansAfterEdit(this.traced.quotes, this.traced.text, text).filter(({ documents }) => documents);
	}

	// The text changed, or the model began or ended writing.
	update(writing) {
		if (this.writing && !writing) this.telling = true; // a screen reader hears what became of the run
		if (this.writing !== writing) this.timer = clearTimeout(this.timer);
		this.writing = writing;
		const { span } = this.popover;
		if (span && !this.quotes.some(({ start, end }) => start === span.start && end === span.end)) this.popover.hide();
		this.schedule();
	}

	schedule() {
		if (!this.on || !this.available || this.asking) return;
		if (this.pane.text === this.traced.text && !this.telling) return;
		if (this.writing && (this.charged || this.timer !== undefined)) return;
		clearTimeout(this.timer);
		const pause = this.writing ? Math.max(WRITING_MS, this.next - performance.now()) : TYPING_MS;
		this.timer = setTimeout(() => this.trace(), pause);
	}

	async trace() {
		this.timer = undefined;
		const { round } = this;
		const { text } = this.pane;
		if (text === this.traced.text) return this.tell();
		const begin = Math.max(0, text.length - this.length);
		const generated = mergeSpans(this.pane.spans);
		const asked = performance.now();
		this.asking = true;
		try {
			const input = wellFormed(text.slice(begin));
			const answer = await this.ask("v1/trace", { input, spans: MAX_QUOTES });
			if (round !== this.round) return;
			this.take(text, begin, generated, answer, input);
		} catch ({ message, code, status }) {
			if (round !== this.round) return;
			if (status === 401) this.available = false; // until there is another key
			if (code === "text_too_long") this.length = Math.ceil((text.length - begin) / 2);
			else this.fail(text, message);
		}
		const now = performance.now();
		this.next = now + PAUSES * (now - asked);
		this.asking = false;
		this.schedule();
	}

	take(text, begin, generated, { text: decoded, spans, segments, notes }, input) {
		if (decoded !== input) return this.fail(text, "The model's tokenizer changes this text, so its parts cannot be found.");
		const at = utf16Offsets(decoded);
		const quotes = spans.map(({ start, end, start_char, end_char, ...known }) => ({
			...known,
			start: begin + at(start_char),
			end: begin + at(end_char),
			tokens: end - start,
		}));
		this.traced = { text, quotes: [...this.quotesOf(text).filter(({ end }) => end <= begin), ...quotes] };
		const whole = [{ start: begin, end: text.length }];
		const characters = Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, 0]));
		for (const { kind, start_char, end_char } of segments) {
			const [start, end] = [begin + at(start_char), begin + at(end_char)];
			for (const part of generated.length ? generated : whole)
				characters[kind] += Math.max(0, Math.min(end, part.end) - Math.max(start, part.start));
		}
		this.say(generated.length ? "Answer" : "Text", characters, begin ? [...notes, "Only the end of the text was searched."] : notes);
		this.pane.highlight();
		this.tell();
	}

	// Not while the model writes: a screen reader hears the end of a run.
	tell() {
		if (!this.telling || this.writing) return;
		this.telling = false;
		this.announce(this.note.textContent);
	}

	// The text is not asked about again until it changes.
	fail(text, message) {
		this.traced = { text, quotes: this.quotesOf(text) };
		this.say(message);
		this.telling = true;
		this.tell();
	}

	// Say a sentence, or how many characters of the answer or the text are of each kind.
	say(what, characters = {}, notes = []) {
		const total = Object.values(characters).reduce((sum, n) => sum + n, 0);
		const parts = Object.entries(characters).map(([kind, n]) => ({ kind, share: n / total }));
		this.shares.replaceChildren(...parts.map(({ kind, share }) => bar(kind, share)));
		const said = parts.map(({ kind, share }) => `${Math.round(share * 100)}% ${kind}`).join(", ");
		this.note.textContent = total ? `${what}: ${said}` : what;
		this.note.title = total ? parts.map(({ kind }) => `${kind}: ${KINDS[kind]}`).join("; ") : "";
		this.button.hidden = !this.quotes.length;
		const details = create("details");
		details.append(create("summary", "Not everything was searched"), ...notes.map((note) => create("p", note)));
		if (notes.length) this.note.append(details);
	}

	// Open the first quote after the caret, or else the first one.
	showNext() {
		const { textarea, scroller } = this.pane;
		const inOrder = [...this.quotes].sort((one, other) => one.start - other.start);
		const from = this.popover.span?.start ?? this.last ?? -1;
		const quote = inOrder.find(({ start }) => start > from) ?? inOrder[0];
		if (!quote) return;
		this.popover.hide();
		this.last = quote.start;
		textarea.setSelectionRange(quote.start, quote.start);
		const [box] = this.popover.boxes(quote);
		const view = scroller.getBoundingClientRect();
		if (box.top < view.top || box.bottom > view.bottom) scroller.scrollTop += box.top - view.top - view.height / 3;
		requestAnimationFrame(() => requestAnimationFrame(() => this.open(quote)));
	}

	// Once the scrolling, at which popovers close, is over.
	open(quote) {
		[this.popover.box] = this.popover.boxes(quote);
		this.popover.show(quote);
		this.popover.focusFirst();
	}
}

function unavailable(reason) {
	return reason ? `Sources cannot be shown: ${reason}.` : "This server does not show sources.";
}

function size(bytes) {
	const units = ["B", "kB", "MB", "GB", "TB"];
	const unit = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
	return `${(bytes / 1000 ** unit).toPrecision(2)} ${units[unit]}`;
}

function bar(kind, share) {
	const node = create("i");
	node.className = kind;
	node.style.flexGrow = share;
	return node;
}

// Half of a character, which ends up alone where a text is cut, is no text.
const wellFormed = (text) => text.toWellFormed?.() ?? text;
