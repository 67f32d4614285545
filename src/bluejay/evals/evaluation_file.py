"""The summary of an evaluation, which a report writes and the page shows where it lies beside the model."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from bluejay.evals.estimates import Estimate
from bluejay.files import json_of, write_text

NAME = "evaluation.json"
MOST_BYTES = 1_000_000
"""A larger file was not written by Bluejay."""
FOLDERS = (".", "evaluation", "report")
"""Folders searched for the file, below the directory of the model and that of the run."""


class Figure(TypedDict):
    """The main figure of one task."""

    task: str
    model: str
    """The model's name in the evaluation."""
    title: str
    """What is measured, in words."""
    value: float
    low: float | None
    """The 95 % interval; null where there are too few questions for one."""
    high: float | None
    n: int


class Summary(TypedDict):
    """The main figures of an evaluation."""

    date: str
    command: str
    figures: list[Figure]


def write_summary(directory: Path, date: str, command: str, figures: Iterable[tuple[str, str, str, Estimate]]) -> None:
    """Write the summary of (task, model, title, figure) into the directory of a report."""
    listed = [
        Figure(
            task=task,
            model=model,
            title=title,
            value=one.value,
            low=one.low,
            high=one.high,
            n=one.n,
        )
        for task, model, title, one in figures
        if math.isfinite(one.value)
    ]
    summary: dict[str, Any] = {"date": date, "command": command, "figures": listed}
    write_text(directory / NAME, json_of(summary, indent=2) + "\n")


def find_summary(directory: Path | None, model: str) -> Summary | None:
    """The summary that lies in the directory of a model or of its run, with the figures of this model alone; None where
    there is none. Raises ValueError: a file of that name is something else."""
    if directory is None:
        return None
    around = (directory, directory.parent) if directory.name == "model" else (directory,)
    for path in (folder / below / NAME for folder in around for below in FOLDERS):
        if path.is_file():
            found = read_summary(path)
            figures = [figure for figure in found["figures"] if figure["model"] == model]
            if figures:
                return {**found, "figures": figures}
    return None


def read_summary(path: Path) -> Summary:
    """The summary in a file. Raises ValueError: it holds something else."""
    try:
        with path.open("rb") as file:
            return TypeAdapter(Summary).validate_json(file.read(MOST_BYTES))
    except (OSError, ValidationError):
        raise ValueError(f"{path.name} beside the model cannot be read; bluejay eval --report writes it anew") from None
