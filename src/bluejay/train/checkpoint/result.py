"""The result of a finished run, and which checkpoint its model directory is of."""

import json
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path

from typing_extensions import TypedDict

from bluejay import recipe as recipes
from bluejay.files import parse_json, sha256_of, write_text
from bluejay.recipe import STRICT

RESULT = "result.json"
"""Name of the file in the run's directory."""


class HeldOut(TypedDict):
    """The fields of `HeldOutLoss`."""

    nats_per_token: float
    bits_per_byte: float
    components: dict[str, float]


@dataclass(frozen=True)
class Result:
    """What a run that reached its last step has written."""

    __pydantic_config__ = STRICT
    checkpoint: str
    """SHA-256 of the marker of the checkpoint that the model is of."""
    held_out: HeldOut
    """The loss on the held-out data."""
    held_out_data: str
    """Hash of the held-out data."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file of the model's directories, by its path in the run's directory."""
    machine: str = ""
    """What the last part of the run was computed on."""
    processes: int = 0
    """In how many processes; 0 where a run of an earlier version did not record it."""


def read_result(directory: Path) -> Result | None:
    """The result in a run's directory; None if there is none that can be read."""
    path = directory / RESULT
    try:
        return recipes.check(Result, parse_json(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError, TypeError):
        return None


def write_result(directory: Path, result: Result) -> None:
    """Write the result, after the files that it names."""
    write_text(directory / RESULT, json.dumps(asdict(result), indent=2) + "\n")


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, which may lack some of its files."""
    made = ("metrics.jsonl", "checkpoints", RESULT)
    return (folder / "recipe.toml").is_file() and any((folder / name).exists() for name in made)


def how_to_go_on(run: Path) -> str:
    """The advice to go on with a run, also in a folder that was moved, for a message."""
    return f"{command_of(run)} goes on with it"


def command_of(run: Path) -> str:
    """The command that runs a run, also in a folder that was moved, as a shell takes it."""
    recipe, folder = (shlex.quote(str(path)) for path in (run / "recipe.toml", run))
    return f"bluejay train {recipe} --output {folder}"


def hashes_of(directory: Path, *names: str) -> dict[str, str]:
    """SHA-256 of each file in folders of a directory, by its path in the directory."""
    files = sorted(file for name in names for file in (directory / name).rglob("*") if file.is_file())
    return {file.relative_to(directory).as_posix(): sha256_of(file) for file in files}
