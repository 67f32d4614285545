"""Where a run stands, and the marker that makes a directory a checkpoint."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bluejay import recipe as recipes
from bluejay.files import sync, write_text
from bluejay.recipe import STRICT
from bluejay.train.recipe import TrainRecipe

MARKER = "state.json"
WITHOUT_CHECKSUMS = {"step", "recipe", "tokenizer", "precision", "seconds"}
"""What the marker of a checkpoint held before there were checksums."""


@dataclass(frozen=True)
class State:
    """Where a run stands, but for its tensors."""

    __pydantic_config__ = STRICT
    step: int
    """Steps done, skipped ones included."""
    recipe: dict[str, Any]
    """What decides the weights (`TrainRecipe.same_run`)."""
    tokenizer: str
    """Hash of the tokenizer that the shards were made with."""
    precision: str
    """Type of the matrix products; a run keeps the one it began with."""
    seconds: float
    """Time spent training so far."""
    batches_skipped: int = 0
    """Batches passed over when the run went back; the next batch is number `step + batches_skipped`."""
    skipped: int = 0
    """Steps that did not change the weights,"""
    consecutive_skips: int = 0
    """and how many of them were the last ones, without a break."""
    recent: tuple[tuple[float, float], ...] = ()
    """Loss and gradient norm of the last steps that did (`bluejay.train.spikes`)."""


class DamagedCheckpoint(Exception):
    """A checkpoint is not what was written."""


def write_marker(directory: Path, state: State, files: dict[str, str]) -> None:
    """Turn a directory into a checkpoint. `files` gives the sha256 of each file in it; the marker has its own."""
    write_text(directory / MARKER, rendered(asdict(state) | {"files": files}))
    sync(directory)


def read_marker(directory: Path) -> tuple[State, dict[str, str] | None]:
    """What `write_marker` wrote; None in place of the files where a version without checksums did.

    Raises DamagedCheckpoint where it was changed since.
    """
    path = directory / MARKER
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text)
        old = set(values) == WITHOUT_CHECKSUMS
        if not old and (values.pop("sha256", None) is None or rendered(values) != text):
            raise DamagedCheckpoint(f"{path} does not have the checksum it was written with")
        files = None if old else values.pop("files")
        return recipes.check(State, values, str(path)), files
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint(f"{path} is not what was written: {error}") from None


def rendered(values: dict[str, Any]) -> str:
    """A marker's text, with the checksum of its values."""
    digest = hashlib.sha256(json.dumps(values).encode()).hexdigest()
    return json.dumps(values | {"sha256": digest}, indent=2) + "\n"


def check_same_run(saved: State, wanted: State, directory: Path) -> None:
    """Raise ValueError, naming the first difference, where the saved state is not of the run that is wanted.

    Fields that the recipe has got since then count as their defaults.
    """
    old = flat(recipes.check(TrainRecipe, saved.recipe, f"{directory} holds a run of another version").same_run())
    new = flat(wanted.recipe)
    key = next((key for key in old | new if old.get(key) != new.get(key)), None)
    if key is not None:
        raise ValueError(
            f"{directory} holds a run with {key} {old.get(key)}, not {new.get(key)}; "
            "give the new run another folder with --output, or remove that one"
        )
    if saved.tokenizer != wanted.tokenizer:
        raise ValueError(f"{directory} holds a run with another tokenizer; its corpus was built anew since")


def flat(values: object, prefix: str = "") -> dict[str, object]:
    """Nested dictionaries and lists as one dictionary with dotted keys; tuples and lists are alike."""
    if isinstance(values, dict):
        items = values.items()
    elif isinstance(values, (list, tuple)):
        items = enumerate(values)
    else:
        return {prefix: values}
    return {k: v for name, item in items for k, v in flat(item, f"{prefix}.{name}".lstrip(".")).items()}
