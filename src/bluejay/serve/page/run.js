// One run: what the server streams goes to its places, and what is to be said about it afterwards.

import { complete } from "./api.js";
import { functionEnd } from "./code.js";
import { isEnd } from "./token.js";

export class Run {
	controller = new AbortController();
	tokens = 0;

	// `places` take the answer's samples: each can append(pieces) and cut(length of what stays of the answer).
	constructor(prompt, request, key, places, endsWithFunction) {
		Object.assign(this, { prompt, request, key, endsWithFunction });
		this.samples = places.map((place) => ({ place, pieces: new Pieces(), text: "", tokens: 0, reason: "" }));
	}

	// Throws an Error with one sentence for the person; what came until then stays.
	async go(onPart) {
		const { prompt, request, key, controller } = this;
		try {
			for await (const part of complete({ prompt, ...request }, key, controller.signal)) {
				if (part.usage) this.usage = part.usage;
				else this.take(part);
				onPart(this);
			}
		} catch (error) {
			const reason = error.name === "AbortError" ? "stopped by you" : "cut short";
			for (const sample of this.samples) sample.reason ||= reason;
			if (error.name !== "AbortError") throw error;
		}
	}

	take({ index, text, tokens, reason }) {
		const sample = this.samples[index];
		if (sample.reason) return; // it has ended here, though not yet for the server
		this.last = performance.now();
		this.first ??= this.last;
		const n = Math.max(1, tokens.length);
		this.tokens += n;
		sample.tokens += n;
		const pieces = sample.pieces.push(text, tokens);
		sample.place.append(pieces);
		sample.text += pieces.map(({ text }) => text).join("");
		sample.reason = this.reasonOf(reason, tokens.at(-1));
		const end = this.endsWithFunction ? functionEnd(this.prompt, sample.text) : -1;
		if (end < 0) return;
		sample.place.cut(end);
		sample.reason = "the function ended";
		if (this.samples.every(({ reason }) => reason)) this.stop();
	}

	reasonOf(reason, token) {
		if (reason !== "stop") return reason === "length" ? "reached the length" : "";
		return this.request.stop && !isEnd(token?.text ?? "") ? "met a stop sequence" : "the model ended it";
	}

	stop() {
		this.controller.abort();
	}

	get stopped() {
		return this.samples.some(({ reason }) => reason === "stopped by you");
	}

	// Speed, seed, why it ended, and how much of a context of so many tokens is used.
	report(context) {
		const seconds = (this.last - this.first) / 1000;
		const reasons = [...new Set(this.samples.map(({ reason }) => reason))];
		const used = this.samples.length === 1 && this.usage?.total_tokens;
		if (used >= context) reasons.splice(0, 1, "the context is full");
		const rate = Math.max(0, this.tokens - this.samples.length) / seconds;
		const parts = [
			counted(this.tokens),
			this.tokens > 1 && seconds > 0 && `${rate.toFixed(rate < 10 ? 1 : 0)} tokens/s`,
			`seed ${this.request.seed}`,
			...reasons,
			used && Number.isFinite(context) && `context ${used} of ${context}`,
		];
		return parts.filter(Boolean).join(" · ");
	}
}

export const counted = (tokens) => `${tokens} token${tokens === 1 ? "" : "s"}`;

// Makes pieces of text {text, logprob, top} of a stream's parts, each a token wherever a token is whole text. The server
// holds text back that may begin a stop sequence, and a character can take several tokens: they do not come in step.
export class Pieces {
	waiting = []; // tokens whose text has not come

	// The pieces that are certain after a part of the stream.
	push(text, tokens) {
		this.waiting.push(...tokens);
		const pieces = [];
		while (text) {
			const token = this.waiting[0]?.text;
			const [taken, length] = token && text.startsWith(token) ? [1, token.length] : [Infinity, text.length];
			pieces.push(joined(plain(text.slice(0, length)), this.waiting.splice(0, taken)));
			text = text.slice(length);
		}
		return pieces;
	}
}

// A text area keeps line feeds only; marks must count what it keeps.
const plain = (text) => text.replace(/\r\n?/g, "\n");

function joined(text, tokens) {
	if (!tokens.length) return { text };
	const logprob = tokens.reduce((sum, token) => sum + token.logprob, 0);
	return { text, logprob, ...(tokens.length === 1 && { top: tokens[0].top }) };
}
