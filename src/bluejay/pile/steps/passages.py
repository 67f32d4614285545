"""Find passages that occurred before in the corpus, and cut them out.

Each part's passages are hashed once. Each range of the hashes is a task, which finds the repeated ones; the numbers of
these are sorted by themselves, and a few parts at a time find their own among them.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bluejay.files import sha256_of
from bluejay.pile.steps.dedup import Decisions
from bluejay.pile.steps.merge import InBucket, listed
from bluejay.pile.text.document_table import DROPPED, hex_ids, read_texts, text_digests, with_text
from bluejay.pile.text.sorted_records import SortedRecords, merge_sorted, sorted_records
from bluejay.pile.text.substring import locate, merge_overlaps, passage_hashes, repeats, without
from bluejay.storage import ensure_local

REASON = "repeated passages, nothing else"
"""Why a document is dropped of which no text is left."""
BUCKET_PASSAGES = 1 << 23
"""Passages that a task sorts in memory, on average: those of about 50 MB of text, in 40 bytes each."""
NUMBER = np.dtype([("key", np.uint64)])
"""A record that is only the number of a passage."""


def bucket_count(passages: int) -> int:
    """How many buckets of hashes hold BUCKET_PASSAGES each."""
    return max(1, -(-passages // BUCKET_PASSAGES))


def kept_texts(clean: Path, decisions: Path) -> Iterator[pa.StringArray]:
    """Yield the texts of the kept documents of a part, batch by batch."""
    return read_texts(clean / "documents.parquet", Decisions.load(decisions).kept)


@dataclass(frozen=True)
class HashPassages:
    """Hash the passages of the kept documents of a part.

    Writes `passages.npy`, their `sorted_records`, and `bounds.npy` (kept documents + 1,): the passages before each
    document. Counts the passages.
    """

    name: ClassVar[str] = "hash-passages"
    clean: Path
    decisions: Path
    length: int
    """Characters of the shortest passage that counts."""

    def key(self) -> list[Any]:
        """The kept documents and the length of a passage."""
        return [self.length, self.clean.name, sha256_of(ensure_local(self.decisions))]

    def run(self, out: Path) -> dict[str, Any]:
        counts = [np.zeros(1, np.int64)]
        files: list[Path] = []
        hashes: list[NDArray[np.uint64]] = []

        def flush() -> None:
            files.append(out / f"passages-{len(files)}.npy")
            np.save(files[-1], sorted_records(np.concatenate([*hashes, np.empty(0, np.uint64)])))
            hashes.clear()

        for texts in kept_texts(self.clean, self.decisions):
            for some, each in passage_hashes(texts, self.length):
                hashes.append(some)
                counts.append(each)
                if sum(map(len, hashes)) >= BUCKET_PASSAGES:
                    flush()
        flush()
        if len(files) == 1:
            files[0].rename(out / "passages.npy")
        else:
            merge_sorted(files, out / "passages.npy")
            for file in files:
                file.unlink()
        bounds = np.cumsum(np.concatenate(counts))
        np.save(out / "bounds.npy", bounds)
        return {"passages": int(bounds[-1])}


@dataclass(frozen=True)
class FindRepeats(InBucket):
    """Find the passages that occurred before, among those whose hashes are in one bucket.

    Writes `repeats.npy`, records of only a key: the numbers of the passages, counted through all parts, ascending.
    """

    name: ClassVar[str] = "repeats"

    def run(self, out: Path) -> dict[str, Any]:
        found = repeats(self.repeated("passages.npy"))
        np.save(out / "repeats.npy", found.astype(np.uint64).view(NUMBER))
        return {"repeats": len(found)}


@dataclass(frozen=True)
class LocatePassages:
    """Locate the repeated passages of a few consecutive parts.

    Writes NUMBER.npy for each part, (m, 3): the row among the part's kept documents, the first character and the end of
    each passage; passages that overlap are one. Counts the passages and their characters.
    """

    name: ClassVar[str] = "passages"
    hashed: tuple[Path, ...]
    clean: tuple[Path, ...]
    decisions: tuple[Path, ...]
    start: int
    """The number of the first passage of these parts."""
    repeats: Path
    """The listing of the outputs that hold `repeats.npy`."""
    length: int

    def key(self) -> list[Any]:
        """The repeated passages, and the passages of these parts."""
        return [self.repeats.name, [hashed.name for hashed in self.hashed], self.start]

    def run(self, out: Path) -> dict[str, Any]:
        counts = {"passages": 0, "characters": 0}
        bounds = [np.load(ensure_local(hashed / "bounds.npy")) for hashed in self.hashed]
        starts = self.start + np.cumsum([0, *(part[-1] for part in bounds)])
        every = SortedRecords.open(listed(self.repeats, "repeats.npy"))
        numbers = every.between(int(starts[0]), int(starts[-1]))["key"].astype(np.int64)
        for number, (start, stop) in enumerate(itertools.pairwise(starts.tolist())):
            a, b = np.searchsorted(numbers, [start, stop])
            spans = merge_overlaps(self.spans(number, bounds[number], numbers[a:b] - start))
            np.save(out / f"{number}.npy", spans)
            counts["passages"] += len(spans)
            counts["characters"] += int((spans[:, 2] - spans[:, 1]).sum())
        return counts

    def spans(self, number: int, bounds: NDArray[np.int64], passages: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the repeated passages of one part stand, (m, 3)."""
        found, first = [np.empty((0, 3), np.int64)], 0
        for texts in kept_texts(self.clean[number], self.decisions[number]) if len(passages) else ():
            inside = bounds[first : first + len(texts) + 1]
            a, b = np.searchsorted(passages, inside[[0, -1]])
            spans = locate(texts, self.length, passages[a:b] - inside[0], inside - inside[0])
            found.append(np.add(spans, [first, 0, 0]))
            first += len(texts)
        return np.concatenate(found)


def cut_passages(
    documents: pa.RecordBatch, spans: NDArray[np.int64]
) -> tuple[pa.RecordBatch, pa.RecordBatch, NDArray[np.bool_]]:
    """Cut passages (document, first character, end) out of a batch of CLEAN.

    Gives the shortened documents, under the ids of their new texts; the documents of which nothing is left, as rows of
    DROPPED; and which of all documents are left.
    """
    texts = without(documents["text"], spans)
    left = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0)
    emptied = documents.filter(pc.invert(left))
    emptied = emptied.append_column("reason", pa.repeat(REASON, len(emptied)))
    emptied = emptied.append_column("of", pa.nulls(len(emptied), pa.string()))
    shorter = with_text(documents, texts).filter(left)
    shorter = shorter.set_column(0, "id", hex_ids(text_digests(shorter["text"])))
    return shorter, emptied.cast(DROPPED), left.to_numpy(zero_copy_only=False)
