// A link carries a prompt and settings after the #, which browsers do not send to the server.

import { byId } from "../dom.js";
import { textOf } from "../storage.js";
import { addToHistory, historyEntries } from "./history.js";

// Change the settings and, by `change`, the text to those of the page's address, if it has a prompt. The history keeps the
// former text. Returns what the user must know.
export function follow(settings, change) {
	const link = parseLink(location.hash);
	if (!link) return "";
	history.replaceState(null, "", location.pathname); // or a reload would discard what is written from now on
	const { value: text } = byId("text");
	if (text.trim() && text !== historyEntries()[0]?.text) addToHistory({ text, spans: [] }, settings.values, "before a link");
	settings.change(link.settings);
	change(textOf(link));
	return refusal(link.settings, settings.values);
}

// The {text, spans, settings} of such a link, all settings as strings; undefined if there is no prompt.
function parseLink(hash) {
	const lines = ([name, text]) => [name, text.replace(/\r\n?/g, "\n")]; // as a text area holds them
	const { prompt, answer = "", ...settings } = Object.fromEntries([...new URLSearchParams(hash.slice(1))].map(lines));
	if (prompt === undefined) return;
	const spans = answer ? [{ start: prompt.length, end: prompt.length + answer.length }] : [];
	return { text: prompt + answer, spans, settings };
}

// A sentence on what a link asks for and the settings of the page did not take; empty if they took all.
function refusal(asked, values) {
	const taken = ([name, text]) => text === String(values[name]) || (text.trim() && Number(text) === values[name]);
	const others = Object.entries(asked).filter((one) => !taken(one));
	const said = others.map(([name, text]) => `${name}=${text}${name in values ? ` (now ${values[name]})` : ""}`);
	return said.length ? `The page cannot set what the link asks for: ${said.join(", ")}.` : "";
}
