// The server's side of the page: the same API that everyone else uses.

import { events } from "./sse.js";

// What the server says about its model: {id, max_model_len, n_parameters}.
export async function served() {
  const response = await fetch("v1/models");
  if (!response.ok) throw new Error("The server does not say which model it has.");
  return (await response.json()).data[0];
}

// Continue a prompt: each part of the answer as {text, reason} and at the end {usage}. Throws an Error with one
// sentence for the person, or an AbortError when the signal says so.
export async function* complete(request, signal) {
  const response = await reach(request, signal);
  if (!response.ok) throw new Error(await complaint(response));
  let finished = false;
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return;
      const part = JSON.parse(data);
      if (part.error) throw new Error(sentence(part.error.message));
      if (part.usage) yield { usage: part.usage };
      for (const { text, finish_reason: reason } of part.choices) {
        finished ||= Boolean(reason);
        yield { text, reason };
      }
    }
  } catch (error) {
    throw error instanceof TypeError ? new Error(LOST) : error;
  }
  if (!finished) throw new Error(LOST);
}

const LOST = "The connection to the server was lost. Your text is still here; Run goes on from it.";

async function reach(request, signal) {
  try {
    return await fetch("v1/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running? Your text is still here.");
  }
}

async function complaint(response) {
  try {
    const { error } = await response.json();
    const advice = error.code === "context_length_exceeded" ? " Shorten your text, then run again." : "";
    return sentence(error.message) + advice;
  } catch {
    return `The server answered with status ${response.status}.`;
  }
}

const sentence = (message) => `${message[0].toUpperCase()}${message.slice(1)}.`;
