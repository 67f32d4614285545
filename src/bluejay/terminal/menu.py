"""A list to choose from, or a text to read, in the lower half of the screen."""

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from prompt_toolkit.formatted_text import StyleAndTextTuples

from bluejay.infer.model import Model
from bluejay.terminal.annotated_text import Draft, Mark
from bluejay.terminal.examples import EXAMPLES
from bluejay.terminal.history import PastRun
from bluejay.terminal.settings import Settings, parse


@dataclass(frozen=True)
class Choice:
    """One row, and what choosing it brings."""

    title: str
    note: str
    draft: Draft
    settings: Settings


@dataclass
class Menu:
    """What is shown, and where in it a person is."""

    title: str
    choices: list[Choice] = field(default_factory=list)
    text: str = ""
    keys: str = ""
    at: int = 0

    @property
    def choice(self) -> Choice | None:
        """The row that is chosen; None where there is none."""
        return self.choices[self.at] if self.choices else None

    def move(self, step: int) -> None:
        """Go up or down."""
        self.at = min(max(self.at + step, 0), max(0, len(self.choices) - 1))

    @property
    def rows(self) -> StyleAndTextTuples:
        """What is seen; the cursor keeps the chosen row in view."""
        keys = "  ".join(filter(None, ["Up, Down, Enter" if self.choices else "", "Esc closes", self.keys]))
        rows: StyleAndTextTuples = [("class:bar", f"{self.title}   {keys}"), ("", "\n")]
        for i, choice in enumerate(self.choices):
            chosen = i == self.at
            rows += [("[SetCursorPosition]", "")] if chosen else []
            rows += [("class:bar" if chosen else "bold", choice.title), ("", f"  {choice.note}\n")]
        return [*rows, ("", self.text or ("" if self.choices else "nothing yet"))]


def examples(settings: Settings) -> Menu:
    """Beginnings to try, each with what suits it; all else stays as it is set."""
    choices = []
    for one in EXAMPLES:
        params = replace(settings.params, top_p=0.9, temperature=one.temperature)
        suited = Settings(params, one.end_of_function)
        choices.append(Choice(one.title, f"temperature {one.temperature} · {one.watch}", Draft(one.text), suited))
    return Menu("examples", choices)


def history(runs: Iterable[PastRun]) -> Menu:
    """What was written before, the latest first."""
    choices = []
    for run in runs:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.when))
        draft = Draft(run.text, tuple(Mark(start, end) for start, end in run.marks))
        with contextlib.suppress(ValueError):  # settings that another version wrote may be none of ours
            choices.append(Choice(" ".join(run.text.split())[:60], f"{when} · {run.note}", draft, parse(run.settings)))
    return Menu("history", choices, keys="x forgets all")


def about(model: Model) -> Menu:
    """What the model is, its limits, and what its makers say."""
    config = model.config
    facts = (
        f"{model.name} · {config.family} · {config.n_layer} layers, each {config.d_model:,} wide · reads "
        f"{config.n_ctx:,} tokens · licence {model.licence or 'not stated'}"
    )
    limits = (
        "It continues text in the manner of what it was trained on: opinions, errors and private facts that it read "
        "there can come back. Nothing it writes is checked."
    )
    return Menu("the model", text="\n\n".join([facts, limits, model.card.strip() or "Its makers left no card."]))
