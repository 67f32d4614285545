"""The stage that sees all documents at once, by their hashes alone: which are copies, and what stands for them.

Copies are found within buckets of hashes, so that memory does not grow with the corpus: 80 bytes for each of at most
ROWS documents, and 16 for each pair of near-copies.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bluejay.pile.text.clusters import agreeing_pairs, candidate_pairs, components, group_equal, survivors
from bluejay.pile.text.minhash import MinHashSettings

ROWS = 1 << 22
"""Documents looked at together."""
PAIRS = 1 << 15
"""Pairs whose signatures are compared at once."""
KEPT, EXACT, NEAR, CONTAMINATED = range(4)
"""What became of a document."""


@dataclass(frozen=True)
class Column:
    """One array per part, end to end, on disk: rows are numbered through, in the order of the recipe."""

    files: tuple[Path, ...]
    starts: NDArray[np.int64]
    """The first row of each file, and after the last one the number of rows."""

    @classmethod
    def of(cls, files: Sequence[Path]) -> "Column":
        """The files' rows, counted by their headers."""
        lengths = [np.load(file, mmap_mode="r").shape[0] for file in files]
        return cls(tuple(files), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    def __len__(self) -> int:
        """Rows in all."""
        return int(self.starts[-1])

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The values of some rows, in the order asked for."""
        order = np.argsort(rows, kind="stable")
        cuts = np.searchsorted(rows[order], self.starts)
        found = [
            np.load(file, mmap_mode="r")[rows[order[a:b]] - start]
            for file, start, a, b in zip(
                self.files, self.starts.tolist(), cuts.tolist(), cuts[1:].tolist(), strict=False
            )
            if a < b
        ]
        values = np.concatenate(found) if found else np.load(self.files[0], mmap_mode="r")[:0]
        return values[np.argsort(order, kind="stable")]

    def pieces(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Row numbers and values of each file."""
        for file, start in zip(self.files, self.starts.tolist(), strict=False):
            values = np.load(file, mmap_mode="r")
            yield np.arange(start, start + len(values)), values


def leading(ids: NDArray[Any]) -> NDArray[np.uint64]:
    """The first 8 bytes of each id, as a number."""
    return ids.view(">u8").reshape(-1, 4)[:, 0].astype(np.uint64)


def buckets(count: int) -> int:
    """How many buckets of hashes `count` documents need, so that each holds about ROWS."""
    return -(-count // ROWS) or 1


def within(hashes: NDArray[np.uint64], bucket: int, of: int) -> NDArray[np.bool_]:
    """Which hashes belong to a bucket."""
    return hashes % np.uint64(of) == bucket


@dataclass(frozen=True)
class Exact:
    """What `exact_copies` works on."""

    ids: Column

    def decisive(self) -> list[Any]:
        """What the copies follow from."""
        return [[file.parent.name for file in self.ids.files]]


def exact_copies(argument: Exact, directory: Path) -> dict[str, Any]:
    """Write `copies.npy`, the rows whose text an earlier row has, `firsts.npy`, the first row that has it, in order of
    the copies, and `alive.npy`, one bool per row: whether it is the first.
    """
    ids, copies, firsts = argument.ids, [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    n = buckets(len(ids))
    for bucket in range(n):
        rows, keys = [np.empty(0, np.int64)], [np.empty(0, "S32")]
        for numbers, values in ids.pieces():
            inside = within(leading(values), bucket, n)
            rows.append(numbers[inside])
            keys.append(values[inside])
        row = np.concatenate(rows)
        first = row[group_equal(np.concatenate(keys))]
        copies.append(row[row != first])
        firsts.append(first[row != first])
    copy, first = np.concatenate(copies), np.concatenate(firsts)
    order = np.argsort(copy)
    alive = np.ones(len(ids), np.bool_)
    alive[copy] = False
    for name, values in (("copies", copy[order]), ("firsts", first[order]), ("alive", alive)):
        np.save(directory / f"{name}.npy", values)
    return {"copies": len(copy)}


@dataclass(frozen=True)
class Band:
    """What `band_edges` works on."""

    number: int
    keys: tuple[Path, ...]
    """`bands.npy` of each part."""
    signatures: Column
    near: MinHashSettings
    exact: Path
    """The directory that `exact_copies` filled."""

    def decisive(self) -> list[Any]:
        """What the edges follow from."""
        return [self.number, [file.parent.name for file in self.signatures.files], self.near.threshold]


def band_edges(band: Band, directory: Path) -> dict[str, Any]:
    """Write `edges.npy` (m, 2): the pairs of rows that agree in this band, and as a whole up to the threshold."""
    starts, alive = band.signatures.starts, np.load(band.exact / "alive.npy", mmap_mode="r")
    n, looked, edges = buckets(len(band.signatures)), 0, [np.empty((0, 2), np.int64)]
    for bucket in range(n):
        rows, keys = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
        for file, start, stop in zip(band.keys, starts.tolist(), starts[1:].tolist(), strict=False):
            values = np.load(file, mmap_mode="r")[band.number]
            inside = within(values, bucket, n) & alive[start:stop] & (values != 0)
            rows.append(np.flatnonzero(inside) + start)
            keys.append(values[inside])
        pairs = candidate_pairs(np.concatenate(keys), np.concatenate(rows))
        looked += len(pairs)
        for begin in range(0, len(pairs), PAIRS):
            some = pairs[begin : begin + PAIRS]
            looked_at, local = np.unique(some, return_inverse=True)
            edges.append(some[agreeing_pairs(local.reshape(-1, 2), band.signatures[looked_at], band.near)])
    found = np.concatenate(edges)
    np.save(directory / "edges.npy", found)
    return {"candidates": looked, "pairs": len(found)}


@dataclass(frozen=True)
class Choosing:
    """What `choose` works on."""

    ids: Column
    priority: NDArray[np.int64]
    """For each part the place of its component in the recipe: of copies, the earlier component's stays."""
    exact: Path
    """The directory that `exact_copies` filled."""
    edges: tuple[Path, ...]
    """Files of pairs of near-copies."""
    remove: bool
    """Drop near-copies, or only keep them on one side of the split."""
    reasons: tuple[Path, ...]
    """For each part its `reasons.parquet`, where there are test sets."""

    def decisive(self) -> list[Any]:
        """What the choice follows from."""
        files = [*self.ids.files, *self.edges, *self.reasons]
        return [[file.parent.name for file in files], self.priority.tolist(), self.remove]


def choose(choosing: Choosing, directory: Path) -> dict[str, Any]:
    """Write for each part NUMBER.npz: `fate`, and `stands`, the id of the one that stands for each one's cluster."""
    ids = choosing.ids
    copies, firsts = (np.load(choosing.exact / f"{name}.npy") for name in ("copies", "firsts"))
    members, survivors = near_clusters(choosing)
    for number, (start, stop) in enumerate(zip(ids.starts.tolist(), ids.starts[1:].tolist(), strict=False)):
        rows = np.arange(start, stop)
        stands = mapped(rows, copies, firsts)
        chief = mapped(stands, members, survivors)
        fate = np.where(stands != rows, EXACT, KEPT)
        if choosing.remove:
            fate[(chief != rows) & (fate == KEPT)] = NEAR
        if choosing.reasons:
            unclean = pc.is_valid(pq.read_table(choosing.reasons[number])["reason"]).to_numpy()
            fate[unclean & (fate == KEPT)] = CONTAMINATED
        np.savez(directory / f"{number}.npz", fate=fate.astype(np.uint8), stands=ids[chief])
    return {"clusters": len(np.unique(survivors)), "members": len(members)}


def mapped(rows: NDArray[np.int64], keys: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each row's value where it is among the keys, which are in order; else the row itself."""
    if not len(keys):
        return rows
    at = np.minimum(np.searchsorted(keys, rows), len(keys) - 1)
    return np.where(keys[at] == rows, values[at], rows)


def near_clusters(choosing: Choosing) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows that have near-copies, and for each the one of its cluster that stays: first component, smallest id."""
    edges = np.concatenate([np.empty((0, 2), np.int64), *map(np.load, choosing.edges)])
    members, ends = np.unique(edges, return_inverse=True)
    cluster = components(ends.reshape(-1, 2), len(members))
    part = np.searchsorted(choosing.ids.starts, members, side="right") - 1
    stays = survivors(cluster, choosing.priority[part], choosing.ids[members])
    chief = np.empty_like(members)
    chief[cluster[stays]] = members[stays]
    return members, chief[cluster]
