"""Find copies among all documents of a corpus, by their hashes alone, and decide which documents stay.

Copies are found within buckets of hashes, which are tasks of their own: a task reads its range of the sorted records of
all parts, and holds 40 bytes for each of about BUCKET_DOCUMENTS documents. Only `Decide` holds all copies: 16 bytes for
each exact one and each pair of near-copies, and 32 for each representative.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bluejay.pile.recipe import Split
from bluejay.pile.steps.merge import InBucket, listed
from bluejay.pile.steps.mix import split_of
from bluejay.pile.text.clusters import agreeing_pairs, candidate_pairs, components, group_equal, survivors
from bluejay.pile.text.document_table import text_hashes
from bluejay.pile.text.minhash import MinHashSettings
from bluejay.pile.text.sorted_records import ConcatenatedArray
from bluejay.storage import ensure_local

BUCKET_DOCUMENTS = 1 << 22
"""Documents of one bucket, on average."""
PAIRS_AT_ONCE = 1 << 15
"""Pairs whose signatures are compared at once."""
BY_HASH = 255
"""Stands for the split that follows from a document's hash."""
KEPT, EXACT, NEAR, CONTAMINATED = range(4)
"""Decisions about a document; the last and all above it are about one that is contaminated."""
DROP_REASONS = ("exact copy", "near-copy")
"""The decisions EXACT and NEAR, as tables and reports name them. Behind these, `CONTAMINATED + n` is reason number n of
those for which a document is contaminated, one for each test set."""


@dataclass(frozen=True)
class Decisions:
    """What was decided about the documents of one part."""

    decision: NDArray[np.uint16]
    """KEPT, EXACT, NEAR or CONTAMINATED + the number of the reason, of each document, (n,)."""
    representative_id: NDArray[Any]
    """The id of the document kept for the cluster of each document, its own where it has no copy: (n,) S32."""
    fixed: NDArray[np.uint8]
    """The index in SPLITS of each piece of a document that was divided between splits, else BY_HASH: (n,)."""
    shared: NDArray[np.bool_]
    """Whether a document has near-copies, in any part, that are not dropped as such, (n,)."""

    @classmethod
    def load(cls, path: Path) -> "Decisions":
        """Read a file that `save` wrote."""
        arrays = np.load(ensure_local(path))
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})

    def save(self, path: Path) -> None:
        """Write a `.npz` file."""
        np.savez(path, **vars(self))

    @classmethod
    def concatenate(cls, parts: Sequence["Decisions"]) -> "Decisions":
        """The decisions about the documents of several batches, in order."""
        empty = cls(np.empty(0, np.uint16), np.empty(0, "S32"), np.empty(0, np.uint8), np.empty(0, np.bool_))
        return cls(*map(np.concatenate, zip(*(vars(one).values() for one in (empty, *parts)), strict=True)))

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> "Decisions":
        """The decisions about some documents."""
        return Decisions(*(array[rows] for array in vars(self).values()))

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


@dataclass(frozen=True)
class FindExactCopies(InBucket):
    """Find the documents of equal text among those whose hashes are in one bucket.

    Writes `copies.npy`, the rows whose text an earlier row has, and `firsts.npy`, the first row of the same text for
    each copy.
    """

    name: ClassVar[str] = "exact"

    def run(self, out: Path) -> dict[str, Any]:
        found = self.repeated("exact.npy")
        row = found["row"].astype(np.int64)
        first = row[group_equal(found["id"])]
        copy = row != first
        np.save(out / "copies.npy", row[copy])
        np.save(out / "firsts.npy", first[copy])
        return {"copies": int(copy.sum())}


@dataclass(frozen=True)
class FindNearCopies(InBucket):
    """Find pairs of near-copies in one band of the signatures of `Sign`, among those whose keys are in one bucket.

    Writes `edges.npy` (m, 2): pairs of rows that agree in this band, and in the whole signature up to the threshold.
    """

    name: ClassVar[str] = "near"
    band: int
    near: MinHashSettings

    def key(self) -> list[Any]:
        """The signatures, the band, the bucket and the threshold."""
        return [self.listing.name, self.band, self.bucket, self.n_buckets, self.near.threshold]

    def run(self, out: Path) -> dict[str, Any]:
        found = self.repeated("bands.npy", self.band)
        found = found[found["key"] != 0]
        keys, rows = found["key"], found["row"].astype(np.int64)
        # Of documents of equal text, whose keys are equal too, the first stays: records of one key are in their order.
        texts = ConcatenatedArray.of(listed(self.listing, "texts.npy"), stay_open=True)[rows]
        order = np.lexsort((texts, keys))
        again = (np.diff(keys[order]) == 0) & (np.diff(texts[order]) == 0)
        alive = order[np.append(True, ~again)[: len(order)]]
        pairs, edges = candidate_pairs(keys[alive], rows[alive]), [np.empty((0, 2), np.int64)]
        signatures = ConcatenatedArray.of(listed(self.listing, "signatures.npy"), stay_open=True)
        for begin in range(0, len(pairs), PAIRS_AT_ONCE):
            some = pairs[begin : begin + PAIRS_AT_ONCE]
            compared, local = np.unique(some, return_inverse=True)
            edges.append(some[agreeing_pairs(local.reshape(-1, 2), signatures[compared], self.near)])
        edge = np.concatenate(edges)
        np.save(out / "edges.npy", edge)
        return {"candidates": len(pairs), "pairs": len(edge)}


@dataclass(frozen=True)
class Decide:
    """Decide which documents stay. Writes NUMBER.npz for each part: the arrays of `Decisions`."""

    name: ClassVar[str] = "decide"
    clean: Path
    """The listing of the clean documents of all parts."""
    parts: tuple[int, ...]
    """How many parts each component has: of near-copies, the earliest component's stays."""
    exact: Path
    """The listing of the exact copies."""
    edges: Path
    """The listing of the pairs of near-copies."""
    remove: bool
    """Whether near-copies are dropped; if not, they only stay on one side of the split."""
    tests: Path | None
    """The listing of the matches of test sets; None where there are no test sets."""
    test_reasons: tuple[str, ...]
    """The reasons in these matches."""

    def key(self) -> list[Any]:
        """The documents, the near-copies and the matches of test sets, by the hashes that name their listings."""
        tests = self.tests and [self.tests.name, self.test_reasons]
        return [self.clean.name, self.parts, self.edges.name, self.remove, tests]

    def run(self, out: Path) -> dict[str, Any]:
        ids = ConcatenatedArray.of(listed(self.clean, "ids.npy"))
        copies, firsts = self.exact_copies()
        members, representatives = self.near_clusters(ids)
        tests = listed(self.tests, "reasons.parquet") if self.tests else []
        # The ids of all representatives are read at once: one by one, each part would open the files of all others.
        others = np.unique(np.concatenate([firsts, representatives]))
        other_ids = ids[others]
        for number, (start, stop) in enumerate(itertools.pairwise(ids.starts.tolist())):
            rows, own = np.arange(start, stop), np.array(ids.file(number))
            first = replace_rows(rows, copies, firsts)
            representative = replace_rows(first, members, representatives)
            decision = np.where(first != rows, EXACT, KEPT)
            if self.remove:
                decision[(representative != rows) & (decision == KEPT)] = NEAR
            if tests:
                found = pc.index_in(pq.read_table(tests[number])["reason"], pa.array(self.test_reasons, pa.string()))
                reason = pc.fill_null(found, -1).to_numpy()
                decision = np.where((reason >= 0) & (decision == KEPT), CONTAMINATED + reason, decision)
            moved = representative != rows
            own[moved] = other_ids[np.searchsorted(others, representative[moved])]
            fixed, shared = np.full(len(rows), BY_HASH, np.uint8), np.zeros(len(rows), np.bool_)
            if not self.remove:
                first_member, last_member = np.searchsorted(members, [start, stop])
                shared[members[first_member:last_member] - start] = True
            Decisions(decision.astype(np.uint16), own, fixed, shared).save(out / f"{number}.npz")
        return {"members": len(members), "clusters": len(np.unique(representatives))}

    def exact_copies(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows whose text an earlier row has, ascending, and the first row of each one's text."""
        found = [[np.load(file) for file in listed(self.exact, f"{name}.npy")] for name in ("copies", "firsts")]
        copies, firsts = map(np.concatenate, found)
        order = np.argsort(copies)
        return copies[order], firsts[order]

    def near_clusters(self, ids: ConcatenatedArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows that have near-copies, ascending, and the representative of each one's cluster.

        The representative is of the earliest component; within one component it has the smallest id.
        """
        edges = np.concatenate([np.empty((0, 2), np.int64), *map(np.load, listed(self.edges, "edges.npy"))])
        members, ends = np.unique(edges, return_inverse=True)
        cluster = components(ends.reshape(-1, 2), len(members))
        part = np.searchsorted(ids.starts, members, side="right") - 1
        component = np.repeat(np.arange(len(self.parts)), self.parts)
        stays = survivors(cluster, component[part], ids[members])
        representative = np.empty_like(members)
        representative[cluster[stays]] = members[stays]
        return members, representative[cluster]


def replace_rows(rows: NDArray[np.int64], keys: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Replace each row that is among `keys`, which ascend, by its value; the other rows stay."""
    if not len(keys):
        return rows
    at = np.minimum(np.searchsorted(keys, rows), len(keys) - 1)
    return np.where(keys[at] == rows, values[at], rows)
