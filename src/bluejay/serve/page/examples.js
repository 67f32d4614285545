// Beginnings to try, after the ones that people passed around in 2021.

export const EXAMPLES = [
  {
    title: "Even in factorial time",
    watch: "Does it slow down as asked, and is it still right?",
    text: 'def is_even(number: int) -> bool:\n    """Find out whether a number is even, in factorial time."""\n',
    settings: { top_p: 0.9, temperature: 0.4, monospace: true },
  },
  {
    title: "Is it a bird?",
    watch: "Which library it trusts, and what it makes up.",
    text: 'def shows_a_bird(image: Image) -> bool:\n    """Look at an image and tell whether it shows a bird."""\n',
    settings: { top_p: 0.9, temperature: 0.4, monospace: true },
  },
  {
    title: "A class for a car",
    watch: "What a car is made of, when nobody says.",
    text: 'class Car:\n    """A car: it can be fuelled, driven and parked."""\n',
    settings: { top_p: 0.9, temperature: 0.6, monospace: true },
  },
  {
    title: "An essay on AI ends",
    watch: "Whether the ending follows from anything.",
    text: "Living with Artificial Intelligence\n\nThe last paragraph of the essay:\n\nIn the end, the question is not what machines can do, but",
    settings: { top_p: 0.9, temperature: 0.9, monospace: false },
  },
  {
    title: "Terminate a person?",
    watch:
      "Here as a warning: a model picks up opinions about people from what it read. " +
      "Run it to see that risk, never for advice.",
    text: 'def should_terminate(person: Person) -> bool:\n    """Decide whether a person should be terminated."""\n',
    settings: { top_p: 0.9, temperature: 0.7, monospace: true },
  },
];

// Fill a list with cards; choosing one calls back with its example.
export function showExamples(list, onChoose) {
  for (const example of EXAMPLES) {
    const { top_p, temperature } = example.settings;
    const button = document.createElement("button");
    button.type = "button";
    button.append(line("strong", example.title), line("span", example.watch));
    button.append(line("small", `top-p ${top_p} · temp. ${temperature}`));
    button.addEventListener("click", () => onChoose(example));
    const item = document.createElement("li");
    item.append(button);
    list.append(item);
  }
}

function line(tag, text) {
  const node = document.createElement(tag);
  node.textContent = text;
  return node;
}
