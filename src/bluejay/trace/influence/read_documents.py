"""The documents that a run learnt from, as it read them: in pieces, by the borders of sequences, and as often."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from bluejay.trace.influence.gradients import Piece
from bluejay.trace.reading import ReadRun
from bluejay.train.data.batches import ShardWindows, TrainBatch

SEQUENCES = 8
"""Sequences of a batch whose gradients are computed at once."""


@dataclass(frozen=True)
class ReadSet:
    """A set of `data.train`, and how often the run read each of its sequences."""

    number: int
    """Its number in `data.train`."""
    windows: ShardWindows
    times: NDArray[np.int64]
    """How often each sequence was read, (sequences,)."""
    masked: tuple[int, ...] = ()
    """Numbers of documents that had no loss."""

    @classmethod
    def of(cls, run: ReadRun, number: int, windows: ShardWindows) -> "ReadSet":
        """The set as a run read it; the sets of the run must be known (`ReadRun.sets`)."""
        rows, times = run.recipe.batch_rows, np.zeros(len(windows), np.int64)
        batches = np.arange(run.steps + run.jumps[-1][1])
        for batch in batches[run.steps_of(batches) > 0].tolist():
            places = (run.order.place(batch * rows + row) for row in range(rows))
            np.add.at(times, [window for part, window in places if part == number], 1)
        return cls(number, windows, times, run.recipe.data.train[number].masked)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each document begins among the tokens of all shards of the set, and where the last one ends."""
        begins = [0, *self.windows.ends[:-1]]
        parts = [shard.offsets[:-1] + begin for shard, begin in zip(self.windows.shards, begins, strict=True)]
        return np.concatenate([*parts, [self.windows.ends[-1]]]).astype(np.int64)

    @cached_property
    def tokens_read(self) -> NDArray[np.int64]:
        """The targets of each document that the run learnt from, as often as it read them, (documents,)."""
        # before[p] is how many of the targets at the positions before p were read
        length, offsets = self.windows.length, self.offsets
        whole = np.concatenate([[0], np.cumsum(self.times)]) * length
        position = np.clip(offsets - 1, 0, len(self.times) * length)
        window, inside = position // length, position % length
        before = whole[window] + inside * np.append(self.times, 0)[window]
        tokens = np.diff(before)
        tokens[list(self.masked)] = 0
        return tokens

    def batches(self, first: int, end: int) -> Iterator[tuple[TrainBatch, list[Piece], list[int], list[int]]]:
        """What the run read of the documents from `first` to before `end`: batches, pieces, and of each piece the
        document and how often it was read."""
        length, offsets = self.windows.length, self.offsets
        begin = max(0, int(offsets[first]) - 1) // length
        last = min(len(self.times), -(-max(0, int(offsets[end]) - 1) // length))
        read = begin + np.flatnonzero(self.times[begin:last])
        for at in range(0, len(read), SEQUENCES):
            numbers = read[at : at + SEQUENCES].tolist()
            tokens = torch.from_numpy(np.stack([self.windows.window(n)[0] for n in numbers]).astype(np.int64))
            starts = torch.from_numpy(np.stack([self.windows.starts(n) for n in numbers]))
            pieces, documents, times = [], [], []
            for row, number in enumerate(numbers):
                target = number * length + 1  # the position of the first target of the sequence
                document = int(np.searchsorted(offsets, target, "right")) - 1
                while document < end and offsets[document] < target + length:
                    a, b = max(offsets[document], target) - target, min(offsets[document + 1], target + length) - target
                    if document >= first and b > a and document not in self.masked:
                        pieces.append(Piece(row, int(a), int(b)))
                        documents.append(document)
                        times.append(int(self.times[number]))
                    document += 1
            yield TrainBatch(tokens[:, :-1], tokens[:, 1:], None, starts), pieces, documents, times
