"""Tasks that run once: a step fills a directory that is named by a hash of everything its output depends on.

A task whose directory exists is done. So a build that was killed continues where it stopped, and after a change of the
recipe only the steps that the change affects run again.

STAGES/STEP/KEY/    the output of the step, and counts.json

A build with object storage has the outputs there, and its tasks need no common disk: each copies what it reads and what
it wrote.
"""

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from filelock import FileLock, Timeout

from bluejay.files import TEMPORARY, naming, sync
from bluejay.storage import COPIES, Storage, ensure_local, mirror

VERSION = 15
"""Raised when a step writes something else from the same input, so that no older output is used in its place."""
COUNTS = "counts.json"
"""The file with a step's counts, in the directory of its output."""
KEY_LENGTH = 24
"""Digits of the name of an output."""
OUTPUT = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}(?:\.[0-9a-f]+{re.escape(TEMPORARY)})?\Z")
"""The name of an output, or of one that a killed task began."""


@runtime_checkable
class Step(Protocol):
    """A pure function from files to a directory; `bluejay.pile.steps` holds all of them, as frozen dataclasses.

    It reads each file by `ensure_local`, because the outputs of other steps may be on another disk.
    """

    name: ClassVar[str]

    def key(self) -> list[Any]:
        """Everything that the output depends on, as JSON types; inputs are given by hashes or by hashed names."""
        ...

    def run(self, out: Path) -> dict[str, Any]:
        """Fill the empty directory `out`; gives counts, as JSON types."""
        ...


@dataclass(frozen=True)
class Task:
    """A step, and the directory of its output."""

    stages: Path
    """The directory of all outputs of a build."""
    step: Step
    storage: Storage | None = None
    """Where the outputs are, if not only on this disk."""

    @cached_property
    def directory(self) -> Path:
        """The directory of the output, which exists once the task is done."""
        key = json.dumps([VERSION, self.step.name, *self.step.key()], sort_keys=True)
        return self.stages / self.step.name / hashlib.sha256(key.encode()).hexdigest()[:KEY_LENGTH]

    @property
    def subject(self) -> str:
        """What distinguishes the task from others of its step, for the user."""
        values = [(name, value) for name, value in vars(self.step).items() if isinstance(value, (int, str))]
        part = getattr(self.step, "part", None)
        details = [str(part)] if part else [f"{name} {value}" for name, value in values] or [self.directory.name]
        return ", ".join(details)

    @property
    def done(self) -> bool:
        """Whether the output is complete: the directory gets its name only then, and `counts.json` is copied last."""
        return self.storage.exists(f"{self.place}/{COUNTS}") if self.storage else self.directory.exists()

    @property
    def place(self) -> str:
        """The directory below that of all outputs, STEP/KEY."""
        return self.directory.relative_to(self.stages).as_posix()

    @property
    def counts(self) -> dict[str, Any]:
        """The counts that the step gave."""
        return json.loads(ensure_local(self.directory / COUNTS).read_text(encoding="utf-8"))

    def run(self) -> None:
        """Run the step, unless only its output was not copied yet, and copy that."""
        if self.storage:
            mirror(self.stages, self.storage)
        if not self.directory.exists():
            with naming(self.directory):
                self.fill()
        if self.storage:
            self.storage.put_directory(self.directory, self.place, COUNTS)

    def fill(self) -> None:
        """Run the step in a temporary directory, and rename that.

        The temporary name is unique, because a worker that outlives a killed build may still run the same task.
        """
        temporary = self.directory.with_name(f"{self.directory.name}.{uuid.uuid4().hex}{TEMPORARY}")
        temporary.mkdir(parents=True)
        try:
            counts = self.step.run(temporary)
            (temporary / COUNTS).write_text(json.dumps(counts), encoding="utf-8")
            for file in temporary.iterdir():
                sync(file)
            temporary.rename(self.directory)
        except OSError:
            if not self.directory.exists():  # else another process was first, and wrote the same
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(stages: Path) -> Generator[None]:
    """Hold the lock of a build's stages. Raises ValueError: another build holds it."""
    stages.mkdir(parents=True, exist_ok=True)
    lock = FileLock(stages / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"another build works in {stages}; wait for it, or set output to another folder") from None
    try:
        yield
    finally:
        lock.release()


def remove_unused(stages: Path, used: set[Path], storage: Storage | None = None) -> None:
    """Remove outputs that the finished build did not use: those of older recipes and of killed tasks, and copies. What
    is not named like an output stays: it is somebody else's."""
    for directory in stages.glob("*/*"):
        is_copy = directory.parent.name == COPIES
        if directory not in used and (is_copy or OUTPUT.match(directory.name)):
            shutil.rmtree(directory, ignore_errors=True)
    if storage:
        names = {directory.relative_to(stages).as_posix() for directory in used}
        places = {name: name.split("/") for name in storage.files()}
        unused = [
            name
            for name, (step, *rest) in places.items()
            if len(rest) > 1 and OUTPUT.match(rest[0]) and f"{step}/{rest[0]}" not in names
        ]
        # The marker goes first, so that an output is never taken for a whole one.
        for marks in (True, False):
            storage.delete([name for name in unused if name.endswith(f"/{COUNTS}") == marks])
