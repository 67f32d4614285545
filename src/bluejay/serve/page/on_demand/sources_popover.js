// The popover of one quote: the documents that it stands in, their licences, and what is around it there.

import { create } from "../dom.js";
import { SpanPopover } from "./span_popover.js";

const AROUND = 40; // tokens that are shown on each side of a match
const TITLE_CHARS = 80;

export class SourcesPopover extends SpanPopover {
	// `getQuotes` gives the quotes of the text, as `Sources` has them; `ask(path, body)` asks the server.
	constructor(pane, announce, getQuotes, ask) {
		const popover = create("div");
		Object.assign(popover, { id: "quote", popover: "manual", role: "group", ariaLabel: "Sources of a quote" });
		super(popover, pane, announce);
		Object.assign(this, { getQuotes, ask });
	}

	get spans() {
		return this.on ? this.getQuotes() : [];
	}

	describe(quote) {
		return `${this.title(quote)} ${occurrences(quote)}. Tab for its documents.`;
	}

	title({ start, end }) {
		const text = this.pane.text.slice(start, end).replace(/\s+/g, " ").trim();
		return text.length > TITLE_CHARS ? `“${text.slice(0, TITLE_CHARS)}…”` : `“${text}”`;
	}

	// What is being read stays in place, also while the model writes.
	show(quote) {
		this.followed ??= this.pane.following;
		this.pane.following = false;
		super.show(quote);
	}

	hide() {
		if (this.span) this.pane.following = this.followed;
		this.followed = undefined;
		super.hide();
	}

	fill(quote) {
		const title = create("p");
		title.append(create("b", this.title(quote)), ` · ${counted(quote.tokens, "token")} · ${occurrences(quote)}`);
		const documents = quote.documents.map((document) => this.details(quote, document));
		const folded = quote.documents.reduce((sum, document) => sum + 1 + document.near_copies.length, 0);
		const left = quote.n_documents - folded;
		const overlapping = this.spans.filter(({ start, end }) => start < quote.end && quote.start < end);
		const others = overlapping.filter((one) => one !== quote).map((one) => this.other(one));
		const more = left > 0 ? [create("p", `and ${counted(left, "more document")}`)] : [];
		// On a small screen the popover covers the bar, which has the same button.
		const next = this.spans.length > 1 ? [create("button", "Next", () => this.onNext())] : [];
		this.popover.replaceChildren(title, ...documents, ...more, ...others, ...next);
		this.popover.scrollTop = 0;
		if (documents.length) documents[0].open = true;
	}

	// Leads to a quote that overlaps with the one on show.
	other(quote) {
		return create("button", `Overlapping: ${this.title(quote)}`, () => (this.show(quote), this.focusFirst()));
	}

	focusFirst() {
		this.popover.querySelector("summary")?.focus();
	}

	details(quote, document) {
		const node = create("details");
		const summary = create("summary");
		summary.append(create("strong", document.source), ` · licence ${document.licence}`);
		const list = create("dl");
		for (const [name, fact] of Object.entries(factsOf(document))) {
			const description = create("dd");
			description.append(fact);
			if (fact) list.append(create("dt", name), description);
		}
		const snippet = create("blockquote");
		snippet.dir = "auto";
		node.append(summary, list, snippet);
		node.ontoggle = () => node.open && this.load(snippet, quote, document);
		return node;
	}

	// Show what is around a match, which is asked for when it is first seen.
	async load(snippet, quote, { corpus, split, position }) {
		if (snippet.querySelector("mark")) return;
		try {
			const place = { corpus, split, position, length: quote.tokens, around: AROUND };
			const { before, match, after } = await this.ask("v1/trace/snippet", place);
			snippet.replaceChildren("…", before, create("mark", match), after, "…");
		} catch ({ message }) {
			snippet.textContent = message;
		}
		if (snippet.isConnected && this.span) this.place();
	}
}

const factsOf = (document) => ({
	Component: document.component,
	Licence: document.licence,
	Address: document.url && addressOf(document.url),
	Split: document.split,
	Training: reading(document),
	Here: `${counted(document.occurrences, "time")}${document.copies > 1 ? ` in ${document.copies} copies` : ""}`,
	"Near-copies": document.near_copies.length ? `${document.near_copies.length}, not listed` : "",
});

// A link only where it leads to the web: an address comes from a corpus and may be anything.
function addressOf(url) {
	if (!/^https?:\/\//i.test(url)) return url;
	return Object.assign(create("a", url), { href: url, target: "_blank", rel: "noopener noreferrer" });
}

// When the batches of the run held the match. `trace/display.py` says it in the same words.
function reading({ steps, steps_in_part: inPart }) {
	if (!steps) return "no run that read it is known";
	if (steps.length) return `read at ${some(steps)}`;
	return inPart.length ? `cut between sequences, read in parts at ${some(inPart)}` : "not read";
}

function some(numbers) {
	const more = numbers.length > 5 ? ` and ${numbers.length - 5} more` : "";
	return `step${numbers.length > 1 ? "s" : ""} ${numbers.slice(0, 5).join(", ")}${more}`;
}

const counted = (n, unit) => `${n.toLocaleString("en")} ${unit}${n === 1 ? "" : "s"}`;

function occurrences({ count, n_documents: n, all_looked_at: all }) {
	return `occurs ${counted(count, "time")} in ${all ? "" : "at least "}${counted(n, "document")}`;
}
