"""Work that is done once: a task fills a directory that is named by a hash of all that decides what it holds.

A task whose directory is there is done. So a build that was killed goes on where it was, and of a recipe that was
changed only that is done again which the change touches.

STAGES/NAME/KEY/    what the task wrote, and counts.json
"""

import fcntl
import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bluejay.files import TEMPORARY, sync
from bluejay.pile.pipeline.executor import Engine
from bluejay.progress import progress

VERSION = 1
"""Raised when a stage writes something else from the same input, so that nothing older is taken for it."""
COUNTS = "counts.json"
SMALL = 32_000_000
"""Bytes that are not worth starting workers for."""


@runtime_checkable
class Argument(Protocol):
    """What a stage's function works on."""

    def decisive(self) -> list[Any]:
        """What the result follows from, as JSON's types."""
        ...


@dataclass(frozen=True)
class Task:
    """One call of a stage's function, `function(argument, directory)`, which fills the directory and gives counts."""

    stages: Path
    name: str
    """Of the stage."""
    function: Callable[[Any, Path], dict[str, Any]]
    argument: Argument

    @cached_property
    def directory(self) -> Path:
        """Where its results are, once it is done."""
        return self.stages / self.name / key_of(self.name, *self.argument.decisive())

    @property
    def done(self) -> bool:
        """Whether the directory is there, which is renamed to its name when it is whole."""
        return self.directory.exists()

    def counts(self) -> dict[str, Any]:
        """What the function returned."""
        return json.loads((self.directory / COUNTS).read_text(encoding="utf-8"))


def key_of(*decisive: Any) -> str:
    """A name for what follows from plain values."""
    return hashlib.sha256(json.dumps([VERSION, *decisive], sort_keys=True).encode()).hexdigest()[:24]


def finish(engine: Engine, label: str, chains: Sequence[Sequence[Task]], sizes: Sequence[int]) -> None:
    """Do what is not done of some chains of tasks, each of which needs the one before it; `sizes` are for the bar.

    Small work is done in this process: workers take a second to start.
    """
    missing = [number for number, chain in enumerate(chains) if not all(task.done for task in chain)]
    left = sum(sizes[number] for number in missing)
    if not missing:
        return
    here = engine if engine.kind == "ray" or left > SMALL else Engine()
    with progress(label, sum(sizes), "B", sum(sizes) - left) as bar:
        for number, _ in here.run(fill_chain, [chains[number] for number in missing]):
            bar.advance(sizes[missing[number]])


def fill_chain(chain: Sequence[Task]) -> None:
    """Do the tasks of a chain that are not done."""
    for task in chain:
        if not task.done:
            fill(task)


def fill(task: Task) -> None:
    """Run a task in a directory of its own, and give that its name.

    The temporary name is nobody else's: a worker that outlives a killed build may still be at the same task.
    """
    temporary = task.directory.with_name(f"{task.directory.name}.{uuid.uuid4().hex}{TEMPORARY}")
    temporary.mkdir(parents=True)
    try:
        counts = task.function(task.argument, temporary)
        (temporary / COUNTS).write_text(json.dumps(counts), encoding="utf-8")
        for file in temporary.iterdir():
            sync(file)
        temporary.rename(task.directory)
    except OSError:
        if not task.done:  # else the other was first, and wrote the same
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(stages: Path) -> Generator[None]:
    """Hold a build's stages against another build of the same corpus. Raises ValueError: there is one."""
    stages.mkdir(parents=True, exist_ok=True)
    with (stages / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"another build works in {stages}; wait for it, or set output to another folder") from None
        yield


def sweep(stages: Path, used: set[Path]) -> None:
    """Remove what no task of the build that has just ended stands for: older recipes' work, and killed tasks'."""
    for directory in stages.glob("*/*"):
        if directory not in used:
            shutil.rmtree(directory, ignore_errors=True)
