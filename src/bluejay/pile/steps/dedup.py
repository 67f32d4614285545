"""Find copies among all documents of a corpus, by their hashes alone, and decide which documents stay.

Copies are found within buckets of hashes, so memory does not grow with the corpus: 80 bytes for each of at most
BUCKET_DOCUMENTS documents, and 16 for each pair of near-copies.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bluejay.pile.recipe import Split
from bluejay.pile.steps.mix import split_of
from bluejay.pile.text.clusters import agreeing_pairs, candidate_pairs, components, group_equal, survivors
from bluejay.pile.text.document_table import text_hashes
from bluejay.pile.text.minhash import MinHashSettings

BUCKET_DOCUMENTS = 1 << 22
"""Documents of one bucket, on average."""
PAIRS_AT_ONCE = 1 << 15
"""Pairs whose signatures are compared at once."""
BY_HASH = 255
"""Stands for the split that follows from a document's hash."""
KEPT, EXACT, NEAR, CONTAMINATED = range(4)
"""Decisions about a document."""
DROP_REASONS = {EXACT: "exact copy", NEAR: "near-copy", CONTAMINATED: "contaminated"}
"""The decisions to drop a document, as tables and reports name them."""


@dataclass(frozen=True)
class ConcatenatedArray:
    """One `.npy` file per part, read as one array: rows are numbered across the parts, in the order of the recipe."""

    files: tuple[Path, ...]
    starts: NDArray[np.int64]
    """(files + 1,): the first row of each file, then the number of all rows."""

    @classmethod
    def of(cls, files: Sequence[Path]) -> "ConcatenatedArray":
        """Concatenate files; only their headers are read."""
        lengths = [np.load(file, mmap_mode="r").shape[0] for file in files]
        return cls(tuple(files), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The values of some rows, in the order of `rows`."""
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[order], self.starts).tolist()
        found = [
            np.load(file, mmap_mode="r")[rows[order[a:b]] - start]
            for file, start, a, b in zip(self.files, self.starts.tolist(), bounds, bounds[1:], strict=False)
            if a < b
        ]
        values = np.concatenate(found) if found else np.load(self.files[0], mmap_mode="r")[:0]
        return values[np.argsort(order, kind="stable")]

    def pieces(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield row numbers and values of each file."""
        for file, start in zip(self.files, self.starts.tolist(), strict=False):
            values = np.load(file, mmap_mode="r")
            yield np.arange(start, start + len(values)), values

    @property
    def keys(self) -> list[str]:
        """The names of the directories that hold the files, which are hashes of their content."""
        return [file.parent.name for file in self.files]


@dataclass(frozen=True)
class Decisions:
    """What was decided about the documents of one part."""

    decision: NDArray[np.uint8]
    """KEPT, EXACT, NEAR or CONTAMINATED of each document, (n,)."""
    representative_id: NDArray[Any]
    """The id of the document kept for the cluster of each document, its own where it has no copy: (n,) S32."""
    fixed: NDArray[np.uint8]
    """The index in SPLITS of each piece of a document that was divided between splits, else BY_HASH: (n,)."""

    @classmethod
    def load(cls, path: Path) -> "Decisions":
        """Read a file that `save` wrote."""
        arrays = np.load(path)
        return cls(arrays["decision"], arrays["representative_id"], arrays["fixed"])

    def save(self, path: Path) -> None:
        """Write a `.npz` file."""
        np.savez(path, decision=self.decision, representative_id=self.representative_id, fixed=self.fixed)

    @classmethod
    def concatenate(cls, parts: Sequence["Decisions"]) -> "Decisions":
        """The decisions about the documents of several batches, in order."""
        decision = np.concatenate([np.empty(0, np.uint8), *(part.decision for part in parts)])
        representative = np.concatenate([np.empty(0, "S32"), *(part.representative_id for part in parts)])
        return cls(decision, representative, np.concatenate([np.empty(0, np.uint8), *(part.fixed for part in parts)]))

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> "Decisions":
        """The decisions about some documents."""
        return Decisions(self.decision[rows], self.representative_id[rows], self.fixed[rows])

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which documents stay in the corpus, (n,)."""
        return self.decision == KEPT

    def splits(self, split: Split, seed: int) -> NDArray[np.uint8]:
        """The index in SPLITS of each document, (n,). Where it is not fixed, it follows from the representative, so no
        cluster is divided."""
        by_hash = split_of(text_hashes(self.representative_id), split, seed)
        return np.where(self.fixed == BY_HASH, by_hash, self.fixed)


def bucket_count(documents: int) -> int:
    """How many buckets of hashes hold BUCKET_DOCUMENTS documents each."""
    return -(-documents // BUCKET_DOCUMENTS) or 1


def in_bucket(hashes: NDArray[np.uint64], bucket: int, n_buckets: int) -> NDArray[np.bool_]:
    """Which hashes belong to a bucket."""
    return hashes % np.uint64(n_buckets) == bucket


@dataclass(frozen=True)
class FindExactCopies:
    """Find documents of equal text.

    Writes `copies.npy`, the rows whose text an earlier row has, ascending; `firsts.npy`, the first row of the same text
    for each copy; and `alive.npy`, one bool per row: whether it is the first of its text.
    """

    name: ClassVar[str] = "exact"
    ids: ConcatenatedArray

    def key(self) -> list[Any]:
        """The ids of all documents."""
        return [self.ids.keys]

    def run(self, out: Path) -> dict[str, Any]:
        copies, firsts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        n_buckets = bucket_count(len(self.ids))
        for bucket in range(n_buckets):
            rows, ids = [np.empty(0, np.int64)], [np.empty(0, "S32")]
            for numbers, values in self.ids.pieces():
                inside = in_bucket(text_hashes(values), bucket, n_buckets)
                rows.append(numbers[inside])
                ids.append(values[inside])
            row = np.concatenate(rows)
            first = row[group_equal(np.concatenate(ids))]
            copies.append(row[row != first])
            firsts.append(first[row != first])
        copy, first = np.concatenate(copies), np.concatenate(firsts)
        order = np.argsort(copy)
        alive = np.ones(len(self.ids), np.bool_)
        alive[copy] = False
        for name, values in (("copies", copy[order]), ("firsts", first[order]), ("alive", alive)):
            np.save(out / f"{name}.npy", values)
        return {"copies": len(copy)}


@dataclass(frozen=True)
class FindNearCopies:
    """Find pairs of near-copies in one band of the signatures.

    Writes `edges.npy` (m, 2): pairs of rows that agree in this band, and in the whole signature up to the threshold.
    """

    name: ClassVar[str] = "near"
    band: int
    keys: tuple[Path, ...]
    """`bands.npy` of each part."""
    signatures: ConcatenatedArray
    near: MinHashSettings
    exact: Path

    def key(self) -> list[Any]:
        """The band, the signatures and the threshold. Exact copies follow from the documents of the signatures."""
        return [self.band, self.signatures.keys, self.near.threshold]

    def run(self, out: Path) -> dict[str, Any]:
        starts, alive = self.signatures.starts.tolist(), np.load(self.exact / "alive.npy", mmap_mode="r")
        n_buckets, candidates, edges = bucket_count(len(self.signatures)), 0, [np.empty((0, 2), np.int64)]
        for bucket in range(n_buckets):
            rows, keys = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
            for file, start, stop in zip(self.keys, starts, starts[1:], strict=False):
                values = np.load(file, mmap_mode="r")[self.band]
                inside = in_bucket(values, bucket, n_buckets) & alive[start:stop] & (values != 0)
                rows.append(np.flatnonzero(inside) + start)
                keys.append(values[inside])
            pairs = candidate_pairs(np.concatenate(keys), np.concatenate(rows))
            candidates += len(pairs)
            for begin in range(0, len(pairs), PAIRS_AT_ONCE):
                some = pairs[begin : begin + PAIRS_AT_ONCE]
                compared, local = np.unique(some, return_inverse=True)
                edges.append(some[agreeing_pairs(local.reshape(-1, 2), self.signatures[compared], self.near)])
        found = np.concatenate(edges)
        np.save(out / "edges.npy", found)
        return {"candidates": candidates, "pairs": len(found)}


@dataclass(frozen=True)
class Decide:
    """Decide which documents stay. Writes NUMBER.npz for each part: the arrays of `Decisions`."""

    name: ClassVar[str] = "decide"
    ids: ConcatenatedArray
    priority: NDArray[np.int64]
    """For each part the position of its component in the recipe: of near-copies, the earliest component's stays."""
    exact: Path
    edges: tuple[Path, ...]
    """The pairs of near-copies, one file per band."""
    remove: bool
    """Whether near-copies are dropped; if not, they only stay on one side of the split."""
    reasons: tuple[Path, ...]
    """`reasons.parquet` of each part; empty where there are no test sets."""

    def key(self) -> list[Any]:
        """The ids, the near-copies and the matches of test sets, by the hashes that name their directories."""
        files = [*self.ids.files, *self.edges, *self.reasons]
        return [[file.parent.name for file in files], self.priority.tolist(), self.remove]

    def run(self, out: Path) -> dict[str, Any]:
        ids, starts = self.ids, self.ids.starts.tolist()
        copies, firsts = (np.load(self.exact / f"{name}.npy") for name in ("copies", "firsts"))
        members, representatives = self.near_clusters()
        for number, (start, stop) in enumerate(itertools.pairwise(starts)):
            rows = np.arange(start, stop)
            first = replace_rows(rows, copies, firsts)
            representative = replace_rows(first, members, representatives)
            decision = np.where(first != rows, EXACT, KEPT)
            if self.remove:
                decision[(representative != rows) & (decision == KEPT)] = NEAR
            if self.reasons:
                contaminated = pc.is_valid(pq.read_table(self.reasons[number])["reason"]).to_numpy()
                decision[contaminated & (decision == KEPT)] = CONTAMINATED
            fixed = np.full(len(rows), BY_HASH, np.uint8)
            Decisions(decision.astype(np.uint8), ids[representative], fixed).save(out / f"{number}.npz")
        return {"members": len(members), "clusters": len(np.unique(representatives))}

    def near_clusters(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows that have near-copies, ascending, and the representative of each one's cluster.

        The representative is of the earliest component; within one component it has the smallest id.
        """
        edges = np.concatenate([np.empty((0, 2), np.int64), *map(np.load, self.edges)])
        members, ends = np.unique(edges, return_inverse=True)
        cluster = components(ends.reshape(-1, 2), len(members))
        part = np.searchsorted(self.ids.starts, members, side="right") - 1
        stays = survivors(cluster, self.priority[part], self.ids[members])
        representative = np.empty_like(members)
        representative[cluster[stays]] = members[stays]
        return members, representative[cluster]


def replace_rows(rows: NDArray[np.int64], keys: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Replace each row that is among `keys`, which ascend, by its value; the other rows stay."""
    if not len(keys):
        return rows
    at = np.minimum(np.searchsorted(keys, rows), len(keys) - 1)
    return np.where(keys[at] == rows, values[at], rows)
