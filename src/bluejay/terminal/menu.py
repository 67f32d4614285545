"""A list to choose from, or a text to read, in the lower half of the screen."""

import contextlib
import textwrap
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from bluejay.infer.model import Model
from bluejay.terminal.annotated_text import AnnotatedText, Sample, Span
from bluejay.terminal.assets import EXAMPLES, LIMITS
from bluejay.terminal.history import HistoryEntry
from bluejay.terminal.settings import Settings, parse_settings


@dataclass(frozen=True)
class Choice:
    """One row of a menu: choosing it brings a text and settings."""

    title: str
    note: str
    annotated: AnnotatedText
    settings: Settings
    samples: list[Sample] = field(default_factory=list)


@dataclass
class Menu:
    """A menu and the row that is selected in it."""

    title: str
    choices: list[Choice] = field(default_factory=list)
    text: str = ""
    """A text to read below the choices."""
    keys: str = ""
    """Help on keys that only this menu has."""
    question: str = ""
    """What stands in its place until the next key."""
    selected: int = 0
    top: int = 0
    """The first line of the text that is shown."""

    @property
    def choice(self) -> Choice | None:
        """The selected row; None if there are no rows."""
        return self.choices[self.selected] if self.choices else None

    def move(self, step: int) -> None:
        """Select the row `step` rows further down; without rows, move the text by as many lines."""
        self.selected = min(max(self.selected + step, 0), max(0, len(self.choices) - 1))
        if not self.choices:
            self.top = min(max(self.top + step, 0), len(self.lines) - 1)

    @property
    def lines(self) -> list[str]:
        """The text in lines of at most 80 characters, so that each can be seen as a whole; at least one line."""
        text = self.text or ("" if self.choices else "nothing yet")
        return [part for line in text.split("\n") for part in textwrap.wrap(line, 80, replace_whitespace=False) or [""]]

    @property
    def rows(self) -> StyleAndTextTuples:
        """The menu as styled text; the cursor position keeps the selected row in view."""
        moves = "Up, Down, Enter" if self.choices else "Up, Down, Page Up, Page Down" if self.text else ""
        keys = "  ".join(filter(None, [moves, "Esc closes", self.question or self.keys]))
        rows: StyleAndTextTuples = [("class:bar", f"{self.title}   {keys}"), ("", "\n")]
        for i, choice in enumerate(self.choices):
            selected = i == self.selected
            rows += [("[SetCursorPosition]", "")] if selected else []
            rows += [("class:bar" if selected else "bold", choice.title), ("", f"  {choice.note}\n")]
        return [*rows, ("", "\n".join(self.lines[self.top :]))]


def menu_keys(
    opened: Callable[[], Menu | None], take: Callable[[Choice | None], None], clear: Callable[[], None]
) -> KeyBindings:
    """The keys of the menu that is open, if one is.

    Enter takes the selected row and Escape none; x, pressed twice in the history, calls `clear`.
    """
    keys = KeyBindings()
    is_open = Condition(lambda: opened() is not None)

    def bind(key: str, act: Callable[[Menu], None], eager: bool = True) -> None:
        keys.add(key, filter=is_open, eager=eager)(lambda _: (menu := opened()) and act(menu))

    for key, step in {"up": -1, "down": 1, "pageup": -10, "pagedown": 10}.items():
        bind(key, lambda menu, step=step: menu.move(step))
    bind("enter", lambda menu: take(menu.choice))
    bind("escape", lambda _: take(None), eager=False)

    @keys.add("x", filter=Condition(lambda: (menu := opened()) is not None and menu.title == "history"), eager=True)
    def delete(event: KeyPressEvent) -> None:
        menu = opened()
        assert menu is not None
        if event.is_repeat:
            clear()
        else:
            menu.question = "x again deletes them all"

    return keys


def examples_menu(settings: Settings) -> Menu:
    """Prompts to try. An example changes only the settings that it names."""
    choices = []
    for one in EXAMPLES:
        values = dict(one["settings"])
        end_of_function = values.pop("end_of_function")
        chosen = Settings(replace(settings.params, **values), end_of_function)
        note = f"temperature {values['temperature']} · {one['watch_for']}"
        choices.append(Choice(one["title"], note, AnnotatedText(one["text"]), chosen))
    return Menu("examples", choices)


def history_menu(entries: Iterable[HistoryEntry]) -> Menu:
    """Earlier runs, latest first."""
    choices = []
    for entry in entries:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.when))
        annotated, *samples = (
            AnnotatedText(text, tuple(Span(start, end) for start, end in spans))
            for text, spans in [(entry.text, entry.spans), *entry.samples]
        )
        title = " ".join(entry.text.split())[:60]
        with contextlib.suppress(ValueError):  # the settings of another version may be unknown here
            settings = parse_settings(entry.settings)
            choices.append(Choice(title, f"{when} · {entry.note}", annotated, settings, [*map(Sample, samples)]))
    return Menu("history", choices, keys="x deletes all")


def model_menu(model: Model) -> Menu:
    """The model's figures, its limits, and its model card."""
    config = model.config
    facts = (
        f"{model.name} · {config.family} · {config.n_layer} layers, each {config.d_model:,} wide · context of "
        f"{config.n_ctx:,} tokens · licence {model.licence or 'not stated'}"
    )
    card = model.card.strip() or "This model has no card that says what it was trained on."
    return Menu("the model", text="\n\n".join([facts, LIMITS, card]))
