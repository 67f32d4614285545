"""Which sequence of which set is read when: a pure function of the seed, and its inverse.

The sequences of a shard are its tokens cut into windows. The sequences of the run (number = step x batch + row) are in
blocks. Each block contains every set in its proportion, in an order shuffled by the seed, so the mixture is right at
every moment and any process can find any sequence by itself (levanter, Data-Loader-Design). When the weights change, a
new block begins. A block is as small as it can be with proportions that are those of the weights.
"""

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bluejay.native import native
from bluejay.train.recipe import Mixture

BLOCK_SIZES = [1 << bits for bits in range(10, 21)]
"""The numbers of sequences that a block can have."""
SHARE_ERROR = 1e-3
"""How far a set's share of a block may be from its weight, relative to the weight."""
ROUNDS = 4
AT_ONCE = 1 << 18
"""Sequences of all epochs that are sought at once."""


@dataclass(frozen=True)
class Phase:
    """A part of the run in which the weights of the mixture are constant."""

    first: int
    """Number of its first sequence."""
    block: int
    """Number of its first block; a block that the previous phase did not finish still counts for that phase."""
    bounds: tuple[int, ...]
    """First position of each source within a block, followed by the block size."""
    drawn: tuple[int, ...]
    """Sequences drawn from each source before this phase."""

    @property
    def size(self) -> int:
        """The number of sequences in a block."""
        return self.bounds[-1]


def phases(mixture: Sequence[Mixture], sequences: int) -> list[Phase]:
    """The phases of a run of `sequences` sequences. Raises ValueError if a set's weight is below one
    sequence in the largest block."""
    found: list[Phase] = []
    for share in sorted({0.0} | {share for part in mixture for share, _ in part.changes}):
        weights = np.array([part.weight_at(share) for part in mixture])
        if not weights.sum() > 0:
            raise ValueError(f"data.train: at {share} of the run all weights are 0")
        bounds = bounds_of(weights / weights.sum())
        for part, weight, size in zip(mixture, weights, np.diff(bounds), strict=True):
            if weight > 0 and size == 0:
                raise ValueError(
                    f"data.train: the weight of {part.shards} is less than one sequence in {BLOCK_SIZES[-1]:,}"
                )
        first, block, drawn = round(share * sequences), 0, np.zeros(len(mixture), dtype=int)
        if found:
            last = found[-1]
            blocks = -(-(first - last.first) // last.size)
            block, drawn = last.block + blocks, np.array(last.drawn) + blocks * np.diff(last.bounds)
        found.append(Phase(first, block, tuple(bounds.tolist()), tuple(drawn.tolist())))
    return found


def bounds_of(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """The first position of each set within the smallest block in which no set is further than `SHARE_ERROR` from its
    share, or within the largest one, followed by the size of that block."""
    bounds = np.zeros(0, dtype=np.int64)
    for size in BLOCK_SIZES:
        bounds = np.rint(np.cumsum([0.0, *shares]) * size).astype(np.int64)
        if (np.abs(np.diff(bounds) - shares * size) <= SHARE_ERROR * shares * size).all():
            break
    return bounds


@dataclass(frozen=True)
class Order:
    """The order in which a run reads the sequences of its sets. Sequences are numbered without an end."""

    sizes: tuple[int, ...]
    """The number of sequences of each set."""
    phases: tuple[Phase, ...]
    """The phases of the run, in order."""
    seed: int
    """The seed of the recipe."""

    def place(self, number: int) -> tuple[int, int]:
        """The set of sequence `number` of the run, and the number of the sequence in that set."""
        phase = self.phases[bisect.bisect_right(self.phases, number, key=lambda phase: phase.first) - 1]
        blocks, place = divmod(number - phase.first, phase.size)
        slot = permute(place, phase.size, self.seed, phase.block + blocks, "block")
        part = bisect.bisect_right(phase.bounds, slot) - 1
        start, end = phase.bounds[part : part + 2]
        epoch, index = divmod(phase.drawn[part] + blocks * (end - start) + slot - start, self.sizes[part])
        return part, permute(index, self.sizes[part], self.seed, epoch, part)

    def numbers(self, part: int, windows: NDArray[np.int64], end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The sequences of the run, of those before `end`, that are the sequences `windows` of set `part`: for each
        which of `windows` it is, and its number. Needs the compiled part of the package."""
        found = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
        firsts = [*(phase.first for phase in self.phases), max(end, self.phases[-1].first)]
        for phase, (first, next_first) in zip(self.phases, pairwise(firsts), strict=True):
            share = phase.bounds[part + 1] - phase.bounds[part]
            blocks = -(-(min(end, next_first) - first) // phase.size)
            if share == 0 or blocks <= 0 or not len(windows):
                continue
            drawn, size = phase.drawn[part], self.sizes[part]
            epochs = range(drawn // size, (drawn + blocks * share - 1) // size + 1)
            at_once = max(1, AT_ONCE // len(windows))
            for some in (epochs[i : i + at_once] for i in range(0, len(epochs), at_once)):
                which, epoch = np.tile(np.arange(len(windows)), len(some)), np.repeat(np.array(some), len(windows))
                image = native.unpermute(windows[which], size, f"({self.seed}, ", epoch, f", {part})")
                block, slot = np.divmod(epoch * size + image - drawn, share)
                inside = (block >= 0) & (block < blocks)
                which, block, slot = which[inside], block[inside], slot[inside] + phase.bounds[part]
                place = native.unpermute(slot, phase.size, f"({self.seed}, ", phase.block + block, ", 'block')")
                number = first + block * phase.size + place
                before = number < min(end, next_first)  # the last block of a phase may be cut off
                found.append((which[before], number[before]))
        which, numbers = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return which, numbers


def permute(index: int, size: int, *key: object) -> int:
    """The image of `index` under a pseudo-random permutation of range(size) that is determined by `key`.

    A Feistel network over the next even number of bits, applied until the result is below `size` (cycle walking, Black
    & Rogaway 2002, section 3). Its inverse is `unpermute` of the compiled part (`native/feistel.h`).
    """
    half = half_bits(size)
    rounds = feistel_rounds(key, half)
    while True:
        left, right = index >> half, index & ((1 << half) - 1)
        for round in rounds:
            left, right = right, left ^ round[right]
        index = left << half | right
        if index < size:
            return index


def half_bits(size: int) -> int:
    """The bits of each half of the Feistel network for range(size)."""
    return max(1, ((size - 1).bit_length() + 1) // 2)


class FeistelRound(dict[int, int]):
    """A round function: half a block -> a keyed hash of it, remembered (a thousand for a permutation of a million)."""

    def __init__(self, key: tuple[object, ...], number: int, bits: int) -> None:
        self.prefix, self.mask = f"{key}/{number}/", (1 << bits) - 1

    def __missing__(self, half_block: int) -> int:
        digest = hashlib.blake2b(f"{self.prefix}{half_block}".encode(), digest_size=8).digest()
        self[half_block] = found = int.from_bytes(digest, "little") & self.mask
        return found


@lru_cache(maxsize=4096)
def feistel_rounds(key: tuple[object, ...], bits: int) -> tuple[FeistelRound, ...]:
    """The round functions of a permutation."""
    return tuple(FeistelRound(key, number, bits) for number in range(ROUNDS))
