"""The steps at which a run read a piece of its data, from the record that its checkpoints keep.

Steps are counted from 1, as in `metrics.jsonl`. Step t read batch t - 1 + the batches that rollbacks had jumped over by
then. A rollback goes back to a permanent checkpoint, which stays; so the checkpoints that are left say for each step
how many batches had been jumped over: as many as the first of them that is not before the step.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bluejay import recipe as recipes
from bluejay.train.checkpoint.state import MARKER, DamagedCheckpoint, State, read_marker
from bluejay.train.data.order import Order, phases
from bluejay.train.recipe import TrainRecipe


@dataclass(frozen=True)
class Read:
    """When a match was read."""

    steps: tuple[int, ...]
    """Steps whose batches held all of it in one sequence, from 1."""
    in_part: tuple[int, ...]
    """Steps whose batches held a part of it, because it is cut by the border of two sequences."""


@dataclass(frozen=True)
class ShardSequences:
    """The sequences of a shard: windows of its tokens (`bluejay.train.data.batches.ShardWindows`)."""

    n_tokens: int
    length: int
    """Tokens of a sequence; it has one more, which is only predicted, and is the first of the next sequence."""

    @property
    def size(self) -> int:
        """The number of sequences."""
        return max(0, self.n_tokens - 1) // self.length

    def windows(self, places: Sequence[int], length: int) -> tuple[set[int], set[int]]:
        """The sequences that hold a match at one of the places wholly, and those that hold a part of one."""
        whole, touched = set[int](), set[int]()
        for place in places:
            first, last = max(0, -(-(place - self.length) // self.length)), (place + length - 1) // self.length
            for number in range(first, min(last + 1, self.size)):
                start = number * self.length
                inside = start <= place and place + length <= start + self.length + 1
                (whole if inside else touched).add(number)
        return whole, touched


@dataclass(frozen=True)
class ExampleSequences:
    """The sequences of a file of examples, which are never cut (`bluejay.train.data.pairs.Pairs`)."""

    starts: Sequence[int]
    """Where each example begins in the tokens of all, and where the last one ends."""
    packed: Sequence[Sequence[int]]
    """The examples of each sequence."""

    @property
    def size(self) -> int:
        """The number of sequences."""
        return len(self.packed)

    @cached_property
    def sequence_of(self) -> dict[int, int]:
        """The sequence of each example."""
        return {example: number for number, examples in enumerate(self.packed) for example in examples}

    def windows(self, places: Sequence[int], length: int) -> tuple[set[int], set[int]]:
        """The sequences that hold a match at one of the places; none holds a part of one."""
        return {self.sequence_of[bisect.bisect_right(self.starts, place) - 1] for place in places}, set()


class ReadRun:
    """The record of a run. Raises FileNotFoundError: the run has none; ValueError: it is of another version."""

    def __init__(self, directory: Path, until: int | None = None) -> None:
        """`until` is the step of the model that is asked about, if it is not the last one."""
        self.directory = directory
        states = sorted(read_states(directory / "checkpoints"), key=lambda state: state.step)
        if not states:
            raise FileNotFoundError(f"{directory} has no checkpoint, which would say what the run read")
        self.states = states
        self.inputs = states[-1].inputs
        self.recipe: TrainRecipe = recipes.check(TrainRecipe, states[-1].recipe, f"{directory}, of another version")
        self.steps = states[-1].step if until is None else min(until, states[-1].step)
        self.tokenizer = states[-1].tokenizer
        self.sets: dict[int, ShardSequences | ExampleSequences] = {}
        """The sets of `data.train` that are asked about."""

    @cached_property
    def order(self) -> Order:
        """The order in which the run read its sets, of which those that are not known are never asked about."""
        recipe = self.recipe
        sizes = tuple(self.sets[part].size if part in self.sets else 1 for part in range(len(recipe.data.train)))
        return Order(sizes, tuple(phases(recipe.data.train, recipe.steps * recipe.batch_rows)), recipe.seed)

    @cached_property
    def jumps(self) -> list[tuple[int, int]]:
        """For each checkpoint its step, and the batches that had been jumped over until then."""
        return [(state.step, state.batches_skipped) for state in self.states]

    def step_of(self, batch: int) -> int | None:
        """The step that read a batch; None if it was jumped over, or not reached."""
        before = 0
        for step, jumped in self.jumps:
            here = batch + 1 - jumped
            if before < here <= step:
                return here if here <= self.steps else None
            before = step
        return None

    def when(self, part: int, windows: Sequence[int]) -> set[int]:
        """The steps that read sequences of set `part` of `data.train`."""
        end = (self.steps + self.jumps[-1][1]) * self.recipe.batch_rows
        numbers = (number for window in windows for number in self.order.numbers(part, window, end))
        found = {self.step_of(number // self.recipe.batch_rows) for number in numbers}
        return {step for step in found if step is not None}

    def read_of(self, part: int, places: Sequence[int], length: int) -> Read:
        """When matches of `length` tokens, at `places` of the tokens of set `part`, were read."""
        whole, touched = self.sets[part].windows(places, length)
        steps = self.when(part, sorted(whole))
        return Read(tuple(sorted(steps)), tuple(sorted(self.when(part, sorted(touched - whole)) - steps)))


def read_states(directory: Path) -> list[State]:
    """The states of all checkpoints in a folder, without those that are damaged."""
    found = []
    for path in directory.glob("step-*"):
        try:
            if path.name.removeprefix("step-").isdecimal() and (path / MARKER).is_file():
                found.append(read_marker(path)[0])
        except DamagedCheckpoint:
            continue
    return found


def run_of(model: Path) -> tuple[Path, int | None] | None:
    """The run that wrote a model directory, and the step of the model if it is not the last; None if none is beside it.

    The folder of the run itself stands for its model.
    """
    if (model / "checkpoints").is_dir():
        return model, None
    directory = model.resolve().parent
    if not (directory / "checkpoints").is_dir():
        return None
    _, found, step = model.resolve().name.partition("-step-")
    return directory, int(step) if found and step.isdecimal() else None
