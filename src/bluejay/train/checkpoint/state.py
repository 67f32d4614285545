"""The state of a run other than its tensors, and the marker file that makes a directory a checkpoint."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bluejay import recipe as recipes
from bluejay.files import parse_json, sync, write_text
from bluejay.recipe import STRICT
from bluejay.train.recipe import TrainRecipe, is_examples

MARKER = "state.json"
"""Name of the marker file."""


@dataclass(frozen=True)
class State:
    """The state of a run, without its tensors."""

    __pydantic_config__ = STRICT
    step: int
    """Steps done, including skipped ones."""
    recipe: dict[str, Any]
    """The recipe; the part of it that determines the weights (`TrainRecipe.same_run`) is that of all checkpoints."""
    tokenizer: str
    """SHA-256 of the tokenizer that the shards were made with."""
    precision: str
    """Data type of matrix products; a run keeps the one that it started with."""
    seconds: float
    """Seconds spent training so far."""
    batches_skipped: int = 0
    """Batches skipped by rollbacks; the next batch is number `step + batches_skipped`."""
    skipped: int = 0
    """Steps whose gradient was not applied."""
    consecutive_skips: int = 0
    """Skipped steps since the last step whose gradient was applied."""
    recent: tuple[tuple[float, float], ...] = ()
    """Loss and gradient norm of the last steps that were not skipped (`bluejay.train.step`)."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Hash of the content of each input: the sets of `data.train`, and `init`. Empty in runs that older versions
    began."""


class DamagedCheckpoint(Exception):
    """A checkpoint differs from what was written."""


def write_marker(directory: Path, state: State, files: dict[str, str]) -> None:
    """Turn a directory into a checkpoint. `files` maps each file to its SHA-256; the marker also contains its own."""
    write_text(directory / MARKER, render_marker(asdict(state) | {"files": files}))
    sync(directory)


def read_marker(directory: Path) -> tuple[State, dict[str, str]]:
    """The state and checksums that `write_marker` wrote. Raises DamagedCheckpoint if the file was changed since."""
    path = directory / MARKER
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DamagedCheckpoint(f"{path} is damaged: {error}") from None
    return parse_marker(text, path)


def parse_marker(text: str, path: Path) -> tuple[State, dict[str, str]]:
    """The state and checksums in the text of a marker. Raises DamagedCheckpoint, naming its path, if it was changed."""
    try:
        values = parse_json(text)
        if values.pop("sha256", None) is None or render_marker(values) != text:
            raise DamagedCheckpoint(f"{path} does not have the checksum it was written with")
        files = values.pop("files")
        return recipes.check(State, values, str(path)), files
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint(f"{path} is damaged: {error}") from None


def render_marker(values: dict[str, Any]) -> str:
    """The text of a marker, including the checksum of its values."""
    digest = hashlib.sha256(json.dumps(values).encode()).hexdigest()
    return json.dumps(values | {"sha256": digest}, indent=2) + "\n"


def find_checkpoints(directory: Path) -> list[Path]:
    """The finished checkpoints in a directory, oldest first."""
    found = [path for path in directory.glob("step-*") if is_checkpoint_name(path) and (path / MARKER).is_file()]
    return sorted(found, key=step_of)


def is_checkpoint_name(path: Path) -> bool:
    """Whether a directory's name is that of a checkpoint."""
    return path.name.removeprefix("step-").isdecimal()


def step_of(path: Path) -> int:
    """The step of a checkpoint."""
    return int(path.name.removeprefix("step-"))


def check_same_run(saved: State, wanted: State, directory: Path) -> None:
    """Raise ValueError, naming the first difference, if the saved state belongs to another run than the wanted one.

    Recipe fields that were added since count as their defaults. A run may continue with more steps, and then under
    another schedule; tokens that round up to the same steps are no difference.
    """
    before, now = (
        recipes.check(TrainRecipe, state.recipe, f"{directory} holds a run of another version")
        for state in (saved, wanted)
    )
    old, new = flatten(before.same_run()), flatten(now.same_run())
    differ = [key for key in old | new if old.get(key) != new.get(key)]
    if before.steps == now.steps:
        differ = [key for key in differ if key != "train.tokens"]
    elif "train.tokens" in differ and now.steps > before.steps:
        if any(".changes." in key for key in old):
            raise ValueError(
                f"{directory} holds a run whose data.train changes at fractions of its {old['train.tokens']:,} tokens, "
                "so it cannot continue with more; give the new run another directory with --output, and init"
            )
        differ = [key for key in differ if not key.startswith(("train.tokens", "train.schedule."))]
    key = next(iter(differ), None)
    advice = "give the new run another directory with --output, or remove that one"
    if key == "train.tokens" and now.steps < before.steps:
        raise ValueError(
            f"{directory} holds a run of {before.steps:,} steps, which may get more, but not fewer, such as "
            f"{now.steps:,}; the same command with --export N writes the model after step N, if that has a checkpoint"
        )
    if key is not None:
        raise ValueError(f"{directory} holds a run {difference(key, old.get(key), new.get(key))}; {advice}")
    if saved.tokenizer != wanted.tokenizer:
        raise ValueError(f"{directory} holds a run with another tokenizer; its corpus was built anew since")
    changed = next((name for name in saved.inputs if saved.inputs[name] != wanted.inputs.get(name)), None)
    examples = changed == "data.train.0" and is_examples(now.data.train[0].names[0])
    if examples and (before.data.valid is None) != (now.data.valid is None):
        was = "without" if before.data.valid is None else "with"
        raise ValueError(
            f"{directory} holds a run {was} data.valid, without which one example in twenty is held out and not "
            f"trained on; go on {was} it, or {advice}"
        )
    if changed is not None:
        raise ValueError(f"{directory} holds a run whose {changed} had another content; it was changed since; {advice}")


def difference(key: str, before: object, now: object) -> str:
    """How a field of a run differs from that of a recipe, as the end of a sentence; None stands for a field that is not
    given."""
    if before is None:
        return f"without {key}, not with {recipes.as_json(now)}"
    return f"with {key} {recipes.as_json(before)}, not {'without' if now is None else recipes.as_json(now)}"


def flatten(values: object, prefix: str = "") -> dict[str, object]:
    """Nested dictionaries, lists and tuples as one dictionary with dotted keys."""
    if isinstance(values, dict):
        items = values.items()
    elif isinstance(values, (list, tuple)):
        items = enumerate(values)
    else:
        return {prefix: values}
    return {k: v for name, item in items for k, v in flatten(item, f"{prefix}.{name}".lstrip(".")).items()}
