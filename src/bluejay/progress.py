"""Progress of long jobs on standard error: a live bar on a terminal, one line that is written again and again in a
notebook, and a line every few seconds elsewhere."""

import os
import re
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_UPDATES = 0.5
"""How often the line in a notebook is written again."""
SECONDS_BEFORE_BAR = 1.0
"""Shorter jobs show no bar."""


class Bar:
    """The progress of one job. `total` may be set once it is known."""

    def __init__(
        self, label: str, total: int, unit: str, done: int, live: "Progress | None", notebook: bool = False
    ) -> None:
        self.notebook, self.width = notebook, 0
        self.label, self.total, self.unit, self.live = label, total, unit, live
        self.done = self.start = done
        self.began = self.printed = time.monotonic()
        fields = {"share": "", "rate": "", "note": ""}
        self.task = live.add_task(label, total=total or None, completed=done, **fields) if live else None

    def advance(self, amount: int, note: str = "") -> None:
        """Count `amount` more units as done; `note` is shown beside the bar."""
        self.done += amount
        now = time.monotonic()
        rate = (self.done - self.start) / max(now - self.began, 1e-9)
        if self.live and self.task is not None:
            if not self.live.live.is_started and now - self.began > SECONDS_BEFORE_BAR:
                self.live.start()
            known = {"share": self._share(), "rate": f"{rate:,.0f} {self.unit}/s", "note": note}
            self.live.update(self.task, total=self.total or None, completed=self.done, **known)
        elif self.notebook:
            due = now - self.printed >= SECONDS_BETWEEN_UPDATES or self.done == self.total
            if due and now - self.began > SECONDS_BEFORE_BAR:
                self._rewrite(rate, note, now)
        elif now - self.printed >= SECONDS_BETWEEN_LINES:
            self.printed = now
            say(self._line(rate, note))

    def end(self) -> None:
        """Leave the line of a notebook as it is."""
        if self.width:
            say("")

    def _share(self) -> str:
        """The share that is done, or, where the total is not known, how much."""
        return f"{self.done / self.total:4.0%}" if self.total else f"{self.done:,} {self.unit}"

    def _line(self, rate: float, note: str) -> str:
        """The progress in one line."""
        speed = f"{rate:,.0f} {self.unit}/s"
        left = f"{(self.total - self.done) / rate:,.0f} s left" if self.total and rate else ""
        return " · ".join(part for part in (f"{self.label} {self._share()}", speed, left, note) if part)

    def _rewrite(self, rate: float, note: str, now: float) -> None:
        """Write the line of a notebook over the one before it."""
        filled = round(20 * min(1, self.done / self.total)) if self.total else 0
        drawn = f"{'█' * filled}{'░' * (20 - filled)} " if self.total else ""
        line = drawn + self._line(rate, note)
        print(f"\r{line:<{self.width}}", end="", file=sys.stderr, flush=True)
        self.printed, self.width = now, len(line)


@contextmanager
def progress(label: str, total: int, unit: str, done: int = 0) -> Generator[Bar]:
    """A bar for a job of `total` units (0 if unknown), of which `done` were done before this run."""
    from rich.console import Console  # here, because all verbs import this file and few of them need rich

    console = Console(stderr=True)
    if not console.is_interactive:
        bar = Bar(label, total, unit, done, None, console.is_jupyter)
        yield bar
        return bar.end()
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[share]}  {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    live = Progress(*columns, console=console)
    try:
        yield Bar(label, total, unit, done, live)
    finally:
        live.stop()


def say(message: str) -> None:
    """Print a line to standard error; it may quote a file, so control characters are spelled out."""
    print(for_terminal(message), file=sys.stderr, flush=True)


class Messages:
    """A stream of messages to people, which drops those that cannot be written; in all else it is the stream itself."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.broken = False
        """Whether the stream could not be written at some time."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write a text, or drop it: nobody reads it any more, the disk is full, a signal came while another one was
        written (RuntimeError), the stream is closed (ValueError)."""
        self.attempt(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush what can be written."""
        self.attempt(self.stream.flush)

    def attempt(self, action: Callable[[], object]) -> None:
        """Do something with the stream if that is possible."""
        try:
            action()
        except RuntimeError:
            pass
        except (OSError, ValueError):
            self.broken = True


@contextmanager
def unfailing_messages() -> Generator[None]:
    """Let no message on standard error that cannot be written end the work in the block."""
    stream = sys.stderr
    messages = sys.stderr = Messages(stream)
    try:
        yield
    finally:
        messages.flush()
        sys.stderr = stream
        if messages.broken:
            with suppress(OSError, ValueError):  # messages after the block, and Python's at its exit, would fail too
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def format_duration(seconds: float) -> str:
    """A duration in seconds, minutes, hours or days, depending on its length."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def format_bytes(size: int | float | None) -> str:
    """A number of bytes in KiB, MiB or GiB, depending on its size; "?" if it is None."""
    if size is None:
        return "?"
    power, unit = (30, "GiB") if size >= 2**30 else (20, "MiB") if size >= 0.1 * 2**20 else (10, "KiB")
    return f"{size / 2**power:,.2f} {unit}"


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters but for ends of lines and tabs."""


def for_terminal(text: str) -> str:
    """A text that a terminal shows and does not obey: control characters but for ends of lines and tabs are spelled
    out, so that a model or a document cannot move the cursor or set the title."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def counted(n: int, one: str, several: str = "") -> str:
    """A number and what is counted, by default with an s where it is not 1."""
    return f"{n:,} {one if n == 1 else several or f'{one}s'}"
