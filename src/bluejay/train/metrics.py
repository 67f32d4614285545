"""What a run reports: one JSON object per step, and a picture of the loss."""

import json
import os
from pathlib import Path
from typing import Any

from bluejay.files import atomic_file, write_text


class Metrics:
    """`metrics.jsonl`, continued after an interruption without repeating a step."""

    def __init__(self, path: Path, step: int) -> None:
        kept = [row for row in read_metrics(path) if row["step"] <= step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self.file = path.open("a", encoding="utf-8")

    def add(self, **row: Any) -> None:
        """Write one row, at once, so that others can follow."""
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()

    def sync(self) -> None:
        """Put the rows on the disk: a checkpoint counts on those of the steps before it."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Write no more."""
        self.file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line that a crash cut is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def draw_loss(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """A picture of the training loss and the held-out loss over tokens."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    trained = [row for row in rows if "loss" in row]
    held_out = [row for row in rows if "valid_loss" in row]
    axes.plot([row["tokens"] for row in trained], [row["loss"] for row in trained], lw=0.8, label="training")
    axes.plot([row["tokens"] for row in held_out], [row["valid_loss"] for row in held_out], "o-", label="held out")
    axes.set(title=title, xlabel="tokens", ylabel="loss, nats per token")
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    pyplot.close(figure)
