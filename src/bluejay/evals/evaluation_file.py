"""The summary of an evaluation, which a report writes and the page shows where it lies beside the model."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NotRequired

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from bluejay.evals.estimates import Estimate
from bluejay.files import json_of, write_text
from bluejay.gpt.formats.layouts import open_model
from bluejay.gpt.formats.locate import locate
from bluejay.gpt.formats.tensors import tokenizer_of
from bluejay.tokenizer import Tokenizer
from bluejay.train.data.content import hash_of_model

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


class WrittenSummary(Summary):
    """A summary as the file holds it."""

    identities: NotRequired[dict[str, str]]
    """Model -> its identity (`bluejay.evals.scorers.identities`); files of earlier versions have none."""


def write_summary(
    directory: Path,
    date: str,
    command: str,
    figures: Iterable[tuple[str, str, str, Estimate]],
    identities: Mapping[str, str] | None = None,
) -> None:
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
    summary = WrittenSummary(date=date, command=command, figures=listed, identities=dict(identities or {}))
    write_text(directory / NAME, json_of(summary, indent=2) + "\n")


def find_summary(directory: Path | None, model: str) -> Summary | None:
    """The summary that lies in the directory of a model or of its run, with the figures of this model alone; None where
    there is none. Raises ValueError: a file of that name is something else, or its figures are of other weights."""
    if directory is None:
        return None
    older: WrittenSummary | None = None
    around = (directory, directory.parent) if directory.name == "model" else (directory,)
    for path in (folder / below / NAME for folder in around for below in FOLDERS):
        if path.is_file():
            found = read_summary(path)
            figures = [figure for figure in found["figures"] if figure["model"] == model]
            recorded = found.get("identities", {}).get(model)
            if figures and (recorded is None or recorded == identity_now(directory)):
                return Summary(date=found["date"], command=found["command"], figures=figures)
            older = found if figures else older
    if older is not None:
        raise ValueError(f"{NAME} beside the model is of other weights; run `{older['command']}` again")
    return None


def identity_of(name: str, tokenizer: Tokenizer) -> str:
    """A hash of what decides a model's answers: its weights, and how texts become tokens. Raises FileNotFoundError."""
    decided = [hash_of_model(name), tokenizer.sha256, tokenizer.begin, tokenizer.ends, tokenizer.chat_template]
    return hashlib.sha256(json.dumps(decided).encode()).hexdigest()[:16]


def identity_at(path: Path) -> str:
    """The identity of the model in a directory or of a run. Raises FileNotFoundError and ValueError."""
    place = locate(path)
    return identity_of(str(place), tokenizer_of(open_model(place), place))


def identity_now(directory: Path) -> str:
    """The identity of the model in a directory, which is computed anew only where a file has changed; empty where the
    model is there no more."""
    try:
        states = ((file.name, file.stat()) for file in sorted(directory.iterdir()) if file.is_file())
        return identity_of_state(directory, tuple((name, state.st_size, state.st_mtime_ns) for name, state in states))
    except OSError:
        return ""


@lru_cache(maxsize=8)
def identity_of_state(directory: Path, _: tuple[tuple[str, int, int], ...]) -> str:
    """The identity of the model in a directory; kept for as long as its files have this state: name, size and time of
    change of each."""
    return identity_at(directory)


def read_summary(path: Path) -> WrittenSummary:
    """The summary in a file. Raises ValueError: it holds something else."""
    try:
        with path.open("rb") as file:
            return TypeAdapter(WrittenSummary).validate_json(file.read(MOST_BYTES))
    except (OSError, ValidationError):
        raise ValueError(f"{path.name} beside the model cannot be read; bluejay eval --report writes it anew") from None
