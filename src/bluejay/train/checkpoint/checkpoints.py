"""Checkpoints: PyTorch Distributed Checkpoint, its tensors in safetensors so that no pickle is read.

A checkpoint is a directory `step-N`. Every process writes its own part of the tensors and the sha256 of its files; when
all are done the first process writes the marker, `state.json`. A directory without a marker is none. The tensors
are copied first and written in the background while training goes on. They are stored under the names that one
process gives them, whole or in parts, so any number of processes on any mesh can read them.
"""

import dataclasses
import shutil
import time
import warnings
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import WriteResult

from bluejay.files import sha256_of
from bluejay.progress import say
from bluejay.train.checkpoint.state import MARKER, DamagedCheckpoint, State, read_marker, write_marker
from bluejay.train.recipe import Checkpoint

T = TypeVar("T")

MAX_FILE_BYTES = 2**30
"""A file of tensors is in memory once more while it is written, so it should not be much larger."""


class Checkpoints:
    """The checkpoints of a run. Every process makes one, after the process group, and makes the same calls."""

    def __init__(self, directory: Path, settings: Checkpoint) -> None:
        self.directory, self.settings = directory, settings
        # Of its own, because saving talks in the background while training talks.
        self.group = cast(dist.ProcessGroup, dist.new_group(backend="gloo")) if dist.is_initialized() else None
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if self.group else (0, 1)
        self.writing: tuple[Path, Future[Metadata]] | None = None
        self.saved = time.monotonic()

    def newest(self, until: int | None = None) -> tuple[Path, State] | None:
        """The newest sound checkpoint and its state, or None. `until` asks for one that is kept for good, of that step
        or one before it.

        A damaged one is set aside, with a warning, and the one before it taken. Raises ValueError where all are so.
        """
        there = steps(self.directory)
        paths = self.gather(
            [path for path in there if until is None or (self.is_kept(path) and number(path) <= until)]
        )[0]
        problems = {}
        for path in reversed(paths):
            try:
                state = self.read(path)
            except DamagedCheckpoint as damage:
                problems[path] = damage
                continue
            for bad, problem in problems.items():
                aside = bad.with_name(f"{bad.name}.damaged")
                if self.rank == 0:
                    bad.rename(aside)
                    say(f"WARNING: {problem}; it is now {aside.name}, and the run goes on from {path.name}")
            return path, state
        for problem in problems.values():
            raise ValueError(f"{problem}, and there is no older checkpoint; remove {self.directory} to begin anew")
        return None

    def at(self, step: int) -> tuple[Path, State]:
        """The checkpoint of a step and its state. Raises ValueError where there is none, or it is damaged."""
        path = self.directory / f"step-{step}"
        there = [number(path) for path in steps(self.directory)]
        if step not in there:
            raise ValueError(f"{self.directory} has no checkpoint of step {step}; it has {', '.join(map(str, there))}")
        try:
            return path, self.read(path)
        except DamagedCheckpoint as damage:
            raise ValueError(str(damage)) from None

    def read(self, path: Path) -> State:
        """The state of a checkpoint whose files have their checksums; else every process raises DamagedCheckpoint."""

        def check() -> State:
            state, files = read_marker(path)
            if files is None and self.rank == 0:
                say(f"{path} was saved before there were checksums and is taken as it is")
            for name in sorted(files or {})[self.rank :: self.size]:
                if not (path / name).is_file() or sha256_of(path / name) != (files or {})[name]:
                    raise DamagedCheckpoint(f"{path / name} does not have the checksum it was written with")
            return state

        def checked() -> State | DamagedCheckpoint:
            try:
                return check()
            except DamagedCheckpoint as damage:
                return damage

        answers = self.gather(checked())
        for answer in answers:
            if isinstance(answer, DamagedCheckpoint):
                raise answer
        return cast(State, answers[0])

    def load(self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Fill a model and its optimizer, in place, with the tensors of a checkpoint."""
        with alone():
            reader = HuggingFaceStorageReader(str(path))
            for name, stored in reader.read_metadata().state_dict_metadata.items():
                prepare(name, cast(TensorStorageMetadata, stored), model, optimizer)
            dcp.load(tensors(model, optimizer), storage_reader=reader, process_group=self.group)

    def save(self, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Copy the tensors and write them in the background; waits first for what is still being written.

        An error in the background is raised by the next `settle` or `save`.
        """
        self.settle()
        path = self.directory / f"step-{state.step}"
        written = dcp.async_save(
            tensors(model, optimizer), storage_writer=Writer(path, state), process_group=self.group
        )
        self.writing = path, cast(Future[Metadata], written)
        self.saved = time.monotonic()

    def settle(self) -> None:
        """Wait until all is written, then remove what is not kept. Raises OSError when the disk is full; the older
        checkpoints stay."""
        if self.writing is None:
            return
        (path, written), self.writing = self.writing, None
        try:
            written.result()
        except CheckpointException as failed:
            if self.rank == 0:
                remove(path)
            cause, _ = next(iter(failed.failures.values()))
            raise cause from None
        if self.rank == 0:
            for older in steps(self.directory)[:-2]:
                if not self.is_kept(older):
                    remove(older)

    @property
    def failed(self) -> bool:
        """Whether the background has an error to tell."""
        return self.writing is not None and self.writing[1].done() and self.writing[1].exception() is not None

    def due(self, step: int) -> bool:
        """Whether the policy wants the state after a step to be saved."""
        minutes = (time.monotonic() - self.saved) / 60
        return step % self.settings.every_steps == 0 or minutes >= self.settings.every_minutes

    def tidy(self, step: int) -> None:
        """Remove what was never finished, and checkpoints after `step`: of a past that the run does not go on from."""
        if self.rank == 0:
            for path in self.directory.glob("step-*"):
                if is_checkpoint_name(path) and (number(path) > step or not (path / MARKER).is_file()):
                    remove(path)

    def is_kept(self, path: Path) -> bool:
        """Whether a checkpoint is kept for good."""
        return number(path) % self.settings.every_steps == 0

    def gather(self, value: T) -> list[T]:
        """A value of every process, in every process."""
        if self.group is None:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return cast(list[T], values)


class Writer(HuggingFaceStorageWriter):
    """Writes the tensors that DCP gives each process, then, once and last, the marker."""

    def __init__(self, path: Path, state: State) -> None:
        super().__init__(str(path), save_distributed=True)
        self.directory, self.state = path, state

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Make room: the first process calls this before any process writes."""
        remove(self.directory)
        self.directory.mkdir(parents=True)
        return super().prepare_global_plan(plans)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> torch.futures.Future[list[WriteResult]]:
        """Write this process's part; each result carries its file's name and checksum."""
        places = {"fqn_to_index_mapping": dict(spread(plan.items))}
        plan = dataclasses.replace(plan, storage_data=plan.storage_data | places)
        results = super().write_data(plan, planner).wait()
        names = {result.storage_data.relative_path for result in results}
        checksums = {name: sha256_of(self.directory / name) for name in sorted(names)}
        done: torch.futures.Future[list[WriteResult]] = torch.futures.Future()
        done.set_result(
            [
                dataclasses.replace(result, storage_data=(name, checksums[name]))
                for result in results
                for name in [result.storage_data.relative_path]
            ]
        )
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """The first process calls this when every process has written."""
        write_marker(self.directory, self.state, dict(result.storage_data for part in results for result in part))


def spread(items: list[WriteItem]) -> Iterator[tuple[str, int]]:
    """The number, from 1, of the file that each tensor goes to."""
    total = 0
    for item in items:
        assert item.tensor_data is not None, "a state holds only tensors"
        total += item.tensor_data.chunk.sizes.numel() * item.tensor_data.properties.dtype.itemsize
        yield item.index.fqn, 1 + total // MAX_FILE_BYTES


def tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Every tensor that training changes by name, sharing memory with the model and the optimizer."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    named = {f"model.{name}": parameter.data for name, parameter in trained.items()}
    for name, parameter in trained.items():
        for key, value in optimizer.state[parameter].items():
            named[f"optimizer.{key}.{name}"] = value
    return named


def prepare(name: str, stored: TensorStorageMetadata, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Make the tensor of an optimizer's state that a stored one is to be loaded into: placed as its parameter is."""
    kind, _, rest = name.partition(".")
    key, _, parameter_name = rest.partition(".")
    parameter = dict(model.named_parameters()).get(parameter_name) if kind == "optimizer" else None
    if parameter is not None:
        dtype = stored.properties.dtype
        whole = stored.size == parameter.shape
        made = torch.zeros_like(parameter, dtype=dtype) if whole else torch.zeros(stored.size, dtype=dtype)
        optimizer.state[parameter][key] = made.to(parameter.device)


def steps(directory: Path) -> list[Path]:
    """The finished checkpoints in a directory, oldest first."""
    found = [path for path in directory.glob("step-*") if is_checkpoint_name(path) and (path / MARKER).is_file()]
    return sorted(found, key=number)


def is_checkpoint_name(path: Path) -> bool:
    """Whether a directory is named as a checkpoint is."""
    return path.name.removeprefix("step-").isdecimal()


def number(path: Path) -> int:
    """The step of a checkpoint."""
    return int(path.name.removeprefix("step-"))


def remove(path: Path) -> None:
    """Remove a checkpoint, its marker first, so that it is none from the first moment on."""
    (path / MARKER).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def alone() -> Generator[None]:
    """DCP warns when there is no process group; one process needs none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
