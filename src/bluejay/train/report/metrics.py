"""Metrics of a run: one JSON object per step, the same values for TensorBoard, and plots."""

import json
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeGuard

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from bluejay.files import atomic_file, json_of, parse_json, write_text
from bluejay.gpt.formats.values import is_number
from bluejay.progress import say

FLUSH_SECONDS = 10.0
"""Time between flushes of TensorBoard's file."""
NUMBERS = ("tokens", "loss", "bits_per_byte", "lr", "tokens_per_second", "valid_loss", "valid_bits_per_byte")
"""What is read of a row, beside its step."""
PICTURES = ("loss.png", "learning_rate.png")
"""The plots of a run, in the order in which they are drawn."""


class Metrics:
    """Writes `metrics.jsonl` and, in the same directory, `tensorboard/`.

    A resumed run continues both after `step`: later rows are removed from the former and hidden in the latter. All
    methods raise OSError if the disk is full.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = [row for row in read_metrics(path) if row["step"] <= step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self.file = path.open("a", encoding="utf-8")
        folder = path.parent / "tensorboard"
        folder.mkdir(exist_ok=True)
        # Not SummaryWriter: its thread would die of a full disk, and the run would wait for it. File names contain the
        # time in seconds; the suffix keeps two files of one second apart.
        self.board, self.flushed = EventsWriter(str(folder / "events"), f".{step}"), time.monotonic()
        self.write(step + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, **row: Any) -> None:
        """Write one row, which has a `step`, and flush it. Numbers that are not finite are written as null."""
        self.file.write(json_of(row) + "\n")
        self.file.flush()
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars(row) if name != "step"]
        self.write(row["step"], summary=Summary(value=values))  # one event for all is cheaper
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.board.flush()
            self.flushed = time.monotonic()

    def write(self, step: int, **what: Any) -> None:
        """Write one event for TensorBoard."""
        self.board.write_event(Event(wall_time=time.time(), step=step, **what))

    def sync(self) -> None:
        """Flush to disk (fsync): a checkpoint relies on the rows of the steps before it."""
        os.fsync(self.file.fileno())
        self.board.flush()

    def close(self) -> None:
        """Close the files."""
        try:
            self.file.close()
        finally:
            self.board.close()


def scalars(row: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a row by name; those of a nested dictionary as outer/inner, which TensorBoard groups."""
    for name, value in row.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            yield prefix + name, float(value)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`, without a last line that was cut off by a crash. Other lines that are no rows are
    left out, too, with a warning."""
    rows, wrong = [], list[int]()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        row = None
        with suppress(ValueError):
            row = parse_json(line)
        if is_row(row):
            rows.append(row)
        elif number < len(lines):
            wrong.append(number)
    if wrong:
        say(f"WARNING: {path} has lines that are no rows of a run, and left out: {len(wrong)}, first line {wrong[0]}")
    return rows


def is_row(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a value is a row: it has a step, and what is read of it are numbers or null."""
    if not isinstance(value, dict) or not isinstance(value.get("step"), int):
        return False
    return all(value.get(name) is None or is_number(value[name]) for name in NUMBERS)


def draw_run(directory: Path, name: str) -> None:
    """Draw the plots of a run, if it has rows."""
    rows = read_metrics(directory / "metrics.jsonl")
    if not rows:
        return say(f"{directory / 'metrics.jsonl'} is empty or gone, so nothing is drawn from it")
    for draw, picture in zip((draw_loss, draw_learning_rate), PICTURES, strict=True):
        draw(rows, name, directory / picture)


def draw_loss(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Plot the training loss and the held-out loss over tokens."""
    trained = [row for row in rows if row.get("loss") is not None]
    held_out = [row for row in rows if "valid_loss" in row]
    lines = {"training": (trained, "loss", "-"), "held out": (held_out, "valid_loss", "o-")}
    draw_lines(lines, title, "loss, nats per token", path)


def draw_learning_rate(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Plot the learning rate over tokens."""
    draw_lines({"learning rate": ([row for row in rows if "lr" in row], "lr", "-")}, title, "learning rate", path)


def draw_lines(lines: dict[str, tuple[list[dict[str, Any]], str, str]], title: str, label: str, path: Path) -> None:
    """Draw one plot. `lines` maps each label to rows, the key of the values in them, and the line style."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for name, (rows, key, style) in lines.items():
        rows = [row for row in rows if row.get("tokens") is not None]
        axes.plot([row["tokens"] for row in rows], [row[key] for row in rows], style, lw=0.8, ms=4, label=name)
    axes.set_title(title, parse_math=False)
    axes.set(xlabel="tokens", ylabel=label)
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_file(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of a name in another script
        figure.savefig(temporary, format="png", dpi=120)
    pyplot.close(figure)
