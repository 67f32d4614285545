// One run: sends the request, gives the streamed text to the outputs, reports on it.

import { complete, endsText } from "./api.js";
import editor from "./editor.js";
import { withLineFeeds } from "./storage.js";

const REASONS = editor.stop_reasons;
export const SHOWING_MS = 50; // between two drawings of new text: they take the processors that the model needs

export class Run {
	controller = new AbortController();
	tokens = 0;
	shown = 0; // when new text was shown

	// Each sample goes to one of `outputs`, which can append(pieces) and truncate(length of the sample to keep). A sample
	// also ends where `functionEnd`, if given, finds the end of a function. New text is shown every `showing` milliseconds.
	constructor(prompt, parameters, key, outputs, functionEnd, showing) {
		Object.assign(this, { prompt, parameters, key, functionEnd, showing });
		this.samples = outputs.map((output) => ({ output, aligner: new TokenAligner(), text: "", waiting: [], tokens: 0, reason: "" }));
	}

	// `onProgress` is called when new text is shown, `onSilence` told that the server is silent, maybe `loading` the model.
	// Throws an Error whose message is a sentence for the user; the text generated until then stays.
	async start(onProgress, onSilence, loading) {
		const { prompt, parameters, key, controller } = this;
		const silence = new Silence(onSilence, loading);
		const busy = () => (silence.busyUntil = silence.seconds + 20);
		const show = () => ((silence.seconds = 0), this.show(), onProgress(this));
		try {
			for await (const part of complete({ prompt, ...parameters }, key, controller.signal, busy)) {
				if (part.usage) this.usage = part.usage;
				else this.take(part);
				this.timer ??= setTimeout(show, this.shown + this.showing - performance.now());
			}
		} catch (error) {
			const stopped = error.name === "AbortError";
			for (const sample of this.samples) sample.reason ||= stopped ? REASONS.user : "interrupted";
			if (!stopped) throw error;
		} finally {
			silence.end();
			show();
		}
	}

	// Give the outputs what has arrived.
	show() {
		this.timer = clearTimeout(this.timer);
		this.shown = performance.now();
		for (const sample of this.samples) if (sample.waiting.length) sample.output.append(sample.waiting.splice(0));
	}

	take({ index, text, tokens, reason, model }) {
		this.model ??= model;
		const sample = this.samples[index];
		if (sample.reason) return; // the sample has ended here but not yet on the server
		this.last = performance.now();
		this.first ??= this.last;
		const n = tokens.length || Number(!reason);
		this.tokens += n;
		sample.tokens += n;
		const pieces = sample.aligner.push(text, tokens);
		sample.waiting.push(...pieces);
		sample.text += pieces.map(({ text }) => text).join("");
		sample.reason = this.reasonOf(reason, tokens.at(-1), sample.tokens);
		const end = this.functionEnd ? this.functionEnd(this.prompt, sample.text) : -1;
		if (end < 0) return;
		this.show();
		sample.output.truncate(end);
		sample.reason = REASONS.function;
		if (this.samples.every(({ reason }) => reason)) this.stop();
	}

	reasonOf(reason, token, tokens) {
		const { max_tokens, stop } = this.parameters;
		if (!reason) return "";
		if (reason === "length") return tokens < max_tokens ? "context full or time over" : REASONS.length;
		return stop && !endsText(token?.text ?? "") ? REASONS.stop : REASONS.end;
	}

	stop() {
		this.controller.abort();
	}

	get stopped() {
		return this.samples.some(({ reason }) => reason === REASONS.user);
	}

	// Who wrote, if not the only model, how fast, with which seed, and why it ended.
	report({ several, list }) {
		const writer = list.find(({ id }) => id === this.model);
		const context = writer?.max_model_len;
		const seconds = (this.last - this.first) / 1000;
		const used = this.samples.length === 1 && this.usage?.total_tokens;
		const rate = Math.max(0, this.tokens - this.samples.length) / seconds;
		const parts = [
			(several || !writer) && this.model,
			counted(this.tokens),
			this.tokens > 1 && seconds > 0 && `${rate.toFixed(rate < 10 ? 1 : 0)} tokens/s`,
			`seed ${this.parameters.seed}`,
			this.parameters.steering && `steered by ${this.parameters.steering.strength}`,
			...new Set(this.samples.map(({ reason }) => reason)),
			used && context && `context ${used} of ${context}`,
		];
		return parts.filter(Boolean).join(" · ");
	}
}

export const counted = (tokens) => `${tokens} token${tokens === 1 ? "" : "s"}`;

// Cuts streamed text into pieces {text, logprob, top}, one for each token wherever a token is whole text. Text and tokens
// arrive at different times: the server holds back text that may begin a stop sequence, and a character can take several
// tokens.
export class TokenAligner {
	waiting = []; // tokens whose text has not arrived
	last = ""; // the latest piece: "\r" and "\n" can be two tokens

	// The pieces that are complete after another part of the stream.
	push(text, tokens) {
		this.waiting.push(...tokens);
		const pieces = [];
		while (text) {
			const token = this.waiting[0]?.text;
			const [taken, length] = token && text.startsWith(token) ? [1, token.length] : [Infinity, text.length];
			const piece = text.slice(0, length);
			const shown = withLineFeeds(this.last + piece).slice(withLineFeeds(this.last).length);
			pieces.push(joined(shown, this.waiting.splice(0, taken)));
			this.last = piece;
			text = text.slice(length);
		}
		return pieces;
	}
}

function joined(text, tokens) {
	if (!tokens.length) return { text };
	const logprob = tokens.reduce((sum, token) => sum + token.logprob, 0);
	return { text, logprob, ...(tokens.length === 1 && { top: tokens[0].top }) };
}

// Counts the seconds without text, and tells the user of every fifth.
export class Silence {
	seconds = 0;
	busyUntil = 0; // a busy server says so every 15 seconds

	constructor(tell, loading) {
		const silent = loading ? "is loading the model: no text" : "has not answered";
		const told = () => (this.seconds < this.busyUntil ? "is busy: no text" : silent);
		this.timer = setInterval(() => ++this.seconds % 5 || tell(`The server ${told()} for ${this.seconds} seconds.`), 1000);
	}

	end() {
		clearInterval(this.timer);
	}
}
