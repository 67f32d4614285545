// The page's access to the server.

const LOST = "The connection to the server was lost. Your text is still here; press Run to continue it.";

let query = ""; // names the chosen model where there are several

// The served models: [{id, max_model_len, n_parameters, good_for, loaded}]
export const getModels = async (key) => (await getJson("v1/models", key)).data;

// The answer at a path, to a body if there is one.
export async function getJson(path, key, body) {
	const answer = await (await request(path, key, body)).json().catch(() => null);
	if (answer) return answer;
	throw new Error("The answer is not Bluejay's or not complete. Reload the page; your text is kept.");
}

// Ask the model of that id from now on; the first one if it is empty.
export const askModel = (id) => (query = id && `?model=${encodeURIComponent(id)}`);

// Stream a completion as parts {index, text, tokens, reason, model}, and at the end {usage}. `onBusy` is called when the
// server says that it has the request. Throws what `request` throws, or an AbortError after `signal`.
export async function* complete(parameters, key, signal, onBusy) {
	const path = parameters.steering ? "v1/lens/completions" : "v1/completions";
	const body = { ...parameters, logprobs: 5, stream: true, stream_options: { include_usage: true } };
	const response = await request(path, key, body, signal);
	onBusy();
	let unfinished = parameters.n;
	try {
		for await (const data of events(response.body, onBusy)) {
			if (data === "[DONE]") return;
			const part = JSON.parse(data);
			if (part.error) throw new Error(sentence(part.error.message));
			if (part.usage) yield { usage: part.usage };
			for (const { index, text, logprobs, finish_reason: reason } of part.choices) {
				if (reason) unfinished--;
				yield { index, text, tokens: tokensOf(logprobs), reason, model: part.model };
			}
		}
	} catch (error) {
		throw error instanceof TypeError ? new Error(LOST) : error;
	}
	if (unfinished > 0) throw new Error(LOST);
}

// The data of server-sent events, one line each. The body's chunks may end anywhere, even within a character.
export async function* events(body, onComment) {
	const reader = body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = "";
	try {
		for (;;) {
			const { done, value } = await reader.read();
			if (done) return;
			const lines = (rest + value).split("\n");
			rest = lines.pop();
			for (const line of lines) {
				if (line[0] === ":") onComment();
				if (line.startsWith("data: ")) yield line.slice(6);
			}
		}
	} finally {
		reader.cancel().catch(() => {});
	}
}

// Waits for a model until `signal`. Throws an Error with a sentence for the user, the `status` and the `code`.
export async function request(path, key, body, signal) {
	const odd = "The API key holds a character that no key has. Enter it again.";
	if (/[^ -~]/.test(key)) throw Object.assign(new Error(odd), { status: 401 });
	const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
	const sent = body && { method: "POST", body: JSON.stringify(body), signal };
	const response = await fetch(path + query, { ...sent, headers }).catch((error) => {
		if (error.name === "AbortError") throw error;
		throw new Error("The server does not answer. Is it still running? Your text is still here.");
	});
	const { ok, status } = response;
	if (ok) return response;
	const { error } = Object(await response.json().catch(() => null));
	const { code, message } = Object(error);
	if (signal && code === "model_not_ready") {
		await new Promise((done) => setTimeout(done, 300));
		return request(path, key, body, signal);
	}
	const advice = code === "context_length_exceeded" ? " Shorten your text." : "";
	const state = status > 500 || status === 429 ? "is busy or restarting; try again soon" : `answered with status ${status}`;
	const told = message ? sentence(`${message}`) + advice : `The server ${state}.`;
	throw Object.assign(new Error(told), { status, code });
}

function tokensOf(logprobs) {
	return (logprobs?.tokens ?? []).map((text, i) => ({
		text,
		logprob: rounded(logprobs.token_logprobs[i]),
		top: Object.entries(logprobs.top_logprobs?.[i] ?? {})
			.map(([text, logprob]) => [text, rounded(logprob)])
			.sort((a, b) => b[1] - a[1])
			.slice(0, 5),
	}));
}

// Whether a token ends a text.
export const endsText = (token) => /^(?:<\|\w+\|>|<\/s>|<eos>)$/.test(token);

const rounded = (logprob) => Math.round(logprob * 1e3) / 1e3;

const sentence = (message) => `${message[0].toUpperCase()}${message.slice(1)}.`;
