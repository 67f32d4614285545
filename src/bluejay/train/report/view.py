"""The live view of a run on standard error: a panel on a terminal, a line every few seconds elsewhere."""

import math
import resource
import sys
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bluejay.progress import SECONDS_BETWEEN_LINES, format_duration, say

SECONDS_BETWEEN_FRAMES = 1.0
"""Minimum interval: drawing takes a few milliseconds, during which training waits."""
SPEED_WINDOW = 50
"""Number of recent steps whose mean speed determines the remaining time."""
SPARKLINE_LEVELS = "▁▂▃▄▅▆▇█"


class View:
    """Shows the rows of steps and evaluations that `Metrics` writes, when they are reported."""

    def __init__(self, name: str, step: int, steps: int, live: Live | None, quiet: bool = False) -> None:
        self.name, self.step, self.steps, self.live, self.quiet = name, step, steps, live, quiet
        self.latest: dict[str, Any] = {}
        self.losses: deque[float] = deque(maxlen=2000)
        self.ends: deque[float] = deque([time.monotonic()], maxlen=SPEED_WINDOW)
        self.shown = time.monotonic()

    def show(self, row: dict[str, Any]) -> None:
        """Record a row, and redraw if the interval has passed."""
        self.latest |= row
        now = time.monotonic()
        if row.get("loss") is not None:
            self.step = row["step"]
            self.losses.append(row["loss"])
            self.ends.append(now)
        if self.live is None and not self.quiet:
            for prompt, text in row.get("samples", {}).items():
                say(f"sample: {printable(prompt)}{printable(text)}")
        if self.live is not None and now - self.shown > SECONDS_BETWEEN_FRAMES:
            self.shown = now
            self.live.update(self.panel(), refresh=True)
        elif self.live is None and not self.quiet and now - self.shown > SECONDS_BETWEEN_LINES:
            self.shown = now
            say(self.line())

    @property
    def seconds_left(self) -> float:
        """Estimated seconds to the end, from the speed of recent steps including evaluations and checkpoints."""
        each = (self.ends[-1] - self.ends[0]) / max(1, len(self.ends) - 1)
        return each * (self.steps - self.step)

    def figures(self) -> dict[str, str]:
        """The latest value of each metric, formatted with its unit, by key."""
        formats = {
            "loss": "{:.3f} nats per token",
            "bits_per_byte": "{:.3f} bits per byte",
            "valid_bits_per_byte": "{:.3f} bits per byte held out",
            "tokens_per_second": "{:,.0f} tokens/s",
            "share_of_peak": "{:.0%} of the matmul peak",
            "mfu": "{:.0%} MFU",
            "memory": "{:.2f} GB",
            "lr": "learning rate {:.2e}",
            "grad_norm": "gradient norm {:.2f}",
            "noise_scale": "noise scale {:,.0f} tokens",
            "skipped_steps": "{:,} steps skipped",
        }
        known = {key: self.latest[key] for key in formats if self.latest.get(key) is not None}
        return {key: formats[key].format(value) for key, value in known.items()}

    def line(self) -> str:
        """All metrics in one line, for a log."""
        left = f"{format_duration(self.seconds_left)} left"
        return " · ".join([f"step {self.step:,} of {self.steps:,}", *self.figures().values(), left])

    def panel(self) -> RenderableType:
        """All metrics, progress, loss curve and sample texts as a panel for a terminal."""
        figures = list(self.figures().values())
        table = Table.grid(padding=(0, 3))
        for row in range(0, len(figures), 3):
            table.add_row(*figures[row : row + 3])
        done = f"step {self.step:,} of {self.steps:,} · {format_duration(self.seconds_left)} left"
        bar = Table.grid(padding=(0, 3))
        bar.add_row(ProgressBar(total=self.steps, completed=self.step, width=40), done)
        parts: list[RenderableType] = [bar, table, Text(sparkline(self.losses, 60), style="cyan")]
        components = self.latest.get("valid_bits_per_byte_of", {})
        if components:
            parts.append(Text("  ".join(f"{name} {value:.3f}" for name, value in components.items()), style="dim"))
        for prompt, text in self.latest.get("samples", {}).items():
            parts.append(Text.assemble((printable(prompt), "bold"), printable(text)))
        return Panel(Group(*parts), title=Text(printable(self.name)), title_align="left", width=100)


@contextmanager
def view(name: str, step: int, steps: int, quiet: bool = False) -> Generator[View]:
    """The view of a run that has done `step` of `steps` steps; a quiet one shows nothing."""
    console = Console(stderr=True, quiet=quiet)
    if quiet or not console.is_interactive:
        yield View(name, step, steps, None, quiet)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        shown = View(name, step, steps, live)
        try:
            yield shown
        finally:
            live.update(shown.panel(), refresh=True)


def sparkline(values: deque[float], width: int) -> str:
    """A curve in one line of block characters: means over equal buckets, scaled from the lowest to the highest mean.
    Values that are not finite, as of a step that was skipped, are left out."""
    items = [value for value in values if math.isfinite(value)]
    if not items:
        return ""
    size = max(1, math.ceil(len(items) / width))
    means = [sum(items[i : i + size]) / len(items[i : i + size]) for i in range(0, len(items), size)]
    low, high, top = min(means), max(means), len(SPARKLINE_LEVELS) - 1
    return "".join(SPARKLINE_LEVELS[int((mean - low) / (high - low + 1e-12) * top)] for mean in means)


def printable(text: str) -> str:
    """A text in one line, with control characters, which a terminal would interpret, replaced by spaces."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def peak_memory(device: torch.device) -> float:
    """Peak memory in GB: of tensors on an accelerator, of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
