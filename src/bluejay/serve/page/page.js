// The page: its parts put together, and what a run is.

import { complete, served } from "./api.js";
import { showExamples } from "./examples.js";
import { History } from "./history.js";
import { Settings } from "./settings.js";
import { Surface } from "./surface.js";

const KEPT = "bluejay"; // the key in the browser's local storage
const element = (id) => document.getElementById(id);

const history = new History();
const settings = new Settings(keepSoon);
const surface = new Surface(element("text"), element("mirror"), element("scroll"), edited);
let context = Infinity; // tokens the model reads in all
let running = null; // the AbortController of the run in progress
let keeping = 0;

async function run() {
  if (running || !valid()) return;
  const controller = (running = new AbortController());
  const request = settings.request;
  const outcome = { tokens: 0, seed: request.seed };
  history.record(surface.state);
  say({ report: "Running…", announce: "Running" });
  refresh();
  try {
    for await (const part of complete({ prompt: surface.text, ...request }, controller.signal)) {
      if (part.usage) outcome.usage = part.usage;
      else tell(outcome, part);
    }
    say({ report: report(outcome), announce: `Done. ${report(outcome)}` });
  } catch (error) {
    const stopped = error.name === "AbortError";
    const summary = stopped || outcome.tokens ? report({ ...outcome, reason: stopped ? "you" : "error" }) : "";
    say({ report: summary, announce: stopped ? `Stopped. ${summary}` : "", error: stopped ? "" : error.message });
  } finally {
    running = null;
    history.record(surface.state);
    refresh();
    keep();
  }
}

function valid() {
  const form = element("controls");
  if (form.checkValidity()) return true;
  element("more").open = true; // what is wrong must be seen
  return form.reportValidity();
}

// One token has come.
function tell(outcome, { text, reason }) {
  const now = performance.now();
  outcome.first ??= now;
  outcome.last = now;
  outcome.tokens++;
  outcome.reason = reason;
  surface.append(text);
  element("report").textContent = `Running… ${outcome.tokens} tokens`;
}

function stop() {
  running?.abort();
}

function report({ tokens, first, last, seed, usage, reason }) {
  const reasons = {
    stop: "the model ended it",
    length: usage?.total_tokens >= context ? "the context is full" : "reached the length",
    you: "stopped by you",
    error: "cut short",
  };
  const seconds = (last - first) / 1000;
  return [
    `${tokens} token${tokens === 1 ? "" : "s"}`,
    tokens > 1 && seconds > 0 && `${perSecond((tokens - 1) / seconds)} tokens/s`,
    `seed ${seed}`,
    reasons[reason],
    usage && Number.isFinite(context) && `context ${usage.total_tokens} of ${context}`,
  ]
    .filter(Boolean)
    .join(" · ");
}

const perSecond = (rate) => rate.toFixed(rate < 10 ? 1 : 0);

// Under the text stands how the last run went, and what went wrong. A screen reader hears the end, not every token.
function say({ report = "", announce = "", error = "" }) {
  element("report").textContent = report;
  element("error").textContent = error;
  element("announcement").textContent = announce;
}

function edited() {
  const { text } = surface;
  // Models read " word" as one token, so a space left at the end leads them astray.
  say({ report: /\S[ \t]$/.test(text) ? "The text ends with a space; most models go on better without." : "" });
  refresh();
  keepSoon();
}

function choose(example) {
  if (running) return;
  history.record(surface.state);
  surface.state = { text: example.text, marks: [] };
  settings.values = example.settings;
  history.record(surface.state);
  say({ announce: `Example: ${example.title}` });
  refresh();
  keep();
  const end = surface.text.length;
  element("text").setSelectionRange(end, end);
  element("text").focus({ preventScroll: true });
}

function travel(state) {
  if (running || !state) return;
  surface.state = state;
  say({});
  refresh();
  keep();
}

const undo = () => history.canUndo(surface.text) && travel(history.undo(surface.state));
const redo = () => history.canRedo(surface.text) && travel(history.redo());

function refresh() {
  const busy = Boolean(running);
  const [off, on] = busy ? [element("run"), element("stop")] : [element("stop"), element("run")];
  on.disabled = false;
  if (document.activeElement === off) on.focus(); // a button that goes off would lose the keyboard's place
  off.disabled = true;
  element("undo").disabled = busy || !history.canUndo(surface.text);
  element("redo").disabled = busy || !history.canRedo(surface.text);
  document.body.classList.toggle("running", busy);
  if (element("text").readOnly !== busy) surface.busy = busy;
}

// Keep text and settings for the next visit. Browsers may forbid it; the page works all the same.
function keep() {
  clearTimeout(keeping);
  try {
    localStorage.setItem(KEPT, JSON.stringify({ ...surface.state, settings: settings.values }));
  } catch {}
}

function keepSoon() {
  clearTimeout(keeping);
  keeping = setTimeout(keep, 300);
}

function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT));
    if (typeof kept?.text !== "string") return;
    surface.state = kept;
    settings.values = kept.settings ?? {};
  } catch {}
}

function press(event) {
  const command = event.ctrlKey || event.metaKey;
  const composing = event.isComposing;
  const inText = event.target === element("text");
  if (event.key === "Enter" && (command || (event.shiftKey && inText)) && !composing) run();
  else if (event.key === "Escape" && running) stop();
  else if (event.key === "z" && command && !event.shiftKey && inText && history.isCurrent(surface.text)) undo();
  else return;
  event.preventDefault();
}

async function introduce() {
  try {
    const model = await served();
    context = model.max_model_len;
    settings.context = context;
    element("model").textContent = model.id;
    const size = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
    element("about").textContent =
      `${model.id}: ${size.format(model.n_parameters)} parameters, reads ${context} tokens. ` +
      "It continues text in the manner of what it was trained on; nothing it writes is checked.";
  } catch {
    say({ error: "The server does not answer. Is it still running?" });
  }
}

element("controls").addEventListener("submit", (event) => (event.preventDefault(), run()));
element("stop").addEventListener("click", stop);
element("undo").addEventListener("click", undo);
element("redo").addEventListener("click", redo);
document.addEventListener("keydown", press);
addEventListener("pagehide", keep);
if (/Mac|iPhone|iPad/.test(navigator.platform)) element("run-keys").textContent = "⌘ ↵";
surface.state = { text: "", marks: [] };
showExamples(element("examples"), choose);
recall();
refresh();
introduce();
