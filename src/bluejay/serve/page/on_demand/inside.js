// The panel "Inside": what the model did with the text. A token of the text is chosen by a click, a tap, the caret or the
// panel's buttons; what attention read, and what leaving out a token changes, is drawn on the text itself.

import { create } from "../dom.js";
import { Birth } from "./inside_birth.js";
import { bar, choice, part, row, signed, table } from "./inside_parts.js";
import { Steering } from "./inside_steering.js";
import { SpanPopover, utf16Offsets } from "./span_popover.js";
import { percent, visible } from "./token_text.js";

const KEYS_MS = 200; // how long the caret rests on a token before the token is explained
const TERMS = 12; // terms of a logit that are shown, before all others together
const STRONGEST = 5; // tokens that are listed beside the drawing
const TOO_LONG = ["text_too_long", "context_length_exceeded"]; // codes of answers after which less of the text is sent
const LEVELS = 4; // strengths of what is drawn
const CHANGED = "The text has changed since it was looked at.";
const PAPERS = {
	layers: "https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens",
	terms: "https://transformer-circuits.pub/2021/framework/index.html",
	attention: "https://arxiv.org/abs/2004.10102",
	without: "https://arxiv.org/abs/1612.08220",
	patching: "https://arxiv.org/abs/2309.16042",
};
const PARTS = { heads: "heads", residual: "residual stream", attention: "attention", mlp: "MLPs" };

export class Inside extends SpanPopover {
	tokens = []; // of the text that was looked at: {start, end, text}
	marks = []; // what is drawn on them: {start, end, name}
	looking = false; // whether `lookInside` waits for an answer; its button is not disabled, which would lose the keyboard focus

	// `get(path, body)` asks the server; `announce` tells a screen reader.
	constructor(panel, pane, get, announce) {
		super(panel, pane, announce);
		Object.assign(this, { panel, get });
		this.look = create("button", "Look inside", () => this.lookInside());
		this.note = create("p", "See why the model expected a token of the text.");
		const numbers = create("div", "These are the numbers of the same model in torch and float32; the engine that writes may round differently.");
		this.before = create("button", "Previous token", () => this.choose(this.wanted - 1));
		this.after = create("button", "Next token", () => this.choose(this.wanted + 1));
		this.steps = Object.assign(create("div"), { className: "steps", hidden: true });
		this.steps.append(this.before, this.after);
		this.parts = create("div");
		this.rest = create("div");
		this.steering = new Steering(document.querySelector(".sliders"), (body) => this.ask(body), () => this.input, announce);
		this.birth = this.newBirth();
		panel.onkeydown = pressButton;
		panel.classList.add("inside");
		panel.replaceChildren(this.look, this.note, this.steps, this.parts, this.rest, numbers);
		pane.drawn.inside = () => (this.current && this.on ? [...this.marks, ...this.chosen()] : []);
		this.enabled = !panel.hidden;
	}

	set enabled(on) {
		if (on === this.on) return;
		this.on = on;
		this.pane.highlight();
	}

	get current() {
		return this.answer !== undefined && this.pane.text === this.text;
	}

	// The text changed, or the model began or ended writing.
	update(writing) {
		this.look.ariaDisabled = writing || this.looking;
		this.steps.hidden = this.parts.hidden = !this.current;
		if (this.answer && !this.current) this.note.textContent = CHANGED;
		else if (this.note.textContent === CHANGED) this.note.textContent = this.told; // the change was undone
	}

	// Another model writes from now on.
	forget() {
		this.answer = undefined;
		this.rest.replaceChildren();
		this.birth.ended = true;
		this.birth = this.newBirth();
		this.steering.reset();
		this.note.textContent = "Look again: another model was chosen.";
		this.update(this.pane.textarea.readOnly);
		this.pane.highlight();
	}

	newBirth() {
		return new Birth(this.get, () => this.pane.text, this.announce);
	}

	// The answer of /v1/lens; null after an error, which is told unless its code is among the `expected`, and where another
	// model was chosen meanwhile.
	async ask(body, expected = []) {
		const { birth } = this;
		this.code = undefined;
		const { error, ...answer } = await this.get("v1/lens", body).catch((error) => ({ error }));
		if (birth !== this.birth) return null;
		if (!error) return answer;
		const none = error.status === 404 || error.status === 405;
		if (!expected.includes(error.code)) this.say(none ? "This server does not let visitors look inside." : error.message);
		this.code = error.code;
		return null;
	}

	say(text) {
		this.note.textContent = text;
		this.announce(text);
	}

	// Look at the text as it is now, at what comes after it; of a long text at the end.
	async lookInside() {
		if (this.look.ariaDisabled === "true") return;
		const { birth, pane: { text } } = this;
		this.looking = this.look.ariaDisabled = true;
		let [begin, input, answer] = [0];
		for (let length = text.length; !answer; length = Math.floor(length / 2)) {
			begin = text.length - length;
			input = text.slice(begin).toWellFormed?.() ?? text.slice(begin);
			answer = await this.ask({ input, everywhere: false }, TOO_LONG);
			if (!answer && (!TOO_LONG.includes(this.code) || length < 2)) break;
		}
		this.looking = false;
		this.look.ariaDisabled = this.pane.textarea.readOnly;
		if (!answer || birth !== this.birth) return; // another model was chosen meanwhile
		if (text !== this.pane.text) return this.say("The text changed while it was looked at. Look inside again.");
		const [at, drawable] = [utf16Offsets(answer.text), answer.text === input];
		this.tokens = answer.tokens.map((token, i) => ({
			text: token,
			start: drawable ? begin + at(answer.starts[i]) : text.length,
			end: drawable ? begin + at(answer.starts[i + 1]) : text.length,
		}));
		Object.assign(this, { text, input, ids: answer.ids, wanted: answer.ids.length });
		this.notes = [
			begin ? "Only the end of the text was looked at." : "",
			drawable ? "" : "The model's tokenizer changes this text, so nothing can be drawn on it.",
		].filter(Boolean);
		this.fill(answer, this.ids.length);
		this.rest.replaceChildren(this.patching(), this.steering.part, this.birth.part);
		this.birth.begin();
	}

	// What the caret and taps choose.
	get spans() {
		return this.on && this.current ? this.tokens.filter(({ start, end }) => start < end) : [];
	}

	// A click is on a token, though the caret may come to stand behind it.
	followCaret(event) {
		const span = event && this.at(event);
		if (span) this.show(span);
		else super.followCaret();
	}

	hover() {}
	later() {}
	hide() {}
	describe = ({ text }) => `Token “${visible(text)}”`;

	// Once the caret or a finger rests on a token.
	show(span) {
		this.span = span;
		clearTimeout(this.resting);
		this.resting = setTimeout(() => this.choose(this.tokens.indexOf(span)), KEYS_MS);
	}

	// Explain why the token with this number was expected; the one after the last is what comes next.
	async choose(at) {
		if (at < 1) return this.say("Nothing comes before the first token, so nothing explains it.");
		const { ids } = this;
		if (at > ids.length) return;
		this.wanted = at;
		const body = { input: this.input, position: at - 1, everywhere: false, ...(at < ids.length && { target: ids[at] }) };
		const answer = await this.ask(body);
		if (ids !== this.ids || at !== this.wanted || !this.current) return; // another was chosen meanwhile
		if (answer) this.fill(answer, at);
		else this.wanted = this.number;
	}

	fill(answer, at) {
		Object.assign(this, { answer, number: at, span: this.tokens[at] ?? null });
		this.steps.hidden = this.parts.hidden = false;
		this.before.ariaDisabled = at < 2;
		this.after.ariaDisabled = at >= this.ids.length;
		const likely = answer.probabilities.slice(0, 3);
		const said = likely.map(({ token, probability }) => `“${visible(token)}” ${percent(probability)}`).join(", ");
		const explained = `“${visible(answer.attribution.target)}”${at === this.ids.length ? ", which comes next" : ""}`;
		this.told = [`Explained: ${explained}. Likeliest here: ${said}.`, ...this.notes].join(" ");
		this.say(this.told);
		this.parts.replaceChildren(this.layers(), this.terms(), this.attention(), this.without());
	}

	chosen() {
		const { start, end } = this.tokens[this.number] ?? {};
		return start < end ? [{ start, end, name: "chosen" }] : [];
	}

	layers() {
		const { top, probability, rank } = this.answer.layers;
		const rows = top.map(([token], place) => [
			place ? `Layer ${place - 1}` : "Embedding",
			visible(token),
			bar(probability[place][0], percent(probability[place][0])),
			rank[place][0] + 1,
		]);
		const told = "What the model would have said after each layer, without those that follow, and the place of its final word in that list.";
		return part("Layer by layer", told, PAPERS.layers, table(["After", "Likeliest", "Probability", "Place"], rows));
	}

	terms() {
		const { heads, mlps, attention_biases: biases, embedding, position_embedding: position, ...rest } = this.answer.attribution;
		const terms = [["Embedding", embedding], ["Position", position], ["Biases", rest.bias]];
		heads.forEach((values, layer) => values.forEach((value, head) => terms.push([`Head ${layer}.${head}`, value])));
		mlps.forEach((value, layer) => terms.push([`MLP ${layer}`, value]));
		biases.forEach((value, layer) => terms.push([`Attention bias ${layer}`, value]));
		terms.sort(([, one], [, other]) => Math.abs(other) - Math.abs(one));
		const others = terms.slice(TERMS).reduce((sum, [, value]) => sum + value, 0);
		const shown = [...terms.slice(0, TERMS), ["All others", others]];
		const most = Math.max(...shown.map(([, value]) => Math.abs(value)));
		const rows = [...shown.map(([name, value]) => [name, bar(value / most, signed(value))]), ["Sum", signed(rest.total)]];
		const told = `What each part added to the logit of “${visible(rest.target)}”; they add up to it, ${signed(rest.logit)}.`;
		const neurons = rest.neurons.slice(0, 8).map(({ layer, neuron, value }) => [`Neuron ${layer}.${neuron}`, signed(value)]);
		const details = create("details");
		details.append(create("summary", "Neurons, which make up the MLPs"), table(["Neuron", "Adds"], neurons));
		return part("What made it", told, PAPERS.terms, table(["Part", "Adds"], rows), details);
	}

	attention() {
		const names = this.answer.patterns.flatMap(({ layer, pattern }) => pattern.map((_, head) => `${layer}.${head}`));
		const heads = choice("Head", { all: "all heads together", ...Object.fromEntries(names.map((name) => [name, `head ${name}`])) });
		const kinds = choice("Measure", { value_weighted: "what it moved", pattern: "weights" });
		const list = create("div");
		const draw = () => {
			const rows = this.answer.patterns.flatMap((one) => one[kinds.value].map(([values], head) => ({ name: `${one.layer}.${head}`, values })));
			const shown = rows.filter(({ name }) => heads.value === "all" || name === heads.value);
			const sums = this.tokens.map((_, i) => shown.reduce((sum, { values }) => sum + (values[i] ?? 0), 0));
			list.replaceChildren(this.draw(sums.slice(0, this.number), kinds.value === "pattern" ? "Weight" : "Moved"));
		};
		heads.onchange = kinds.onchange = draw;
		draw();
		const told = "Where attention looked from the token before, drawn on the text: the stronger, the more it took from there.";
		return part("Attention", told, PAPERS.attention, row(heads, kinds), list);
	}

	without() {
		const list = create("div");
		const find = create("button", "Leave out each token", async () => {
			const at = this.number;
			const target = this.ids[at];
			const body = { input: this.input, position: at - 1, everywhere: false, without: true, ...(target !== undefined && { target }) };
			const answer = await this.ask(body);
			if (!answer || !list.isConnected || !this.current) return; // another token or text was chosen meanwhile
			list.replaceChildren(this.draw(answer.without.effect, "Nats less likely"));
			this.announce("Done; the text shows which tokens are needed.");
		});
		const told = "How much less likely the token is without each of those before it, drawn on the text; dashed where it is likelier.";
		return part("Without a word", told, PAPERS.without, find, list);
	}

	patching() {
		const other = Object.assign(create("textarea"), { rows: 2, value: this.input, ariaLabel: "Changed text", dir: "auto" });
		const kinds = choice("What is patched", PARTS);
		const words = ["Answer", "Changed answer"].map((name) => Object.assign(create("input"), { ariaLabel: name, placeholder: `${name}: the likeliest` }));
		const result = create("div");
		const patch = create("button", "Patch", async () => {
			const [target, against] = words.map(({ value }) => value || undefined);
			const answer = await this.ask({ input: this.input, corrupt: other.value, part: kinds.value, target, against });
			if (!answer) return;
			const { recovered, columns, answer: first, other: second } = answer.patched;
			const most = Math.max(...recovered.flat().map(Math.abs));
			const rows = recovered.map((values, layer) => [layer, ...values.map((value) => bar(value / most, percent(value)))]);
			const made = table(["Layer", ...columns.map(visible)], rows);
			made.prepend(create("caption", `What comes back of “${visible(first)}” rather than “${visible(second)}”`));
			const scroller = Object.assign(create("div"), { className: "wide", tabIndex: 0, role: "region", ariaLabel: "Patched" });
			scroller.append(made);
			result.replaceChildren(scroller);
			this.announce("Patched.");
		});
		const told = "Change the text but not its number of tokens: which activations of the text bring its answer back in the changed one?";
		return part("Another text", told, PAPERS.patching, other, ...words, row(kinds, patch), result);
	}

	// Draw values on the tokens; returns a table of the strongest.
	draw(values, name) {
		const most = Math.max(1e-9, ...values.map(Math.abs));
		const level = (value) => Math.min(LEVELS, Math.floor((Math.abs(value) / most) * (LEVELS + 1)));
		this.marks = values.flatMap((value, i) => {
			const { start, end } = this.tokens[i];
			return start < end && level(value) ? [{ start, end, name: `${value < 0 ? "less" : "more"}${level(value)}` }] : [];
		});
		this.pane.highlight();
		const order = [...values.entries()].sort(([, one], [, other]) => Math.abs(other) - Math.abs(one)).slice(0, STRONGEST);
		return table(["Token", name], order.map(([i, value]) => [visible(this.tokens[i].text), bar(value / most, signed(value))]));
	}
}

// Enter in a field presses the button of its section; the form that the panel is in would make the model write.
function pressButton(event) {
	if (event.key !== "Enter" || event.ctrlKey || event.metaKey || event.isComposing || event.target.tagName !== "INPUT") return;
	event.preventDefault();
	if (event.target.type !== "range") event.target.closest("section").querySelector("button").click();
}
