// The controls and what they stand at.

const SLIDERS = ["top_p", "temperature", "max_tokens"];
const FIELDS = ["seed", "stop_sequence"];
const LONGEST = 1024; // tokens in one run; a person can run again
const LARGEST_SEED = 2 ** 31;

const element = (id) => document.getElementById(id);

export class Settings {
  constructor(onChange) {
    for (const id of SLIDERS) element(id).addEventListener("input", () => (this.show(id), onChange()));
    for (const id of FIELDS) element(id).addEventListener("input", onChange);
    element("monospace").addEventListener("change", () => (this.show("monospace"), onChange()));
    this.showAll();
  }

  // Numbers and texts by name, as they are kept between visits and as examples give them.
  get values() {
    const sliders = SLIDERS.map((id) => [id, Number(element(id).value)]);
    const fields = FIELDS.map((id) => [id, element(id).value]);
    return Object.fromEntries([...sliders, ...fields, ["monospace", element("monospace").checked]]);
  }

  set values(values) {
    for (const id of SLIDERS) if (Number.isFinite(values[id])) element(id).value = values[id];
    for (const id of FIELDS) if (typeof values[id] === "string") element(id).value = values[id];
    if (typeof values.monospace === "boolean") element("monospace").checked = values.monospace;
    this.showAll();
  }

  set context(tokens) {
    const slider = element("max_tokens");
    const wanted = slider.value;
    slider.max = Math.max(8, Math.min(LONGEST, tokens) & ~7);
    slider.value = wanted;
    this.showAll();
  }

  // What the API gets. The seed is always sent, so that the page can say which one it was.
  get request() {
    const { top_p, temperature, max_tokens, seed, stop_sequence } = this.values;
    const stop = stop_sequence.replaceAll("\\n", "\n").replaceAll("\\t", "\t");
    const given = /^\d{1,15}$/.test(seed.trim()) ? Number(seed) : Math.floor(Math.random() * LARGEST_SEED);
    return { top_p, temperature, max_tokens, seed: given, ...(stop && { stop }) };
  }

  showAll() {
    for (const id of [...SLIDERS, "monospace"]) this.show(id);
  }

  show(id) {
    if (id === "monospace") {
      element("surface").classList.toggle("monospace", element(id).checked);
      return;
    }
    const slider = element(id);
    const value = Number(slider.value);
    const text = id === "max_tokens" ? `${value} tokens` : value.toFixed(2);
    slider.parentElement.querySelector("output").value = text;
    slider.setAttribute("aria-valuetext", text);
    slider.style.setProperty("--filled", (value - slider.min) / (slider.max - slider.min));
  }
}
