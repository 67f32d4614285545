// The page: its parts put together.

import { served } from "./api.js";
import { showCard } from "./card.js";
import { looksLikeCode } from "./code.js";
import { element } from "./dom.js";
import { showExamples } from "./examples.js";
import { Past, store, stored, Undo } from "./history.js";
import { linked, linkTo } from "./link.js";
import { shifted, upTo } from "./marks.js";
import { counted, Run } from "./run.js";
import { Samples } from "./samples.js";
import { newSeed, Settings } from "./settings.js";
import { Surface } from "./surface.js";
import { Tabs } from "./tabs.js";
import { isEnd, TokenCard } from "./token.js";

const KEPT = "bluejay"; // names in the local storage: of all that is here,
const KEY = "bluejay-key"; // and of the key that a server may ask for

const states = new Undo();
const settings = new Settings(() => (dress(), keepSoon()));
const surface = new Surface(element("text"), element("mirror"), element("scroll"), edited);
const samples = new Samples(element("samples"), keepSample, () => change({ ...state(), samples: undefined }));
const past = new Past(element("past"), (run) => change(run, run.settings));
const tabs = new Tabs(document.querySelector(".tabs"));
const announce = (text) => (element("announcement").textContent = text);
const tokenCard = new TokenCard(element("token"), surface, choose, resample, announce);
let context = Infinity; // tokens the model reads in all
let running = null;
let keeping = 0;

const state = () => ({ text: surface.text, marks: surface.marks, samples: samples.list });

async function run(changes) {
	if (running) return;
	if (!element("form").checkValidity()) {
		tabs.select("More"); // what is wrong must be seen
		return element("form").reportValidity();
	}
	const request = { ...settings.request, ...changes };
	const start = surface.text.length;
	states.record(state());
	samples.show();
	const inText = { append: (pieces) => surface.append(pieces), cut: (length) => surface.cut(start + length) };
	const places = request.n > 1 ? samples.begin(request.n) : [inText];
	running = new Run(surface.text, request, element("key").value, places, settings.values.end_of_function);
	say("Running…", "Running");
	refresh();
	let error;
	await running.go(progress).catch((reason) => (error = reason));
	if (places.length > 1) progress(running);
	const report = running.tokens || !error ? running.report(context) : "";
	say(report, error ? "" : `${running.stopped ? "Stopped" : "Done"}. ${report}`, error);
	samples.settle();
	if (running.tokens) past.add(state(), settings.values, report);
	running = null;
	states.record(state());
	refresh();
	keep();
}

function progress({ tokens, samples: runs }) {
	element("report").textContent = `Running… ${counted(tokens)}`;
	samples.cards.forEach(({ note }, i) => (note.textContent = runs[i].reason || counted(runs[i].tokens)));
}

// Under the text stands how the last run went, and what went wrong. A screen reader hears the end, not every token.
function say(report = "", announced = "", error = undefined) {
	element("report").textContent = report;
	element("error").textContent = error?.message ?? "";
	announce(announced);
	if (error?.status !== 401) return;
	element("key").parentElement.hidden = false;
	tabs.select("More");
	element("key").focus();
}

function edited() {
	// Models read " word" as one token, so a space left at the end leads them astray.
	say(/\S[ \t]$/.test(surface.text) ? "The text ends with a space; most models go on better without." : "");
	dress();
	refresh();
	keepSoon();
}

// Another text, which can be taken back.
function change(there, values) {
	if (running) return;
	states.record(state());
	if (values) settings.values = values;
	put(there);
	states.record(state());
	keep();
}

function put({ text, marks, samples: cards }) {
	tokenCard.hide();
	surface.show(text, marks);
	samples.show(cards);
	say();
	dress();
	refresh();
}

function choose(mark, text) {
	const { text: before, marks } = beginning(mark);
	const chosen = { ...mark, to: mark.from + text.length, logprob: mark.top.find(([one]) => one === text)[1] };
	if (isEnd(text)) return change({ text: before, marks });
	change({ text: before + text, marks: [...marks, chosen] });
	run({ n: 1 });
}

// Another seed, also where one is set: the same would give the same again.
function resample(mark) {
	change(beginning(mark));
	run({ n: 1, seed: newSeed() });
}

const beginning = ({ from }) => ({ text: surface.text.slice(0, from), marks: upTo(surface.marks, from) });

function keepSample({ text, marks }) {
	const kept = marks.map((mark) => shifted(mark, surface.text.length));
	change({ text: surface.text + text, marks: [...surface.marks, ...kept] });
	surface.focus();
}

function showExample({ title, text, settings: values }) {
	if (running) return;
	change({ text, marks: [] }, values);
	announce(`Example: ${title}`);
	element("text").setSelectionRange(text.length, text.length);
	surface.focus();
}

const undo = () => travel(states.back(state()));
const redo = () => travel(states.forth());
const travel = (there) => (put(there), keep());

// Letters and colours as text and switches ask for. Nothing changes its letters while the model writes.
function dress() {
	const { font } = settings.values;
	const probabilities = element("probabilities").ariaPressed === "true";
	const look = { code: font === "code" || (font === "auto" && looksLikeCode(surface.text)), probabilities };
	surface.dress(look);
	samples.dress(look);
	element("legend").hidden = !probabilities;
	tokenCard.enabled = probabilities;
}

function refresh() {
	const busy = Boolean(running);
	const [off, on] = busy ? [element("run"), element("stop")] : [element("stop"), element("run")];
	on.disabled = false;
	if (document.activeElement === off) on.focus(); // a button that goes off would lose the keyboard's place
	off.disabled = true;
	element("undo").disabled = busy || !states.canGoBack(state());
	element("redo").disabled = busy || !states.canGoForth(state());
	if (busy) tokenCard.hide();
	if (element("text").readOnly !== busy) surface.busy = busy;
}

function keep() {
	clearTimeout(keeping);
	samples.settle();
	store(KEPT, { ...state(), settings: settings.values, probabilities: element("probabilities").ariaPressed });
}

function keepSoon() {
	clearTimeout(keeping);
	keeping = setTimeout(keep, 300);
}

// What was here at the last visit, and over it what a link brings.
function recall() {
	element("key").value = stored(KEY) ?? "";
	const kept = stored(KEPT);
	if (kept) {
		settings.values = kept.settings;
		element("probabilities").ariaPressed = kept.probabilities;
	}
	put(kept ?? { text: element("text").value });
	const link = linked(location.hash);
	if (!link) return;
	history.replaceState(null, "", location.pathname); // lest a reload throws away what is written from here on
	change(link, link.settings);
}

async function share() {
	const link = element("link");
	link.value = linkTo(state(), settings.values, element("with_answer").checked);
	link.select();
	// Browsers allow the clipboard to secure pages only; elsewhere the link is there to be copied.
	const copied = await navigator.clipboard?.writeText(link.value).then(() => true, () => false);
	announce(copied ? "The link is in the clipboard." : "The link is selected; copy it from there.");
}

function press(event) {
	const command = event.ctrlKey || event.metaKey;
	const inText = event.target === element("text");
	const current = !running && command && inText && states.isCurrent(state());
	const key = event.key.toLowerCase();
	if (key === "enter" && (command || (event.shiftKey && inText)) && !event.isComposing) run();
	else if (key === "escape" && tokenCard.mark) tokenCard.hide();
	else if (key === "escape" && running) running.stop();
	else if (key === "z" && current && !event.shiftKey && states.canGoBack(state())) undo();
	else if ((key === "y" || key === "z") && current && states.canGoForth(state())) redo();
	else return;
	event.preventDefault();
}

async function introduce() {
	try {
		const model = await served(element("key").value);
		settings.context = context = model.max_model_len;
		element("model").textContent = model.id;
		await showCard(model);
	} catch (error) {
		say("", "", error);
	}
}

const acts = {
	stop: () => running?.stop(),
	undo,
	redo,
	share,
	forget: () => past.forget(),
	model: () => tabs.select("Model").focus(),
	probabilities({ currentTarget: button }) {
		button.ariaPressed = String(button.ariaPressed !== "true");
		dress();
		keep();
	},
};
for (const [id, act] of Object.entries(acts)) element(id).onclick = act;
element("key").onchange = ({ target }) => (store(KEY, target.value), introduce());
element("form").onsubmit = (event) => (event.preventDefault(), run());
onkeydown = press;
onpagehide = keep;
if (/Mac|iP/.test(navigator.platform)) element("run-keys").textContent = "⌘ ↵";
showExamples(element("examples"), showExample);
recall();
introduce();
