// The panel "More": the settings without a slider, and a link to the prompt and the settings.

import { byId, create } from "../dom.js";
import sampling from "./sampling.js";
import { mergeSpans } from "../spans.js";

const MAX_SAMPLES = 8; // that have room side by side
const MAX_STOPS = 64; // the API's limit
const SAMPLING = Object.fromEntries(sampling.map((setting) => [setting.name, setting]));

// Fill the panel and add its controls to the settings. `getState` gives the text for a link. Returns a
// function that asks for the API key, whose field is hidden until then.
export function showMoreSettings(panel, settings, apiKey, onKey, getState, announce) {
	const { n, seed, stop, logit_bias, ...others } = SAMPLING;
	const numbers = Object.values(others).filter(({ name }) => !byId(name)); // that have no slider
	const seedText = { inputMode: "numeric", placeholder: "new for each run", parse: parseSeed };
	const stopText = { id: "stop_before", name: "stop", placeholder: "one per line; \\n is a line break", parse: parseStops };
	const biasText = { id: "logit_bias", placeholder: "TOKEN=NUMBER, one per line", parse: parseBiases };
	const controls = [
		field("Samples", number({ ...n, high: MAX_SAMPLES }), n.help),
		field("Seed", input({ id: "seed", ...seedText }), seed.help),
		...numbers.map((setting) => field(labelOf(setting.name), number(setting), setting.help)),
		field("Stop before", lines(stopText), stop.help),
		field("Logit bias", lines(biasText), logit_bias.help),
		field("Stop at function end", toggle("end_of_function"), "Generation also stops at the end of the function."),
		field("Font", select("font", { auto: "automatic", prose: "prose", code: "code" })),
	];
	const key = field("API key", input({ id: "api_key", type: "password", value: apiKey, oninput: onKey, onchange: onKey }));
	key.hidden = true;
	const withAnswer = field("Link with answer", toggle("with_answer"), "The link contains the model's answer, too.");
	const link = input({ id: "link", readOnly: true, ariaLabel: "Link to this prompt and these settings" });
	const share = create("div");
	share.append(create("button", "Copy a link", copyLink), link);
	panel.replaceChildren(key, ...controls, withAnswer, share);
	settings.addLast(controls.map(({ lastChild }) => lastChild));
	return () => {
		key.hidden = false;
		key.lastChild.focus();
	};

	async function copyLink() {
		link.value = linkTo(getState(), settings.values, withAnswer.lastChild.checked);
		link.select();
		// Browsers allow the clipboard to secure pages only; elsewhere the user copies the link.
		const copied = await navigator.clipboard?.writeText(link.value).then(() => true, () => false);
		announce(copied ? "The link is in the clipboard." : "The link is selected; copy it from there.");
	}
}

function field(label, control, help = "") {
	const node = create("label", label);
	node.append(Object.assign(control, { title: help }));
	return node;
}

// "top_k" -> "Top-k", "presence_penalty" -> "Presence penalty"
const labelOf = (name) => `${name[0].toUpperCase()}${name.slice(1).replace(/_(.)$/, "-$1").replaceAll("_", " ")}`;

const input = (properties) => Object.assign(create("input"), properties);
const lines = (properties) => Object.assign(create("textarea"), { rows: 2, spellcheck: false }, properties);

function number({ name: id, type, default: value, low: min, high: max }) {
	const limits = { ...(min !== null && { min }), ...(max !== null && { max }) };
	const steps = type === "int" ? { step: 1 } : { step: "any", onkeydown: stepByHundredths };
	const control = input({ id, type: "number", ...steps, ...limits, defaultValue: value, required: true });
	if (type !== "int") control.addEventListener("beforeinput", acceptComma);
	return control;
}

// Browsers drop a comma that is no decimal sign in their language, and 1,1 would become 11.
function acceptComma(event) {
	if (!event.data?.includes(",")) return;
	event.preventDefault();
	document.execCommand("insertText", false, event.data.replaceAll(",", "."));
}

// Arrow keys change a number by hundredths, though others are valid.
function stepByHundredths(event) {
	const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
	if (!by) return;
	event.preventDefault();
	const { target } = event;
	const next = Math.round(target.valueAsNumber * 100 + by) / 100;
	target.value = Math.min(target.max || Infinity, Math.max(target.min || -Infinity, next));
	target.dispatchEvent(new Event("input"));
}

function toggle(id) {
	const control = input({ id, type: "checkbox" });
	control.role = "switch";
	return control;
}

function select(id, options) {
	const control = Object.assign(create("select"), { id });
	control.append(...Object.entries(options).map(([value, text]) => Object.assign(create("option", text), { value })));
	return control;
}

function parseSeed(text) {
	if (!/^\s*\d{0,15}\s*$/.test(text)) throw new Error("A seed is a whole number of at most 15 digits.");
	return text.trim() ? Number(text) : undefined;
}

// One stop sequence per line, with \n and \t for a line break and a tab.
function parseStops(text) {
	const stops = text.split("\n").filter(Boolean);
	if (stops.length > MAX_STOPS) throw new Error(`At most ${MAX_STOPS} stop sequences, one per line.`);
	return stops.length ? stops.map((line) => line.replaceAll("\\n", "\n").replaceAll("\\t", "\t")) : undefined;
}

function parseBiases(text) {
	const given = text.split("\n").filter((line) => line.trim());
	const valid = (line) => /^\s*\d+\s*=[^=]+$/.test(line) && Math.abs(line.split("=")[1]) <= 100;
	if (!given.every(valid)) throw new Error("One bias from -100 to 100 per line, like 50256=-100.");
	return given.length ? Object.fromEntries(given.map((line) => line.split("=").map(Number))) : undefined;
}

// A link that `link.js` understands.
function linkTo({ text, spans }, settings, withAnswer) {
	const length = promptLength(spans, text);
	const parts = new URLSearchParams({ ...settings, prompt: text.slice(0, length) });
	if (withAnswer) parts.set("answer", text.slice(length));
	return `${location.origin}${location.pathname}#${parts}`;
}

// The length of the prompt: the text without the model's words at its end.
function promptLength(spans, text) {
	const last = mergeSpans(spans).at(-1);
	return last?.end === text.length ? last.start : text.length;
}
