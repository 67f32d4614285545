"""A full-screen editor in which a user and a model write one text in turns: the page for the terminal."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, merge_key_bindings
from prompt_toolkit.layout import ConditionalContainer, Dimension, DynamicContainer, HSplit, Layout, VSplit, Window
from prompt_toolkit.layout.controls import BufferControl, FormattedTextControl
from prompt_toolkit.layout.processors import TabsProcessor
from prompt_toolkit.lexers import Lexer
from prompt_toolkit.output import Output
from prompt_toolkit.styles import DynamicStyle
from prompt_toolkit.utils import is_dumb_terminal
from prompt_toolkit.widgets import TextArea

from bluejay.infer.backends import context_of
from bluejay.infer.engine import Engine
from bluejay.infer.model import Model
from bluejay.infer.params import SamplingParams
from bluejay.progress import counted
from bluejay.terminal.annotated_text import AnnotatedText, Sample, Span, is_partial, percent, style_of, styled_fragments
from bluejay.terminal.assets import STOP_REASONS
from bluejay.terminal.history import History, HistoryEntry, state_directory
from bluejay.terminal.menu import Choice, Menu, examples_menu, history_menu, menu_keys, model_menu
from bluejay.terminal.settings import Settings, is_link, link_to, parse_link, parse_settings

N_ALTERNATIVES = 5
"""The number of likeliest tokens shown for the token at the caret."""
TAB = 4
"""Columns from one tab stop to the next, as on the page."""
KEYS = (
    "^R run  ^C stop  ^Z undo  ^Y redo  ^S settings  ^P probabilities\n"
    "^T resample from here  ^E examples  ^O history  ^L link  ^G the model  ^Q quit"
)
"""Lines of at most 80 characters, the width of most terminals."""


class Editor(Lexer):
    """The full screen: the text, samples side by side, the token at the caret, the settings and the keys."""

    def __init__(
        self,
        model: Model,
        settings: Settings,
        prompt: str = "",
        history: History | None = None,
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        self.model = model
        self.settings = settings
        self.history = history or History()
        self.menu: Menu | None = None
        self.annotated = AnnotatedText(prompt)
        self.samples: list[Sample] = []
        self.states = [(self.annotated, self.samples)]
        self.state = 0
        self.running = self.stopping = self.probabilities = False
        self.message = ""
        self.engine: Engine | None = None
        idle = Condition(lambda: not self.running)
        self.buffer = Buffer(
            document=Document(prompt), multiline=True, read_only=~idle, on_text_changed=lambda _: self._edited()
        )
        self.line = TextArea(str(settings), height=1, multiline=False, prompt="settings: ", wrap_lines=False)
        self.line.accept_handler = self._accept
        tabs = TabsProcessor(TAB, " ", " ")
        self.window = Window(BufferControl(self.buffer, [tabs], lexer=self), wrap_lines=True)
        columns = DynamicContainer(lambda: VSplit([self._column(i) for i in range(len(self.samples))], padding=2))
        menu = Window(FormattedTextControl(lambda: self.menu.rows if self.menu else []), wrap_lines=True)
        body = [
            self.window,
            ConditionalContainer(columns, Condition(lambda: bool(self.samples))),
            ConditionalContainer(menu, Condition(lambda: self.menu is not None)),
            wrapped(self._alternatives),
            wrapped(lambda: self.message, "class:bar"),
            wrapped(lambda: KEYS),
            self.line,
        ]
        self.app: Application[None] = Application(
            Layout(HSplit(body), focused_element=self.window),
            key_bindings=merge_key_bindings(
                [self._keys(), menu_keys(lambda: self.menu, self._take, self._clear_history)]
            ),
            style=DynamicStyle(lambda: style_of(self.app.color_depth)),
            full_screen=True,
            input=input,
            output=output,
        )
        self.app.key_processor.before_key_press += lambda _: self.menu and setattr(self.menu, "question", "")

    def write(self) -> str:
        """Let the user write until they quit, the terminal is closed or SIGTERM comes. Returns the text."""
        with contextlib.suppress(EOFError):  # of a terminal that was closed
            self.app.run(pre_run=self._quit_on_signals)
        self._remember("not run")
        return self.annotated.text

    async def run(self, **changes: Any) -> None:
        """Continue the text with the settings and `changes` to them; several samples appear beside the text."""
        if self.running:
            return
        params = replace(self.settings.params, logprobs=N_ALTERNATIVES, **changes)
        prompt = self.annotated.text
        self._record()
        began, n_tokens = time.monotonic(), 0
        try:
            engine = self._engine(params.n)
            request = engine.submit(self.model.tokenizer.encode_prompt(prompt), params)
        except ValueError as error:
            self.message = f"error: {error}"
            return
        self.running, self.stopping, self.message = True, False, ""
        start = self.annotated if params.n == 1 else AnnotatedText()
        samples = [Sample(start, prompt if self.settings.end_of_function else None) for _ in range(params.n)]
        self.samples = samples if params.n > 1 else []
        try:
            while not (engine.idle or self.stopping or all(sample.reason for sample in samples)):
                for _, chunk in await asyncio.to_thread(engine.step):
                    samples[chunk.index].take(chunk, self.model.tokenizer)
                    n_tokens += chunk.token is not None
                if params.n == 1:
                    self._show(samples[0].annotated)
                if not self.message.startswith("error"):
                    self.message = f"running: {counted(n_tokens, 'token')}"
                self.app.invalidate()
        finally:
            engine.cancel(request)
            self.running = False
            reasons = ", ".join(dict.fromkeys(STOP_REASONS[sample.reason or "user"] for sample in samples))
            speed = f"{n_tokens / max(time.monotonic() - began, 1e-9):.0f} tokens/s"
            used = f" · context {len(request.prompt) + n_tokens} of {engine.n_ctx}" if params.n == 1 else ""
            self.message = f"{counted(n_tokens, 'token')} · {speed} · seed {request.seed} · {reasons}{used}"
            self._record()
            self._remember(self.message)
            self.app.invalidate()

    def lex_document(self, document: Document) -> Any:
        """A function that styles one line: the model's words on a tint or coloured by probability."""

        def line(number: int) -> StyleAndTextTuples:
            start = document.translate_row_col_to_index(number, 0)
            return styled_fragments(self.annotated, start, start + len(document.lines[number]), self.probabilities)

        return line

    def invalidation_hash(self) -> Any:
        """Lines are styled again when this changes."""
        return self.annotated, self.probabilities

    def _engine(self, n: int) -> Engine:
        """The engine for n samples. It is kept between runs, with its cache of the text that it has read."""
        if self.engine is None or self.engine.max_sequences != n:
            backend = self.model.backend(n, self.model.config.n_ctx)
            self.engine = Engine(backend, self.model.tokenizer, n, n_ctx=context_of(backend))
        return self.engine

    def _edited(self) -> None:
        self.annotated = self.annotated.after_edit(self.buffer.text)

    def _show(self, annotated: AnnotatedText) -> None:
        """Put another text into the buffer. A caret at the end stays at the end; any other stays in place."""
        at_end = self.buffer.cursor_position == len(self.annotated.text)
        caret = len(annotated.text) if at_end else min(self.buffer.cursor_position, len(annotated.text))
        self.annotated = annotated  # so that `_edited` finds nothing changed
        self.buffer.set_document(Document(annotated.text, caret), bypass_readonly=True)

    def _record(self) -> None:
        """Record the text and the samples for undo and redo."""
        if self.states[self.state] != (self.annotated, self.samples):
            self.states[self.state + 1 :] = [(self.annotated, self.samples)]
            self.state += 1

    def _undo(self, step: int) -> None:
        """Show the state `step` states later: -1 is undo, 1 is redo."""
        if self.running:
            return
        self._record()
        self.state = min(max(self.state + step, 0), len(self.states) - 1)
        annotated, self.samples = self.states[self.state]
        self._show(annotated)

    def _replace(self, annotated: AnnotatedText, settings: Settings, samples: list[Sample]) -> None:
        """Replace the text, the settings and the samples; undo brings the old text back."""
        if self.running:
            return
        self._record()
        self.samples, self.menu = samples, None
        self._show(annotated)
        self.buffer.cursor_position = len(annotated.text)
        self.settings = settings
        self.line.text = str(settings)
        self._record()

    def _remember(self, note: str) -> None:
        """Add the text and the samples to the history unless they are the latest entry already."""
        text = self.annotated.text
        samples = [[sample.annotated.text, sample.annotated.bounds] for sample in self.samples]
        latest = next(iter(self.history.entries), None)
        if text and not (latest and latest.text == text and samples in ([], latest.samples)):
            try:
                self.history.add(HistoryEntry(text, self.annotated.bounds, str(self.settings), note, samples=samples))
            except OSError as error:
                self.message = f"error: the history could not be saved: {error.strerror}"

    def _open(self, menu: Menu) -> None:
        """Show a menu in the lower half of the screen, or close it if it is open already."""
        same = self.menu is not None and self.menu.title == menu.title
        self.menu = None if same or self.running else menu
        self.app.layout.focus(self.window)

    def _link(self) -> None:
        """Put a link into the line of settings, from which it can be copied and where another can be pasted."""
        length = len(self.annotated.text)  # of the prompt: without the model's words at the end
        for span in reversed(self.annotated.spans):
            if span.end == length:
                length = span.start
        self.line.text = link_to(self.annotated.text[:length], self.settings)
        self.line.buffer.cursor_position = len(self.line.text)
        self.message = "a link to this prompt and these settings; Enter opens the link in this line"
        self.app.layout.focus(self.line)

    def _accept(self, _: Buffer) -> bool:
        """Apply the line of settings, or open the link in it."""
        try:
            if is_link(self.line.text):
                if self.running:
                    raise ValueError("a link can be opened when the run has ended")
                text, settings = parse_link(self.line.text)
                self._replace(AnnotatedText(text), settings, [])
            else:
                self.settings = parse_settings(self.line.text)
            self.message = ""
            self.app.layout.focus(self.window)
        except ValueError as error:
            self.message = f"error: {error}"
        return True

    def _edit_settings(self) -> None:
        """Move the caret to the line of settings, or back from it to the text."""
        there = self.app.layout.has_focus(self.line)
        self.line.text, self.message = str(self.settings), ""
        self.app.layout.focus(self.window if there else self.line)
        self.line.buffer.cursor_position = len(self.line.text)

    def _resample(self) -> None:
        """Generate again from the token at the caret, with a new seed."""
        if (span := self._token()) and not self.running:
            self._record()
            self._show(self.annotated.truncate(span.start))
            self._start(n=1, seed=None)

    def _choose(self, number: int) -> None:
        """Keep a sample, or replace the token at the caret with an alternative and continue from there."""
        if self.running:
            return
        self._record()
        span = self._token()
        if number < len(self.samples):
            kept, annotated = self.samples[number].annotated, self.annotated
            for one in kept.spans:
                annotated = annotated.append(kept.text[one.start : one.end], one.logprob, one.top)
            self.samples = []
            self._show(annotated)
        elif span and not self.samples and number < len(span.top) and not is_partial(span.top[number][0]):
            text, logprob = span.top[number]
            self._show(self.annotated.truncate(span.start).append(text, logprob, span.top))
            self.buffer.cursor_position = len(self.annotated.text)
            if text:
                self._start(n=1)
        self._record()

    def _start(self, **changes: Any) -> None:
        """Run, with the settings as they are typed. A link in their line is opened by Enter alone."""
        if not self.running and self.app.layout.has_focus(self.line) and not is_link(self.line.text):
            self._accept(self.line.buffer)
            if self.message:
                return
        self.app.create_background_task(self.run(**changes))

    def _token(self) -> Span | None:
        """The token at the caret, if probabilities are shown."""
        return self.annotated.token_at(self.buffer.cursor_position) if self.probabilities else None

    def _alternatives(self) -> str:
        """The probability of the token at the caret and the alternatives to it."""
        if self.samples:
            return f"Alt+1..{len(self.samples)} keeps a sample"
        if not (span := self._token()):
            return "move the caret to a token to see the alternatives" if self.probabilities else ""
        choices = [
            f"{'part of a character' if is_partial(name) else f'Alt+{i} {name!r}'} {percent(logprob)}"
            for i, (name, logprob) in enumerate(span.top, 1)
        ]
        token = self.annotated.text[span.start : span.end]
        return f"{token!r} {percent(span.logprob or 0.0)}   " + "  ".join(choices)

    def _column(self, i: int) -> HSplit:
        """The column of one sample, below its number."""
        sample = self.samples[i].annotated

        def fragments() -> StyleAndTextTuples:
            parts = styled_fragments(sample, 0, len(sample.text), self.probabilities)
            return [(style, text.expandtabs(TAB)) for style, text, *_ in parts]

        number = Window(FormattedTextControl(f"{i + 1}"), height=1, style="class:bar")
        return HSplit([number, Window(FormattedTextControl(fragments), wrap_lines=True)])

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        def bind(key: str, act: Any) -> None:
            keys.add(*key.split(), eager=" " not in key)(lambda _: act())

        bind("c-r", self._start)
        bind("escape enter", self._start)
        bind("c-z", lambda: self._undo(-1))
        bind("c-y", lambda: self._undo(1))
        bind("c-p", lambda: setattr(self, "probabilities", not self.probabilities))
        bind("c-t", self._resample)
        bind("c-e", lambda: self._open(examples_menu(self.settings)))
        bind("c-o", lambda: self._open(history_menu(self.history.entries)))
        bind("c-g", lambda: self._open(model_menu(self.model)))
        bind("c-l", self._link)
        for number in range(9):
            bind(f"escape {number + 1}", lambda number=number: self._choose(number))

        bind("c-s", self._edit_settings)
        bind("c-c", lambda: setattr(self, "stopping", True))
        bind("c-q", self._quit)
        return keys

    def _take(self, choice: Choice | None) -> None:
        """Close the menu, and show what was chosen in it."""
        if choice:
            self._replace(choice.annotated, choice.settings, choice.samples)
        self.menu = None

    def _clear_history(self) -> None:
        try:
            self.history.clear()
        except OSError as error:
            self.message = f"error: the history could not be deleted: {error.strerror}"
        self.menu = None

    def _quit(self) -> None:
        self.stopping = True
        if not self.running:  # a run is remembered when it ends
            self._remember("not run")
        if not self.app.is_done:
            self.app.exit()

    def _quit_on_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._quit)


def open_editor(load: Callable[[], Model], params: SamplingParams) -> str:
    """Let the user write with the model that `load` opens. Returns the text; raises ValueError without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ValueError("there is no prompt, and no terminal to write one in; - reads it from standard input")
    if is_dumb_terminal():
        term = os.environ.get("TERM", "")
        raise ValueError(f"the editor moves the cursor, which a terminal with TERM={term} cannot; give a prompt")
    history = History(state_directory() / "history.json")
    return Editor(load(), Settings(params), history=history).write()


def wrapped(text: Callable[[], str], style: str = "") -> Window:
    """A text that takes as many lines as it needs, at least one."""
    height = Dimension(min=1)
    return Window(FormattedTextControl(text), height=height, wrap_lines=True, dont_extend_height=True, style=style)
