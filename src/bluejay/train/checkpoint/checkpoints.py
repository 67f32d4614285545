"""Checkpoints in the format of PyTorch Distributed Checkpoint (DCP), with safetensors so that no pickle is read.

A checkpoint is a directory `step-N`. Every process writes its part of the tensors and the SHA-256 of its files; when
all are done, the first process writes the marker, `state.json`. A directory without a marker is not a checkpoint.
Tensors are copied first and written in the background while training continues. They are stored under the names that
they have in a single process, whole or in parts, so any number of processes on any mesh can read them.

With object storage each process copies its files there as they are written, and the marker is copied last. A host gets
from there what its disk lacks, so the hosts need no common disk.
"""

import os
import time
import warnings
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar, cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from bluejay import recipe as recipes
from bluejay.files import naming, set_aside, sha256_of
from bluejay.progress import say
from bluejay.storage import Storage
from bluejay.train.checkpoint.state import (
    MARKER,
    DamagedCheckpoint,
    State,
    find_checkpoints,
    is_checkpoint_name,
    parse_marker,
    read_marker,
    step_of,
)
from bluejay.train.checkpoint.writer import Writer, remove
from bluejay.train.recipe import Checkpoint, TrainRecipe

T = TypeVar("T")


class Checkpoints:
    """The checkpoints of a run. Every process must create one, after the process group, and make the same calls."""

    def __init__(self, directory: Path, settings: Checkpoint, cooldown: int | None = None) -> None:
        """`cooldown` is the step after which the learning rate falls; a run continues best from its checkpoint."""
        self.directory, self.settings, self.cooldown = directory, settings, cooldown
        # Groups of their own, because saving communicates in the background while training does, and while this does.
        self.group, self.saving = (
            cast(dist.ProcessGroup, dist.new_group(backend="gloo")) if dist.is_initialized() else None for _ in range(2)
        )
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if self.group else (0, 1)
        # Memory from which a GPU copies without its driver's help is slow to get, so it is kept for the whole run.
        pinned = StagingOptions(use_shared_memory=False, use_async_staging=False)
        self.stager = DefaultStager(pinned) if torch.cuda.is_available() else None
        self.writing: tuple[Path, Future[Metadata]] | None = None
        self.saved = time.monotonic()
        self.permanent: set[Path] = set()
        """Checkpoints that are known to have been written as permanent ones."""
        self.storage = Storage(settings.storage) if settings.storage else None
        local, count = (int(os.environ.get(*name)) for name in (("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1")))
        self.is_first_here = local == 0
        # With object storage each host has its own copy of a checkpoint, all of which its processes check.
        self.checks = slice(local, None, count) if self.storage else slice(self.rank, None, self.size)
        if self.storage:
            self.everywhere(self.storage.check)

    def newest(self, until: int | None = None, permanent: bool = False) -> tuple[Path, State] | None:
        """The newest intact checkpoint of at most step `until`, or the newest permanent one, and its state; or None.

        Damaged checkpoints are renamed, with a warning, and skipped. Raises ValueError if all are damaged.
        """
        found = self.found()
        early = [path for path in found if until is None or step_of(path) <= until]
        early = [path for path in early if not permanent or self.is_permanent(path)]
        paths = self.gather(early)[0]
        problems = {}
        for path in reversed(paths):
            try:
                state = self.read(path)
            except DamagedCheckpoint as damage:
                problems[path] = damage
                continue
            for bad, problem in problems.items():
                if self.rank == 0:
                    renamed = set_aside(bad, "damaged")
                    say(f"WARNING: {problem}; renamed to {renamed.name}, the run resumes from {path.name}")
            return path, state
        for problem in problems.values():
            raise ValueError(f"{problem}, and there is no older checkpoint; remove {self.directory} to start again")
        return None

    def at(self, step: int) -> tuple[Path, State]:
        """The checkpoint of a step and its state. Raises ValueError if there is none or it is damaged."""
        path = self.directory / f"step-{step}"
        found = [step_of(path) for path in self.found()]
        if step not in found:
            others = ", ".join(map(str, found)) or "none"
            raise ValueError(f"{self.directory} has no checkpoint of step {step}; it has {others}")
        try:
            return path, self.read(path)
        except DamagedCheckpoint as damage:
            raise ValueError(str(damage)) from None

    def marker(self, step: int) -> str:
        """SHA-256 of the marker of a checkpoint, which holds those of all its files. Only the first process has it."""
        return "" if self.rank else sha256_of(self.directory / f"step-{step}" / MARKER)

    def found(self) -> list[Path]:
        """The finished checkpoints on this disk and in object storage, oldest first."""
        steps = {step_of(path) for path in find_checkpoints(self.directory)}
        names = self.storage.files() if self.storage and self.rank == 0 else ()
        stored = (Path(name).parent for name in names if name.endswith(f"/{MARKER}"))
        steps |= {step_of(path) for path in stored if is_checkpoint_name(path)}
        return [self.directory / f"step-{step}" for step in sorted(steps)]

    def fetch(self, path: Path) -> None:
        """Copy a checkpoint from object storage to the disks that lack it or a part of it: that of the first process,
        then those of others, which may be the same."""
        if (storage := self.storage) is None:
            return

        def copy() -> None:
            if not is_whole(path) and storage.exists(f"{path.name}/{MARKER}"):
                storage.get_directory(path.name, path)

        self.everywhere(copy, self.rank == 0)
        self.everywhere(copy, self.is_first_here)

    def everywhere(self, act: Callable[[], None], here: bool = True) -> None:
        """Let every process act, or those that say `here`; what one of them raises, an OSError, all do."""
        problem = None
        try:
            if here:
                act()
        except OSError as error:
            problem = error
        for found in self.gather(problem):
            if found is not None:
                raise found

    def read(self, path: Path) -> State:
        """The state of a checkpoint whose files have their checksums; else every process raises DamagedCheckpoint. What
        a disk lacks is fetched first, and what is damaged on it is fetched again, if object storage has it."""
        self.fetch(path)
        answers = self.gather(here := self.checked(path))
        if self.storage and any(isinstance(answer, DamagedCheckpoint) for answer in answers):
            self.everywhere(lambda: self.discard(path, here), isinstance(here, DamagedCheckpoint))
            self.fetch(path)
            answers = self.gather(self.checked(path))
        for answer in answers:
            if isinstance(answer, DamagedCheckpoint):
                raise answer
        return cast(State, answers[0])

    def checked(self, path: Path) -> State | DamagedCheckpoint:
        """The state of a checkpoint, or what is wrong with those of its files that this process compares with their
        checksums."""
        try:
            state, files = read_marker(path)
        except DamagedCheckpoint as damage:
            return damage
        for name in sorted(files)[self.checks]:
            if not (path / name).is_file():
                return DamagedCheckpoint(f"{path / name} is missing")
            if sha256_of(path / name) != files[name]:
                return DamagedCheckpoint(f"{path / name} does not have the checksum it was written with")
        return state

    def discard(self, path: Path, damage: object) -> None:
        """Set a damaged checkpoint aside, unless another process has done so or object storage does not have it."""
        if self.storage and self.storage.exists(f"{path.name}/{MARKER}"):
            with suppress(FileNotFoundError):
                renamed = set_aside(path, "damaged")
                say(f"WARNING: {damage}; renamed to {renamed.name}, and fetched again from {self.storage.address}")

    def load(self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Load the tensors of a checkpoint into a model and its optimizer, in place."""
        with without_process_group_warning():
            reader = HuggingFaceStorageReader(str(path))
            for name, stored in reader.read_metadata().state_dict_metadata.items():
                allocate_state(name, cast(TensorStorageMetadata, stored), model, optimizer)
            dcp.load(named_tensors(model, optimizer), storage_reader=reader, process_group=self.group)

    def save(self, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Copy the tensors and write them in the background, after waiting for the checkpoint before.

        An error in the background is raised by the next `wait` or `save`.
        """
        self.wait()
        path = self.directory / f"step-{state.step}"
        written = dcp.async_save(
            named_tensors(model, optimizer),
            storage_writer=Writer(path, state, self.storage),
            process_group=self.saving,
            async_stager=self.stager,
        )
        self.writing = path, cast(Future[Metadata], written)
        self.saved = time.monotonic()

    def wait(self) -> None:
        """Wait until the checkpoint is written, then remove old ones. Raises OSError if the disk is full; the older
        checkpoints then remain."""
        if self.writing is None:
            return
        (path, written), self.writing = self.writing, None
        try:
            written.result()
        except CheckpointException as failed:
            if self.rank == 0:
                remove(path)
            cause, _ = next(iter(failed.failures.values()))
            with naming(path):
                raise cause from None
        if self.rank == 0:
            for older in self.found()[:-2]:
                if not self.is_permanent(older):
                    remove(older, self.storage)
        elif self.storage and self.is_first_here:  # the marker of what this disk has may be on another one
            mine = sorted(filter(is_checkpoint_name, self.directory.glob("step-*")), key=step_of)
            for older in mine[:-2]:
                remove(older)

    @property
    def failed(self) -> bool:
        """Whether writing in the background has failed."""
        return self.writing is not None and self.writing[1].done() and self.writing[1].exception() is not None

    @property
    def overdue(self) -> bool:
        """Whether the time has passed after which the recipe asks for a checkpoint."""
        return (time.monotonic() - self.saved) / 60 >= self.settings.every_minutes

    def remove_stale(self, step: int) -> None:
        """Remove unfinished checkpoints and those after `step`, which the run will repeat. What has the name of a
        checkpoint and is no folder is renamed."""
        if self.rank == 0:
            for path in filter(is_checkpoint_name, list(self.directory.glob("step-*"))):
                if not path.is_dir():
                    say(f"WARNING: {path} is not a checkpoint; renamed to {set_aside(path, 'other').name}")
                elif step_of(path) > step or not (path / MARKER).is_file():
                    remove(path)
            for path in self.found():
                if step_of(path) > step:
                    remove(path, self.storage)

    def is_permanent(self, path: Path) -> bool:
        """Whether a checkpoint is never removed: by the recipe of the run, or by that which it was written under."""
        if self.keeps(step_of(path)) or path in self.permanent:
            return True
        if self.was_permanent(path):
            self.permanent.add(path)  # so that its marker is read once
        return path in self.permanent

    def was_permanent(self, path: Path) -> bool:
        """Whether a checkpoint was permanent when it was written; not if its marker is damaged."""
        try:
            if self.storage and not (path / MARKER).is_file():
                text = self.storage.read(f"{path.name}/{MARKER}").decode()
            else:
                text = (path / MARKER).read_text(encoding="utf-8")
            recipe = recipes.check(TrainRecipe, parse_marker(text, path / MARKER)[0].recipe, str(path))
        except (DamagedCheckpoint, FileNotFoundError, ValueError):
            return False
        return is_kept(step_of(path), recipe.checkpoint, recipe.cooldown_step)

    def keeps(self, step: int) -> bool:
        """Whether the checkpoint of a step is permanent."""
        return is_kept(step, self.settings, self.cooldown)

    def gather(self, value: T) -> list[T]:
        """All-gather: the values of all processes, by rank."""
        if self.group is None:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return cast(list[T], values)


def named_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """All tensors that training changes, by name; they share memory with the model and the optimizer."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    named = {f"model.{name}": parameter.data for name, parameter in trained.items()}
    for name, parameter in trained.items():
        for key, value in optimizer.state[parameter].items():
            named[f"optimizer.{key}.{name}"] = value
    return named


def allocate_state(
    name: str, stored: TensorStorageMetadata, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Allocate the optimizer-state tensor that a stored one will be loaded into, distributed like its parameter."""
    kind, _, rest = name.partition(".")
    key, _, parameter_name = rest.partition(".")
    parameter = dict(model.named_parameters()).get(parameter_name) if kind == "optimizer" else None
    if parameter is not None:
        dtype = stored.properties.dtype
        is_full = stored.size == parameter.shape
        state = torch.zeros_like(parameter, dtype=dtype) if is_full else torch.zeros(stored.size, dtype=dtype)
        optimizer.state[parameter][key] = state.to(parameter.device)


def is_kept(step: int, settings: Checkpoint, cooldown: int | None) -> bool:
    """Whether the checkpoint of a step is permanent."""
    return step % settings.every_steps == 0 or step == cooldown


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is here with all its files, whatever is in them."""
    try:
        return all((path / name).is_file() for name in read_marker(path)[1])
    except (DamagedCheckpoint, OSError):
        return False


@contextmanager
def without_process_group_warning() -> Generator[None]:
    """Suppress DCP's warning that there is no process group; a single process needs none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
