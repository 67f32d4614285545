"""Metrics of a run: one JSON object per step, the same values for TensorBoard, and plots."""

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

from bluejay.files import atomic_file, json_of, write_text


class Metrics:
    """Writes `metrics.jsonl` and, in the same directory, `tensorboard/`.

    A resumed run continues both after `step`: later rows are removed from the former and hidden in the latter.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = [row for row in read_metrics(path) if row["step"] <= step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self.file = path.open("a", encoding="utf-8")
        # File names contain the time in seconds; the suffix keeps two files of one second apart.
        self.board = SummaryWriter(str(path.parent / "tensorboard"), purge_step=step + 1, filename_suffix=f".{step}")

    def add(self, **row: Any) -> None:
        """Write one row, which has a `step`, and flush it. Numbers that are not finite are written as null."""
        self.file.write(json_of(row) + "\n")
        self.file.flush()
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars(row) if name != "step"]
        self.board.file_writer.add_summary(Summary(value=values), row["step"])  # one event for all is cheaper

    def sync(self) -> None:
        """Flush to disk (fsync): a checkpoint relies on the rows of the steps before it."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the files."""
        self.file.close()
        self.board.close()


def scalars(row: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a row by name; those of a nested dictionary as outer/inner, which TensorBoard groups."""
    for name, value in row.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            yield prefix + name, float(value)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`, without a last line that was cut off by a crash."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


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
        axes.plot([row["tokens"] for row in rows], [row[key] for row in rows], style, lw=0.8, ms=4, label=name)
    axes.set_title(title, parse_math=False)
    axes.set(xlabel="tokens", ylabel=label)
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_file(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of a name in another script
        figure.savefig(temporary, format="png", dpi=120)
    pyplot.close(figure)
