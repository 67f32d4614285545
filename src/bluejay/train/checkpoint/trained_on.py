"""What a model was trained on, in a file of its directory: enough to find the data again where only the model was
copied, and to say at which steps each of its sequences was read."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bluejay import recipe as recipes
from bluejay.files import parse_json
from bluejay.gpt.formats.companions import TRAINED_ON
from bluejay.recipe import STRICT
from bluejay.train.checkpoint.state import DamagedCheckpoint, State, find_checkpoints, read_marker
from bluejay.train.recipe import TrainRecipe


@dataclass(frozen=True)
class TrainedOn:
    """What a model was trained on."""

    __pydantic_config__ = STRICT
    step: int
    """Steps done."""
    recipe: dict[str, Any]
    tokenizer: str
    """SHA-256 of the tokenizer."""
    inputs: dict[str, str]
    """Hash of the content of each input (`State.inputs`)."""
    jumps: tuple[tuple[int, int], ...]
    """For each checkpoint its step, and the batches that rollbacks had jumped over until then."""
    base: dict[str, Any] | None = field(default=None)
    """The same of the model that the run began from, if that is known."""


def trained_on(checkpoints: Path, state: State, files: Mapping[str, bytes]) -> bytes:
    """The file for a model of this state; `files` are those that the model which the run began from has."""
    before = {one.step: one.batches_skipped for one in read_states(checkpoints) if one.step < state.step}
    jumps = sorted((before | {state.step: state.batches_skipped}).items())
    base = None
    with contextlib.suppress(ValueError):  # a base whose file is damaged is one of which nothing is known
        base = parse_json(files.get(TRAINED_ON, b"null"))
    values = {"step": state.step, "recipe": state.recipe, "tokenizer": state.tokenizer, "inputs": state.inputs}
    return (json.dumps({**values, "jumps": jumps, "base": base}, indent=2) + "\n").encode()


def read_trained_on(model: Path) -> TrainedOn | None:
    """What the file of a model says; None if it has none. Raises ValueError: it is damaged or of another version."""
    path = model / TRAINED_ON
    if not path.is_file():
        return None
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return recipes.check(TrainedOn, values, str(path))


def is_model_of(model: Path, state: State) -> bool:
    """Whether a model says that it was written at this state of a run."""
    try:
        known = read_trained_on(model)
        if known is None:
            return False
        both = [recipes.check(TrainRecipe, one.recipe, str(model)).same_run() for one in (known, state)]
    except ValueError:
        return False
    return both[0] == both[1] and (known.step, known.inputs) == (state.step, state.inputs)


def read_states(directory: Path) -> list[State]:
    """The states of all checkpoints in a folder, oldest first, without those that are damaged, or that a run removes
    meanwhile."""
    found = []
    for path in find_checkpoints(directory):
        with contextlib.suppress(DamagedCheckpoint, FileNotFoundError):
            found.append(read_marker(path)[0])
    return found
