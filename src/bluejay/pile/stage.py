"""Work that is done once: a task fills a directory that is named by a hash of all that decides what it holds.

A task whose directory is there is done. So a build that was killed goes on where it was, and of a recipe that was
changed only that is done again which the change touches.

STAGES/NAME/KEY/    what the task wrote, and counts.json
"""

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bluejay.files import TEMPORARY, sync
from bluejay.pile.engine import Engine
from bluejay.progress import progress

VERSION = 1
"""Raised when a stage writes something else from the same input, so that nothing older is taken for it."""
COUNTS = "counts.json"


@dataclass(frozen=True)
class Task:
    """What one call of a stage's function works on."""

    directory: Path
    """Where its results are, once it is done."""
    argument: Any
    """What the function is given, beside a directory to fill."""
    size: int
    """Bytes that it reads, about; for the bar."""

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


def finish(
    engine: Engine, label: str, function: Callable[[Any, Path], dict[str, Any]], tasks: Sequence[Task]
) -> list[dict[str, Any]]:
    """Do the tasks that are not done: `function(argument, directory)`. Gives the counts of all, in their order."""
    missing = [task for task in tasks if not task.done]
    total, done = sum(task.size for task in tasks), sum(task.size for task in tasks if task.done)
    if missing:
        with progress(label, total, "B", done) as bar:
            for number, _ in engine.run(partial(fill, function), missing):
                bar.advance(missing[number].size)
    return [task.counts() for task in tasks]


def fill(function: Callable[[Any, Path], dict[str, Any]], task: Task) -> None:
    """Run a task in a directory of its own, and give that its name.

    The temporary name is nobody else's: a worker that outlives a killed build may still be at the same task.
    """
    temporary = task.directory.with_name(f"{task.directory.name}.{uuid.uuid4().hex}{TEMPORARY}")
    temporary.mkdir(parents=True)
    try:
        counts = function(task.argument, temporary)
        (temporary / COUNTS).write_text(json.dumps(counts), encoding="utf-8")
        for file in temporary.iterdir():
            sync(file)
        if not task.done:
            os.rename(temporary, task.directory)  # noqa: PTH104 - fails where the other was first, as it should
    except OSError:
        if not task.done:
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
