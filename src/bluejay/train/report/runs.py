"""Lists and compares the runs in a folder: losses, tokens, time, and how their recipes differ."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bluejay.progress import format_duration, say
from bluejay.train.checkpoint.result import is_run
from bluejay.train.checkpoint.state import flatten
from bluejay.train.report.metrics import draw_lines, read_metrics

UNCOMPARED = ("name", "output", "seed")
"""Keys of a recipe that differ between runs without being a difference of method; `seed` is shown by itself."""
SHOWN_DIFFERENCES = 6


@dataclass(frozen=True)
class RunSummary:
    """What the files of one run say; None where a run has not come so far."""

    directory: Path
    recipe: dict[str, Any]
    """The keys of its recipe, dotted, and their values."""
    steps_done: int
    tokens: int
    """Tokens trained on so far."""
    tokens_planned: int
    seconds: float
    """Seconds spent in steps, which leaves out evaluations and checkpoints."""
    loss: float | None
    """Training loss of the last step, in nats per token."""
    held_out_loss: float | None
    """Loss of the last evaluation, in nats per token."""
    held_out_bits_per_byte: float | None
    """The same in bits per byte, which is comparable between tokenizers."""

    @property
    def state(self) -> str:
        """Whether the run has reached its last step, and otherwise how far it is."""
        if self.tokens >= self.tokens_planned:
            return "finished" if (self.directory / "model").is_dir() else "last step done"
        if not self.tokens and (self.directory / "model").is_dir():
            return "metrics lost"
        return f"{self.tokens / max(1, self.tokens_planned):.0%}"


def find_runs(folders: list[Path]) -> list[RunSummary]:
    """The runs in some folders, each a run's own or one that holds runs, by name. One that cannot be read, among
    others, is said.

    Raises FileNotFoundError if a folder does not exist or holds no run; ValueError if none of its runs can be read.
    """
    found = list[RunSummary]()
    for folder in folders:
        recipes = sorted([*folder.glob("recipe.toml"), *folder.glob("*/recipe.toml")])
        runs = [path.parent for path in recipes if is_run(path.parent)]  # a corpus has a recipe, too
        if not runs:
            raise FileNotFoundError(f"no runs in {folder}; bluejay train makes them in the folder runs/")
        here, wrong = list[RunSummary](), list[ValueError]()
        for run in runs:
            try:
                here.append(read_run(run))
            except ValueError as error:
                wrong.append(error)
        if not here:
            raise wrong[0]
        for error in wrong:
            say(f"WARNING: {error}; this run is left out")
        found += here
    return found


def read_run(directory: Path) -> RunSummary:
    """Read the recipe and the metrics of a run. Raises FileNotFoundError if there is no recipe in the folder,
    ValueError if it is not one of a run."""
    path = directory / "recipe.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        planned, batch = (int(values["train"][name]) for name in ("tokens", "batch_tokens"))
    except (FileNotFoundError, NotADirectoryError):
        why = "it is a file" if directory.is_file() else "it holds no recipe.toml"
        run = directory.parent if is_run(directory.parent) else "runs/quickstart"
        raise FileNotFoundError(f"{directory} is not the folder of a run: {why}; name one run, such as {run}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not the recipe of a run: {error}") from None
    except (KeyError, TypeError, ValueError):
        what = "train.tokens and train.batch_tokens are not whole numbers"
        raise ValueError(f"{path} is not the recipe of a run: {what}") from None
    rows = read_metrics(directory / "metrics.jsonl")
    steps = [row for row in rows if row.get("tokens_per_second") and row.get("tokens")]
    held_out = [row for row in rows if row.get("valid_loss") is not None]
    return RunSummary(
        directory=directory,
        recipe=flatten(values),
        steps_done=steps[-1]["step"] if steps else 0,
        tokens=steps[-1]["tokens"] if steps else 0,
        tokens_planned=planned,
        seconds=sum((batch / row["tokens_per_second"] for row in steps), 0.0),
        loss=steps[-1].get("loss") if steps else None,
        held_out_loss=held_out[-1]["valid_loss"] if held_out else None,
        held_out_bits_per_byte=held_out[-1].get("valid_bits_per_byte") if held_out else None,
    )


def differences(run: RunSummary, first: RunSummary) -> dict[str, Any]:
    """The keys of a recipe whose values differ from the first run's, with this run's; None for a key that it lacks."""
    keys = [key for key in first.recipe | run.recipe if key not in UNCOMPARED]
    return {key: run.recipe.get(key) for key in keys if run.recipe.get(key) != first.recipe.get(key)}


def table(runs: list[RunSummary]) -> str:
    """The runs as lines of text, best held-out bits per byte first; differences are from the first line's recipe."""
    runs = in_order(runs)
    rows: list[tuple[str, ...]] = [
        ("run", "state", "tokens", "time", "loss", "held out", "bits/byte", "seed", "differs from the first by")
    ]
    for run in runs:
        values = (run.loss, run.held_out_loss, run.held_out_bits_per_byte)
        numbers = ("–" if value is None else f"{value:.3f}" for value in values)
        differ = [
            f"{key} {'(default)' if value is None else value}" for key, value in differences(run, runs[0]).items()
        ]
        more = f", and {len(differ) - SHOWN_DIFFERENCES} more" if len(differ) > SHOWN_DIFFERENCES else ""
        name, seed = run.directory.name, str(run.recipe.get("seed", "–"))
        cells = (name, run.state, f"{run.tokens:,}", format_duration(run.seconds), *numbers, seed)
        rows.append((*cells, ", ".join(differ[:SHOWN_DIFFERENCES]) + more))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def in_order(runs: list[RunSummary]) -> list[RunSummary]:
    """The runs by their held-out bits per byte; those without come last."""
    return sorted(runs, key=lambda run: (run.held_out_bits_per_byte is None, run.held_out_bits_per_byte, run.directory))


def as_dict(runs: list[RunSummary]) -> dict[str, Any]:
    """The runs as JSON types."""
    runs = in_order(runs)
    names = ("steps_done", "tokens", "tokens_planned", "seconds", "loss", "held_out_loss", "held_out_bits_per_byte")
    return {
        "runs": [
            {"directory": str(run.directory), "state": run.state}
            | {name: getattr(run, name) for name in names}
            | {"differences": differences(run, runs[0])}
            for run in runs
        ]
    }


def draw_runs(runs: list[RunSummary], path: Path) -> None:
    """Plot the held-out loss of each run over its tokens, or the training loss of a run without evaluations."""
    lines = {}
    for run in in_order(runs):
        rows = read_metrics(run.directory / "metrics.jsonl")
        key = "valid_bits_per_byte" if any("valid_bits_per_byte" in row for row in rows) else "bits_per_byte"
        style = "o-" if key.startswith("valid") else "-"
        lines[run.directory.name] = ([row for row in rows if row.get(key) is not None], key, style)
    draw_lines(lines, "runs", "bits per byte, held out (dots) or in training", path)
