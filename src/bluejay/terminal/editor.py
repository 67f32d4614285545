"""A full-screen editor in which a person and a model write one text in turns: the page, in a terminal."""

import asyncio
import time
from dataclasses import replace
from typing import Any

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import ConditionalContainer, DynamicContainer, HSplit, Layout, VSplit, Window
from prompt_toolkit.layout.controls import BufferControl, FormattedTextControl
from prompt_toolkit.lexers import Lexer
from prompt_toolkit.output import Output
from prompt_toolkit.styles import Style
from prompt_toolkit.widgets import TextArea

from bluejay.infer.engine import Engine
from bluejay.infer.model import Model
from bluejay.terminal.annotated_text import Draft, Mark, Sample, level, percent
from bluejay.terminal.history import Past, PastRun
from bluejay.terminal.menu import Menu, about, examples, history
from bluejay.terminal.settings import Settings, link_to, linked, parse

N_TOP = 5
"""Alternatives to a token."""
REASONS = {
    "length": "reached the length",
    "stop": "the model ended it or met a stop",
    "function": "the function ended",
}
STYLE = Style.from_dict(
    {
        "model": "bg:#fbf0d3 fg:#15181c",
        "p0": "bg:#fdf8ea fg:#15181c",
        "p1": "bg:#fbeabf fg:#15181c underline",
        "p2": "bg:#f6d68b fg:#15181c underline",
        "p3": "bg:#eebd55 fg:#15181c underline",
        "p4": "bg:#e0a126 fg:#15181c underline bold",
        "bar": "reverse",
        "error": "bold",
    }
)
KEYS = (
    "^R run  ^C stop  ^Z undo  ^Y redo  ^S settings  ^P probabilities  ^T try again from here\n"
    "^E examples  ^O history  ^L link  ^G the model  ^Q quit"
)


class Editor(Lexer):
    """The full screen: the text, samples side by side, what is known of the token at the caret, settings, keys."""

    def __init__(
        self,
        model: Model,
        settings: Settings,
        prompt: str = "",
        past: Past | None = None,
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        self.model = model
        self.chosen = settings
        self.past = past or Past()
        self.menu: Menu | None = None
        self.draft = Draft(prompt)
        self.samples: list[Sample] = []
        self.states = [(self.draft, self.samples)]
        self.state = 0
        self.running = self.stopping = self.probabilities = False
        self.message = ""
        self.engine: Engine | None = None
        idle = Condition(lambda: not self.running)
        self.buffer = Buffer(
            document=Document(prompt), multiline=True, read_only=~idle, on_text_changed=lambda _: self._typed()
        )
        self.settings = TextArea(str(settings), height=1, multiline=False, prompt="settings: ", wrap_lines=False)
        self.settings.accept_handler = self._accept
        self.text = Window(BufferControl(self.buffer, lexer=self), wrap_lines=True)
        shown = DynamicContainer(lambda: VSplit([self._column(i) for i in range(len(self.samples))], padding=2))
        menu = Window(FormattedTextControl(lambda: self.menu.rows if self.menu else []), wrap_lines=True)
        body = [
            self.text,
            ConditionalContainer(shown, Condition(lambda: bool(self.samples))),
            ConditionalContainer(menu, Condition(lambda: self.menu is not None)),
            Window(FormattedTextControl(self._token), height=1),
            Window(FormattedTextControl(lambda: self.message), height=1, style="class:bar"),
            Window(FormattedTextControl(KEYS), wrap_lines=True, dont_extend_height=True),
            self.settings,
        ]
        self.app: Application[None] = Application(
            Layout(HSplit(body), focused_element=self.text),
            key_bindings=self._keys(),
            style=STYLE,
            full_screen=True,
            input=input,
            output=output,
        )

    def write(self) -> str:
        """Let a person write until they leave; the text."""
        self.app.run()
        return self.draft.text

    async def run(self, **changes: Any) -> None:
        """Continue the text; with several samples, beside it."""
        if self.running:
            return
        params = replace(self.chosen.params, logprobs=N_TOP, **changes)
        prompt = self.draft.text
        self._record()
        began, n_tokens = time.monotonic(), 0
        try:
            engine = self._engine(params.n)
            request = engine.submit(self.model.tokenizer.encode_prompt(prompt), params)
        except ValueError as error:
            self.message = f"error: {error}"
            return
        self.running, self.stopping = True, False
        draft = self.draft if params.n == 1 else Draft()
        samples = [Sample(draft, prompt if self.chosen.end_of_function else None) for _ in range(params.n)]
        self.samples = samples if params.n > 1 else []
        try:
            while not (engine.idle or self.stopping or all(sample.reason for sample in samples)):
                for _, chunk in await asyncio.to_thread(engine.step):
                    samples[chunk.index].take(chunk, self.model.tokenizer)
                    n_tokens += chunk.token is not None
                if params.n == 1:
                    self._show(samples[0].draft)
                self.message = f"running: {n_tokens} tokens"
                self.app.invalidate()
        finally:
            engine.cancel(request)
            self.running = False
            why = ", ".join(dict.fromkeys(REASONS.get(sample.reason or "", "stopped by you") for sample in samples))
            speed = n_tokens / max(time.monotonic() - began, 1e-9)
            used = f" · context {len(request.prompt) + n_tokens} of {engine.n_ctx}" if params.n == 1 else ""
            note = f"{n_tokens} tokens · {speed:.0f} tokens/s · seed {request.seed} · {why}{used}"
            self.message = note
            self._record()
            self._remember(note)
            self.app.invalidate()

    def lex_document(self, document: Document) -> Any:
        """Lines with the model's words on a tint, or coloured by probability."""

        def line(number: int) -> StyleAndTextTuples:
            start = document.translate_row_col_to_index(number, 0)
            return painted(self.draft, start, start + len(document.lines[number]), self.probabilities)

        return line

    def invalidation_hash(self) -> Any:
        """Lines are painted anew when this changes."""
        return self.draft, self.probabilities

    def _engine(self, n: int) -> Engine:
        """The engine, which keeps what it has read of the text from run to run."""
        if self.engine is None or self.engine.max_sequences != n:
            self.engine = Engine(self.model.backend(n, self.model.config.n_ctx), self.model.tokenizer, n)
        return self.engine

    def _typed(self) -> None:
        self.draft = self.draft.edited(self.buffer.text)

    def _show(self, draft: Draft) -> None:
        """Another text in the buffer; the caret stays, or follows the end where it stood there."""
        before, self.draft = self.draft, draft
        at_end = self.buffer.cursor_position == len(before.text)
        caret = len(draft.text) if at_end else min(self.buffer.cursor_position, len(draft.text))
        self.buffer.set_document(Document(draft.text, caret), bypass_readonly=True)
        self.draft = draft

    def _record(self) -> None:
        """Note where things stand, so that they can be come back to."""
        if self.states[self.state] != (self.draft, self.samples):
            self.states[self.state + 1 :] = [(self.draft, self.samples)]
            self.state += 1

    def _travel(self, step: int) -> None:
        if self.running:
            return
        self._record()
        self.state = min(max(self.state + step, 0), len(self.states) - 1)
        draft, self.samples = self.states[self.state]
        self._show(draft)

    def _go_to(self, draft: Draft, settings: Settings) -> None:
        """Another text with settings of its own, which can be taken back."""
        if self.running:
            return
        self._record()
        self.samples, self.menu = [], None
        self._show(draft)
        self.buffer.cursor_position = len(draft.text)
        self.chosen = settings
        self.settings.text = str(settings)
        self._record()

    def _remember(self, note: str) -> None:
        """Keep the text among past runs, unless it is there already."""
        runs = self.past.runs
        if self.draft.text and not (runs and runs[0].text == self.draft.text):
            marks = [[mark.start, mark.end] for mark in self.draft.marks]
            try:
                self.past.add(PastRun(self.draft.text, marks, str(self.chosen), note))
            except OSError as error:
                self.message = f"error: history is not kept: {error.strerror}"

    def _open(self, menu: Menu) -> None:
        """Show a list or a text in the lower half, or take it away again."""
        same = self.menu is not None and self.menu.title == menu.title
        self.menu = None if same or self.running else menu
        self.app.layout.focus(self.text)

    def _link(self) -> None:
        """Put a link into the line of settings, where it can be copied; another one can be pasted there."""
        marks = self.draft.marks
        ends = bool(marks) and marks[-1].end == len(self.draft.text)
        start = len(self.draft.text)
        for mark in reversed(marks if ends else ()):
            if mark.end == start:
                start = mark.start
        self.settings.text = link_to(self.draft.text[:start], self.chosen)
        self.settings.buffer.cursor_position = len(self.settings.text)
        self.message = "a link to this prompt and these settings; Enter on a link goes where it leads"
        self.app.layout.focus(self.settings)

    def _accept(self, _: Buffer) -> bool:
        try:
            if "#" in self.settings.text and "prompt=" in self.settings.text:
                self._go_to(Draft(linked(self.settings.text)[0]), linked(self.settings.text)[1])
            else:
                self.chosen = parse(self.settings.text)
            self.message = ""
            self.app.layout.focus(self.text)
        except ValueError as error:
            self.message = f"error: {error}"
        return True

    def _again(self) -> None:
        """Another way on from the token at the caret, with a seed of its own."""
        if (mark := self._mark()) and not self.running:
            self._record()
            self._show(self.draft.cut(mark.start))
            self._start(n=1, seed=None)

    def _choose(self, number: int) -> None:
        """Keep a sample, or put an alternative in the place of the token at the caret and go on from there."""
        if self.running:
            return
        self._record()
        mark = self._mark()
        if number < len(self.samples):
            draft = self.draft
            for one in self.samples[number].draft.marks:
                draft = draft.written(self.samples[number].draft.text[one.start : one.end], one.logprob, one.top)
            self.samples = []
            self._show(draft)
        elif mark and not self.samples and number < len(mark.top):
            text, logprob = mark.top[number]
            self._show(self.draft.cut(mark.start).written(text, logprob, mark.top))
            self.buffer.cursor_position = len(self.draft.text)
            if text:
                self._start(n=1)
        self._record()

    def _start(self, **changes: Any) -> None:
        self.app.create_background_task(self.run(**changes))

    def _mark(self) -> Mark | None:
        return self.draft.at(self.buffer.cursor_position) if self.probabilities else None

    def _token(self) -> str:
        """What is known of the token at the caret."""
        if self.samples:
            return f"Alt+1..{len(self.samples)} keeps a sample"
        if not (mark := self._mark()):
            return "the caret on a token shows what else it could have been" if self.probabilities else ""
        ways = [f"Alt+{i} {name!r} {percent(logprob)}" for i, (name, logprob) in enumerate(mark.top, 1)]
        chosen = self.draft.text[mark.start : mark.end]
        return f"{chosen!r} {percent(mark.logprob or 0.0)}   " + "  ".join(ways)

    def _column(self, i: int) -> HSplit:
        """One sample."""
        draft = self.samples[i].draft
        words = FormattedTextControl(lambda: painted(draft, 0, len(draft.text), self.probabilities))
        return HSplit(
            [Window(FormattedTextControl(f"{i + 1}"), height=1, style="class:bar"), Window(words, wrap_lines=True)]
        )

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        def bind(key: str, act: Any) -> None:
            keys.add(*key.split(), eager=" " not in key)(lambda _: act())

        bind("c-r", self._start)
        bind("escape enter", self._start)
        bind("c-z", lambda: self._travel(-1))
        bind("c-y", lambda: self._travel(1))
        bind("c-p", lambda: setattr(self, "probabilities", not self.probabilities))
        bind("c-t", self._again)
        bind("c-e", lambda: self._open(examples(self.chosen)))
        bind("c-o", lambda: self._open(history(self.past.runs)))
        bind("c-g", lambda: self._open(about(self.model)))
        bind("c-l", self._link)
        for number in range(9):
            bind(f"escape {number + 1}", lambda number=number: self._choose(number))

        @keys.add("c-s", eager=True)
        def settings(event: KeyPressEvent) -> None:
            there = event.app.layout.has_focus(self.settings)
            self.settings.text, self.message = str(self.chosen), ""
            event.app.layout.focus(self.text if there else self.settings)
            self.settings.buffer.cursor_position = len(self.settings.text)

        opened = Condition(lambda: self.menu is not None)

        @keys.add("up", filter=opened, eager=True)
        @keys.add("down", filter=opened, eager=True)
        def move(event: KeyPressEvent) -> None:
            assert self.menu is not None
            self.menu.move(-1 if event.key_sequence[0].key == "up" else 1)

        @keys.add("enter", filter=opened, eager=True)
        def choose(_: KeyPressEvent) -> None:
            assert self.menu is not None
            if choice := self.menu.choice:
                self._go_to(choice.draft, choice.settings)
            self.menu = None

        @keys.add("escape", filter=opened)
        def close(_: KeyPressEvent) -> None:
            self.menu = None

        @keys.add("x", filter=Condition(lambda: self.menu is not None and self.menu.title == "history"), eager=True)
        def forget(_: KeyPressEvent) -> None:
            self.past.forget()
            self.menu = None

        @keys.add("c-c", eager=True)
        def stop(_: KeyPressEvent) -> None:
            self.stopping = True

        @keys.add("c-q", eager=True)
        def leave(event: KeyPressEvent) -> None:
            self.stopping = True
            self._remember("left here")
            event.app.exit()

        return keys


def painted(draft: Draft, start: int, end: int, probabilities: bool) -> StyleAndTextTuples:
    """A stretch of a draft's text, cut where its colours change."""
    fragments: StyleAndTextTuples = []
    at = start
    for mark in draft.marks:
        if mark.end <= start or mark.start >= end:
            continue
        fragments.append(("", draft.text[at : max(at, mark.start)]))
        known = probabilities and mark.logprob is not None
        style = f"class:p{level(mark.logprob)}" if known and mark.logprob is not None else "class:model"
        at = min(end, mark.end)
        fragments.append((style, draft.text[max(start, mark.start) : at]))
    fragments.append(("", draft.text[at:end]))
    return [fragment for fragment in fragments if fragment[1]]
