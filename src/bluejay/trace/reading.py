"""The steps at which a run read a piece of its data, from the record that its checkpoints keep.

Steps are counted from 1, as in `metrics.jsonl`. Step t read batch t - 1 + the batches that rollbacks had jumped over by
then. A rollback goes back to a permanent checkpoint, which stays; so the checkpoints that are left say for each step
how many batches had been jumped over: as many as the first of them that is not before the step.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bluejay import recipe as recipes
from bluejay.train.checkpoint.trained_on import TrainedOn, read_states, read_trained_on
from bluejay.train.data.order import Order, phases
from bluejay.train.recipe import TrainRecipe


@dataclass(frozen=True)
class Read:
    """When a match was read."""

    steps: tuple[int, ...]
    """Steps whose batches held all of it in one sequence, from 1."""
    in_part: tuple[int, ...]
    """Steps whose batches held a part of it, because it is cut by the border of two sequences."""

    def __bool__(self) -> bool:
        return bool(self.steps or self.in_part)


@dataclass(frozen=True)
class Holding:
    """Sequences that hold matches, wholly or in part: the same match may be in several, as the same number."""

    match: NDArray[np.int64]
    """The number of the match."""
    sequence: NDArray[np.int64]
    """The sequence or, once that is sought, a step that read it."""
    whole: NDArray[np.bool_]
    """Whether it holds all of the match."""


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

    def holding(self, places: NDArray[np.int64], lengths: NDArray[np.int64]) -> Holding:
        """The sequences that hold the matches of so many tokens at the places."""
        first = np.maximum(0, -(-(places - self.length) // self.length))
        last = np.minimum((places + lengths - 1) // self.length, self.size - 1)
        match, number = ranges(first, np.maximum(0, last - first + 1))
        start, place = number * self.length, places[match]
        whole = (start <= place) & (place + lengths[match] <= start + self.length + 1)
        return Holding(match, number, whole)

    def bounds(self, sequences: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the tokens of sequences begin and end, with the last one, which is only predicted."""
        begins = sequences * self.length
        return begins, begins + self.length + 1


@dataclass(frozen=True)
class ExampleSequences:
    """The sequences of a file of examples, which are never cut (`bluejay.train.data.packed_examples`)."""

    starts: NDArray[np.int64]
    """Where each example begins in the tokens of all, and where the last one ends."""
    packed: Sequence[Sequence[int]]
    """The examples of each sequence."""

    @property
    def size(self) -> int:
        """The number of sequences."""
        return len(self.packed)

    @cached_property
    def sequence_of(self) -> NDArray[np.int64]:
        """The sequence of each example."""
        found = np.zeros(len(self.starts) - 1, np.int64)
        for number, examples in enumerate(self.packed):
            found[list(examples)] = number
        return found

    def holding(self, places: NDArray[np.int64], lengths: NDArray[np.int64]) -> Holding:
        """The sequences that hold the matches of so many tokens at the places; none holds a part of one."""
        example = np.searchsorted(self.starts, places, "right") - 1
        return Holding(np.arange(len(places)), self.sequence_of[example], np.ones(len(places), bool))

    def bounds(self, sequences: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the tokens of the examples of sequences begin and end."""
        examples = np.flatnonzero(np.isin(self.sequence_of, sequences))
        return self.starts[examples], self.starts[examples + 1]


def ranges(firsts: NDArray[np.int64], sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers firsts[i] .. firsts[i] + sizes[i] - 1 of all i, end to end: the i of each, and the number."""
    of = np.repeat(np.arange(len(firsts)), sizes)
    return of, firsts[of] + np.arange(len(of)) - (np.cumsum(sizes) - sizes)[of]


class ReadRun:
    """The record of a run: its checkpoints, or the file that its model carries.

    Raises FileNotFoundError: the run has neither; ValueError: it is of another version.
    """

    def __init__(self, directory: Path, until: int | None = None, record: TrainedOn | None = None) -> None:
        """`until` is the step of the model that is asked about, if it is not the last one; `record` is what a model in
        the folder says of itself, where the run is not there."""
        self.directory = directory
        if record is None:
            states = sorted(read_states(directory / "checkpoints"), key=lambda state: state.step)
            if not states:
                raise FileNotFoundError(f"{directory} has no checkpoint, which would say what the run read")
            last = states[-1]
            jumps = tuple((state.step, state.batches_skipped) for state in states)
            record = TrainedOn(last.step, last.recipe, last.tokenizer, last.inputs, jumps)
        self.inputs, self.tokenizer, self.base = record.inputs, record.tokenizer, record.base
        self.recipe: TrainRecipe = recipes.check(TrainRecipe, record.recipe, f"{directory}, of another version")
        self.steps = record.step if until is None else min(until, record.step)
        self.jumps = list(record.jumps)
        """For each checkpoint its step, and the batches that had been jumped over until then."""
        self.sets: dict[int, ShardSequences | ExampleSequences] = {}
        """The sets of `data.train` that are asked about."""

    @cached_property
    def order(self) -> Order:
        """The order in which the run read its sets, of which those that are not known are never asked about."""
        recipe = self.recipe
        sizes = tuple(self.sets[part].size if part in self.sets else 1 for part in range(len(recipe.data.train)))
        return Order(sizes, tuple(phases(recipe.data.train, recipe.steps * recipe.batch_rows)), recipe.seed)

    def steps_of(self, batches: NDArray[np.int64]) -> NDArray[np.int64]:
        """The step that read each batch; 0 for one that was jumped over, or not reached."""
        lasts, jumped = np.array(self.jumps).T
        begins = np.concatenate([[0], lasts[:-1]]) + jumped
        part = np.minimum(np.searchsorted(lasts + jumped, batches, "right"), len(lasts) - 1)
        step = batches + 1 - jumped[part]
        read = (begins[part] <= batches) & (step <= np.minimum(lasts[part], self.steps))
        return np.where(read, step, 0)

    def batch_of(self, step: int) -> int:
        """The batch that a step read, counted from 0."""
        jumped = next((jumped for last, jumped in self.jumps if step <= last), self.jumps[-1][1])
        return step - 1 + jumped

    def when(self, part: int, windows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The steps that read the sequences `windows` of set `part` of `data.train`: which of them, and the step."""
        end = (self.steps + self.jumps[-1][1]) * self.recipe.batch_rows
        which, numbers = self.order.numbers(part, windows, end)
        steps = self.steps_of(numbers // self.recipe.batch_rows)
        return which[steps > 0], steps[steps > 0]

    def bounds_read(self, part: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the tokens of each sequence of set `part` that was read begin and end, once however often it was read,
        in the order of the set."""
        windows = np.arange(self.sets[part].size)
        return self.sets[part].bounds(np.unique(self.when(part, windows)[0]))

    def steps_at(self, part: int, places: NDArray[np.int64], lengths: NDArray[np.int64]) -> Holding:
        """The steps that read matches of so many tokens at places of the tokens of set `part`."""
        held = self.sets[part].holding(places, lengths)
        windows, of = np.unique(held.sequence, return_inverse=True)
        which, steps = self.when(part, windows)
        steps = steps[np.argsort(which, kind="stable")]
        times = np.bincount(which, minlength=len(windows))
        pair, at = ranges((np.cumsum(times) - times)[of], times[of])
        return Holding(held.match[pair], steps[at], held.whole[pair])

    def reads(
        self,
        sets: Sequence[tuple[int, int]],
        places: NDArray[np.int64],
        lengths: NDArray[np.int64],
        groups: NDArray[np.int64],
        n: int,
    ) -> list[Read]:
        """When the matches of each of `n` groups were read: of each match its place in a token shard, its tokens, and
        its group; `sets` has the numbers of the sets that hold the shard, and the tokens before it there."""
        found = [self.steps_at(part, places + first, lengths) for part, first in sets]
        base, none = self.steps + 1, np.zeros(0, np.int64)
        codes = np.concatenate([none, *(groups[one.match] * base + one.sequence for one in found)])
        wholly = np.concatenate([none, *(one.whole for one in found)]).astype(bool)
        whole = np.unique(codes[wholly])
        in_part = np.setdiff1d(codes, whole)
        steps, steps_in_part = (divided(codes % base, codes // base, n) for codes in (whole, in_part))
        return [Read(*both) for both in zip(steps, steps_in_part, strict=True)]


def divided(values: NDArray[np.int64], groups: NDArray[np.int64], n: int) -> list[tuple[int, ...]]:
    """The values of each of `n` groups, from values whose groups ascend."""
    bounds, of = np.searchsorted(groups, np.arange(n + 1)).tolist(), values.tolist()
    return [tuple(of[begin:end]) for begin, end in pairwise(bounds)]


def run_of(model: Path) -> tuple[Path, int | None] | None:
    """The run that wrote a model directory, and the step of the model if it is not the last; None if none is beside it.

    The folder of the run itself stands for its model.
    """
    if (model / "checkpoints").is_dir():
        return model, None
    beside = (model.parent, model.resolve().parent)  # as it was named, if it is not a link
    directory = next((folder for folder in beside if (folder / "checkpoints").is_dir()), None)
    if directory is None:
        return None
    step = re.search(r"-step-(\d+)\b", model.resolve().name)  # of a copy such as model-step-31-q4 too
    return directory, int(step[1]) if step else None


def read_run(model: Path) -> ReadRun | None:
    """The record of the run of a model: of the run beside it, or else of its own file; None if there is neither.

    Raises FileNotFoundError or ValueError as `ReadRun`.
    """
    place = run_of(model)
    if place is not None:
        return ReadRun(*place)
    record = read_trained_on(model)
    return None if record is None else ReadRun(model.resolve(), record=record)
