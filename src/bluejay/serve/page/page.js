// The page: connects its parts.

import { getJson } from "./api.js";
import { looksLikeCode } from "./code.js";
import { byId } from "./dom.js";
import { EditorPane } from "./editor_pane.js";
import { showExamples } from "./example_list.js";
import { Models } from "./models.js";
import { onDemand } from "./on_demand.js";
import { counted, Run, SHOWING_MS, Silence } from "./run.js";
import { Settings } from "./settings.js";
import { load, loadState, save, saveState, textOf } from "./storage.js";
import { Tabs } from "./tabs.js";
import { UndoStack } from "./undo.js";

const API_KEY = "bluejay-key"; // the item of the local storage that holds it

const undoStack = new UndoStack();
const settings = new Settings(document.querySelectorAll(".sliders input"), () => (applyStyle(), saveSoon()));
const pane = new EditorPane(byId("text"), byId("mirror"), byId("scroll"), edited);
const models = new Models(useModel);
const announce = (text) => (byId("announcement").textContent = text);
const panel = (name) => document.querySelector(`[role=tabpanel][aria-label=${name}]`);
let samples, popover, sources, inside, functionEnd; // undefined until they are loaded on demand
let unseen; // samples to show once their part is loaded
let apiKey = String(load(API_KEY) ?? "");
let running; // the Run in progress
let starting; // whether a run waits for the models
let saving; // the timer of saveSoon

const loadSamples = onDemand("samples", ({ Samples }) => {
	samples = new Samples(byId("samples"), pane, change);
	samples.show(unseen);
	applyStyle();
});
const loadPopover = onDemand("alternatives", ({ AlternativesPopover }) => {
	popover = new AlternativesPopover(byId("alternatives"), pane, (next, changes) => (change(next), changes && run(changes)), announce);
});
const loadSources = onDemand("sources", ({ Sources }) => (sources = new Sources(pane, ask, announce)));
const loadInside = onDemand("inside", ({ Inside }) => (inside = new Inside(panel("Inside"), pane, ask, announce)));
const loadMore = onDemand("more_settings", ({ showMoreSettings }) => showMoreSettings(panel("More"), settings, apiKey, changeKey, state, announce));
const loadHistory = onDemand("history");
const loadHistoryList = onDemand("history_list", ({ showHistory }) => showHistory(panel("History"), showHistoryEntry));
const loadModelCard = onDemand("model_card", ({ ModelCard }) => new ModelCard(panel("Model"), models));
const loadLink = onDemand("link");
const loadFunctionEnd = onDemand("function_end", (part) => ({ functionEnd } = part));
const loadModel = () => (models.current ? loadModelCard().then((card) => card.open()) : introduce());
const loaders = { Inside: loadInside, More: loadMore, History: loadHistoryList, Model: loadModel };
const tabs = new Tabs(document.querySelector(".tabs"), (name) => {
	if (inside) inside.enabled = name === "Inside"; // what it draws on the text goes with its tab
	loaders[name]?.()?.catch(showError);
});

const state = () => ({ text: pane.text, spans: pane.spans, samples: samples ? samples.list : unseen });
const switches = { probabilities: loadPopover, sources: loadSources };
const shows = (name) => byId(name).ariaPressed === "true";

async function run(changes) {
	if (running || starting) return;
	starting = !models.current;
	if (starting) await introduce();
	starting = false;
	if (!models.current) return; // why has been said
	if (settings.incomplete) return loadMore().then(() => run(changes), showError);
	if (!byId("form").checkValidity()) {
		tabs.select("More"); // where the invalid setting is
		return byId("form").reportValidity();
	}
	const parameters = { ...settings.parameters, ...inside?.steering.parameters, ...changes };
	if (parameters.n > 1 && !samples) return loadSamples().then(() => run(changes), showError);
	const endsWithFunction = String(settings.values.end_of_function) === "true";
	if (endsWithFunction && !functionEnd) return loadFunctionEnd().then(() => run(changes), showError);
	const [start, used, writer] = [pane.text.length, settings.values, models.current];
	undoStack.record(state());
	showSamples();
	const inText = { append: (pieces) => pane.append(pieces), truncate: (length) => pane.truncate(start + length) };
	const outputs = parameters.n > 1 ? samples.begin(parameters.n) : [inText];
	running = new Run(pane.text, parameters, apiKey, outputs, endsWithFunction && functionEnd, SHOWING_MS * (sources?.on ? 2 : 1));
	say("Running…", "Running");
	refresh();
	loadHistory().catch(() => {}); // said when the run has ended
	let error;
	await running.start(showProgress, (told) => say(`${told} Stop ends the run.`, told), !writer.loaded).catch((reason) => (error = reason));
	const report = running.tokens || !error ? running.report(models) : "";
	say(report, error ? "" : `${running.stopped ? "Stopped" : "Done"}. ${report}`, error);
	samples?.settle();
	const { model, tokens } = running;
	writer.loaded ||= tokens > 0;
	running = null;
	undoStack.record(state());
	refresh();
	const entry = [state(), used, report];
	if (tokens) loadHistory().then(({ addToHistory }) => addToHistory(...entry), showError);
	saveNow();
	if (error?.status === 404 || (model && !models.has(model))) introduce(); // the server has other models now
	onhashchange();
}

function showProgress({ tokens, samples: generated }) {
	byId("report").textContent = `Running… ${counted(tokens)}`;
	if (document.hidden) saveNow(); // the browser may discard the tab
	sources?.update(true);
	samples?.panes.forEach(({ note }, i) => (note.textContent = generated[i].reason || counted(generated[i].tokens)));
}

// Report on a run. A screen reader hears its end, not every token.
function say(report = "", announced = "", error) {
	byId("report").textContent = report;
	byId("error").textContent = "";
	announce(announced);
	if (error) showError(error);
}

// The server's answer to a part of the page, which tells errors; the page asks for the key, but not while one types.
const ask = (path, body) => getJson(path, apiKey, body).catch((error) => {
	if (error.status === 401 && document.activeElement !== byId("text")) showError(error);
	throw error;
});

function showError({ message, status }) {
	byId("error").textContent = message;
	if (status === 401) loadMore().then((askForKey) => (tabs.select("More"), askForKey())).catch(showError);
}

function changeKey({ type, target }) {
	apiKey = target.value.trim();
	if (type !== "change") return;
	save(API_KEY, apiKey);
	say();
	sources?.restart();
	introduce();
}

function edited() {
	// Models read " word" as one token, so a space at the end leads them astray.
	say(/\S[ \t]$/.test(pane.text) ? "The text ends with a space; most models continue better without it." : "");
	refresh();
	saveSoon();
}

// Whether a run goes on, which is said.
const mustStop = () => running && (byId("error").textContent = "Stop the run first.");

// Show another text; Undo brings the present one back.
function change(next) {
	if (mustStop()) return;
	undoStack.record(state());
	show(next);
	undoStack.record(state());
	saveNow();
}

function show({ text, spans, samples: list }) {
	pane.show(text, spans);
	showSamples(list);
	say();
	refresh();
}

const showSamples = (list) => (samples ? samples.show(list) : (unseen = list) && loadSamples().catch(showError));

function showExample({ title, text, settings: values }) {
	if (mustStop()) return;
	settings.change({ ...values, font: "auto" });
	change({ text });
	announce(`Example: ${title}`);
	byId("text").setSelectionRange(text.length, text.length);
	pane.focus();
}

function showHistoryEntry(entry) {
	if (mustStop()) return;
	settings.values = entry.settings;
	change(entry);
}

const undo = () => (show(undoStack.undo(state())), saveNow());
const redo = () => (show(undoStack.redo()), saveNow());

// Apply font and colours by the settings and the text. While the model writes, the font stays.
function applyStyle() {
	const { font = "auto" } = settings.values;
	const probabilities = shows("probabilities");
	if (sources) sources.enabled = shows("sources");
	const code = running ? pane.style.code : font === "code" || (font === "auto" && looksLikeCode(pane.text));
	const style = { code, probabilities };
	pane.applyStyle(style);
	samples?.applyStyle(style);
	if (popover) popover.enabled = probabilities;
}

function refresh() {
	applyStyle();
	const busy = Boolean(running);
	const [off, on] = (busy ? ["run", "stop"] : ["stop", "run"]).map(byId);
	on.disabled = false;
	if (document.activeElement === off) on.focus(); // a disabled button would lose the keyboard focus
	off.disabled = true;
	byId("undo").ariaDisabled = busy || !undoStack.canUndo(state());
	byId("redo").ariaDisabled = busy || !undoStack.canRedo(state());
	popover?.hide();
	sources?.update(busy);
	inside?.update(busy);
	if (byId("text").readOnly !== busy) pane.busy = busy;
}

function saveNow() {
	clearTimeout(saving);
	if (running) samples?.settle();
	const saved = { ...state(), settings: settings.stored, model: models.wanted };
	for (const name in switches) saved[name] = shows(name);
	if (!saveState(saved)) loadHistory().then(({ makeRoom }) => byId("error").append(makeRoom(saved)), showError);
}

const saveSoon = () => (clearTimeout(saving), (saving = setTimeout(saveNow, 300)));

// Show what was here at the last visit, then what a link brings.
async function restore() {
	const saved = loadState();
	const stored = textOf(saved);
	settings.values = Object(saved?.settings);
	models.wanted = saved?.model;
	const typed = byId("text").value; // before this script was there
	if (typed && stored) undoStack.record(stored);
	show((!typed && stored) || { text: typed });
	for (const name in switches) if (String(saved?.[name]) === "true") await toggle(name);
	await openLink();
}

// Show what a link brings. During a run it waits for the end.
async function openLink() {
	if (!location.hash) return;
	const [{ follow }] = await Promise.all([loadLink(), loadMore()]);
	if (!running) byId("error").append(follow(settings, change));
}

// Each switch turns the other off, so that underlines and popovers have one meaning.
const toggle = (switched) => switches[switched]().then(() => {
	const on = !shows(switched);
	for (const name in switches) byId(name).ariaPressed = String(on && name === switched);
	applyStyle();
	saveNow();
}).catch(showError);

function press(event) {
	const command = event.ctrlKey || event.metaKey;
	const inText = event.target === byId("text");
	const current = !running && command && inText && undoStack.isCurrent(state());
	const key = (/[^ -~]/.test(event.key) ? event.code.slice(3) : event.key).toLowerCase(); // Я is where Z is
	const open = [popover, sources?.popover].find((one) => one?.span);
	if (key === "enter" && (command || (event.shiftKey && inText)) && !event.isComposing) run();
	else if (key === "escape" && open) open.hide();
	else if (key === "escape" && running) running.stop();
	else if (key === "z" && current && !event.shiftKey && undoStack.canUndo(state())) undo();
	else if ((key === "y" || (key === "z" && event.shiftKey)) && current && undoStack.canRedo(state())) redo();
	else return;
	event.preventDefault();
}

async function introduce() {
	const silence = new Silence((told) => (byId("error").textContent = told));
	await models.fetch(apiKey).then(() => panel("Model").hidden || loadModel()).catch((error) => say("", "", error));
	silence.end();
}

function useModel({ id, max_model_len: context }, another) {
	if (/has not answered/.test(byId("error").textContent)) say();
	settings.context = context;
	byId("error").append(settings.notice);
	byId("model").textContent = id;
	if (!another) return;
	inside?.forget();
	sources?.restart();
	saveNow();
	announce(`${id} writes from now on.`);
}

const actions = {
	stop: () => running?.stop(),
	undo, redo,
	model: () => tabs.select("Model").focus(),
	probabilities: () => toggle("probabilities"),
	sources: () => toggle("sources"),
};
for (const [id, action] of Object.entries(actions)) byId(id).onclick = ({ currentTarget: { ariaDisabled } }) => ariaDisabled === "true" || action();
byId("form").onsubmit = (event) => (event.preventDefault(), run());
onkeydown = press;
document.onvisibilitychange = () => document.hidden && saveNow(); // also when the page is left
onhashchange = () => openLink().catch(showError);
if (/Mac|iP/.test(navigator.platform)) byId("run-keys").textContent = "⌘ ↵";
showExamples(byId("examples"), showExample);
tabs.select("Examples");
restore().catch(showError).then(introduce);
