"""Cut held-out text out of training documents, where the documents that the split holds out are too little.

A share of the documents is little text, or none, in a component of few documents. The text that is missing is cut out
of some of the others at the ends of paragraphs or lines, and next to it a gap is left out of the training text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bluejay.files import sha256_of
from bluejay.pile.recipe import Split
from bluejay.pile.steps.dedup import BY_HASH, KEPT, Decisions
from bluejay.pile.steps.merge import listed
from bluejay.pile.steps.mix import SPLITS, rehash, uniform
from bluejay.pile.text.document_table import (
    CLEAN,
    COMPRESSION,
    byte_lengths,
    hex_ids,
    read_batches,
    text_digests,
    text_hashes,
)
from bluejay.storage import ensure_local

LEAST_SHARE = 0.005
"""Share of a component's text that each held-out split has at least."""
MOST_SHARE = 0.5
"""Share of a component's text that is held out at most, so that small ones keep text to train on."""
USUAL_CUT = 0.1
"""Share of a document that is cut out, unless that is too little."""
PIECE_CHARACTERS = 1024, 8192
"""Shortest and longest piece that is cut out, up to the end of its paragraph."""
PIECES = 64
"""Pieces that a document has, if the limits of their size allow."""
GAP_CHARACTERS = 256
"""Text between training and held-out text that is in neither: up to twice as much, so that it ends with a line, else
with a word."""


@dataclass(frozen=True)
class HoldOut:
    """Top up the held-out text of one component.

    Each part of which something is cut gets a directory CLEAN/ named like the one that it replaces, with the files of
    `Clean` and the `Decisions` of its documents, `decisions.npz`. Counts the documents that were cut, how many more
    there are since, and the bytes that each split got.
    """

    name: ClassVar[str] = "hold-out"
    clean: Path
    """The listing of the documents of each part."""
    decisions: Path
    """The listing of the `Decisions` about them."""
    split: Split
    seed: int

    def key(self) -> list[Any]:
        """The documents, what was decided about them, the split and the seed."""
        texts = [
            [clean.name, sha256_of(decided)]
            for clean, decided in zip(listed(self.clean), listed(self.decisions), strict=True)
        ]
        return [texts, self.split.valid, self.split.test, self.split.least_bytes, self.seed]

    def run(self, out: Path) -> dict[str, Any]:
        missing, share, room = self.missing()
        cutter = Cutter(missing.copy(), share, self.seed, room)
        parts = []
        for clean, path in zip(listed(self.clean), listed(self.decisions), strict=True):
            if (cutter.missing > 0).any():
                rewrite(clean, Decisions.load(path), self.split, cutter, out / clean.name)
                parts.append(clean.name)
        got = {name: int(n) for name, n in zip(SPLITS, missing - cutter.missing, strict=True) if n}
        return {"cut": cutter.cut, "added": cutter.added, "bytes": got, "parts": parts}

    def missing(self) -> tuple[NDArray[np.int64], float, int]:
        """The bytes that each split lacks, (3,), the share of a training document that is to be cut out, and the bytes
        that can be held out before they are more than MOST_SHARE."""
        have, divisible = np.zeros(len(SPLITS), np.int64), 0
        for clean, path in zip(listed(self.clean), listed(self.decisions), strict=True):
            decisions, sizes = Decisions.load(path), np.load(ensure_local(clean / "sizes.npy"))
            splits = decisions.splits(self.split, self.seed)[decisions.kept]
            np.add.at(have, splits, sizes[decisions.kept])
            divisible += int(sizes[divisible_documents(decisions, self.split, self.seed)].sum())
        wanted = [number for number, share in ((1, self.split.valid), (2, self.split.test)) if share > 0]
        least = max(self.split.least_bytes, round(LEAST_SHARE * have.sum())) if self.split.least_bytes else 0
        least = min(least, round(MOST_SHARE * have.sum() / max(1, len(wanted))))
        missing = np.zeros(len(SPLITS), np.int64)
        missing[wanted] = np.maximum(0, least - have[wanted])
        needed = missing.sum() / max(1, divisible)
        share = USUAL_CUT if needed < 0.8 * USUAL_CUT else min(2 * MOST_SHARE, 1.25 * needed)
        return missing, share, int(MOST_SHARE * have.sum()) - int(have[1:].sum())


class Cutter:
    """Cuts held-out text out of training documents until none is missing. A piece, or a document that is too short to
    be cut, is held out where the component has `room` for that many bytes of held-out text, and else stays."""

    def __init__(self, missing: NDArray[np.int64], share: float, seed: int, room: int) -> None:
        self.missing, self.share, self.seed, self.room = missing, share, seed, room
        self.cut = self.added = 0

    def __call__(self, texts: list[str], hashes: NDArray[np.uint64]) -> dict[int, list[tuple[str, int]]]:
        """The documents that are divided: for each, by its number, its pieces and their splits.

        `hashes` are those of the texts; a hash of 0 stands for a document that must stay whole.
        """
        found = {}
        left = self.share * sum(len(text) for text, hash in zip(texts, hashes.tolist(), strict=True) if hash)
        for number in np.argsort(uniform(hashes, self.seed, "held out")).tolist():
            if left <= 0 or not (self.missing > 0).any():
                break
            if not hashes[number]:
                continue
            pieces = self.divide(texts[number], int(rehash(hashes[number : number + 1], self.seed, "pieces")[0]))
            if held_out := sum(len(text) for text, split in pieces if split):
                found[number] = pieces
                left -= held_out
                self.cut += 1
                self.added += len(pieces) - 1
        return found

    def divide(self, text: str, seed: int) -> list[tuple[str, int]]:
        """The pieces of a document, each with its split: training text, and some held-out text with gaps before and
        after it. A document of one piece is held out whole, or stays where there is no room for it."""
        bounds = piece_bounds(text)
        n_pieces = len(bounds) - 1
        splits = np.zeros(n_pieces, np.int64)
        count = max(1, min(round(self.share * n_pieces), n_pieces - (n_pieces > 1)))
        for piece in np.random.default_rng(seed).permutation(n_pieces).tolist():
            split = next((number for number in (1, 2) if self.missing[number] > 0), 0)
            if not count or not split:
                break
            size = len(text[bounds[piece] : bounds[piece + 1]].encode())
            if size <= self.room:
                splits[piece], count = split, count - 1
                self.missing[split] -= size
                self.room -= size
        starts = [0, *(np.flatnonzero(np.diff(splits)) + 1).tolist()]
        pieces = []
        for first, end in zip(starts, [*starts[1:], n_pieces], strict=True):
            begin, stop, split = bounds[first], bounds[end], int(splits[first])
            if not split:
                begin = begin if first == 0 else after_gap(text, begin)
                stop = stop if end == n_pieces else max(begin, before_gap(text, stop))
            if text[begin:stop].strip():
                pieces.append((text[begin:stop], split))
        return pieces


def piece_bounds(text: str) -> list[int]:
    """Where a text can be cut into pieces: at ends of paragraphs, else of lines, else of words."""
    shortest, longest = PIECE_CHARACTERS
    size = min(max(len(text) // PIECES, shortest), longest)
    bounds = [0]
    while len(text) - bounds[-1] > 2 * size:
        start = bounds[-1] + size
        window = text[start : start + size]
        found = re.search(r"\n\s*\n", window) or re.search(r"\n", window) or re.search(r"\s", window)
        bounds.append(start + (found.end() if found else size))
    return [*bounds, len(text)]


def after_gap(text: str, begin: int) -> int:
    """Where training text goes on after held-out text that ends at `begin`: at the first line after a gap, or at the
    first word where that line is far."""
    least, most = begin + GAP_CHARACTERS, begin + 2 * GAP_CHARACTERS
    ends = (text.find(mark, least, most) + 1 for mark in "\n ")
    return min(next(filter(None, ends), least), len(text))


def before_gap(text: str, end: int) -> int:
    """Where training text stops before held-out text that begins at `end`: after the last line before a gap, or after
    the last word where that line is far."""
    least, most = max(0, end - 2 * GAP_CHARACTERS), max(0, end - GAP_CHARACTERS)
    ends = (text.rfind(mark, least, most) + 1 for mark in "\n ")
    return next(filter(None, ends), most)


def divisible_documents(decisions: Decisions, split: Split, seed: int) -> NDArray[np.bool_]:
    """Which documents of a part may be divided, (n,): those of the training split without a near-copy in the corpus."""
    return decisions.kept & (decisions.splits(split, seed) == 0) & ~decisions.shared


def rewrite(clean: Path, decisions: Decisions, split: Split, cutter: Cutter, out: Path) -> None:
    """Write a part with its divided documents in place of the whole ones."""
    out.mkdir()
    divisible = divisible_documents(decisions, split, cutter.seed)
    hashes = text_hashes(np.load(ensure_local(clean / "ids.npy")))
    hashes = np.where(divisible, np.maximum(hashes, 1), 0).astype(np.uint64)
    ids: list[NDArray[Any]] = []
    sizes: list[NDArray[np.int64]] = []
    decided: list[Decisions] = []
    with pq.ParquetWriter(out / "documents.parquet", CLEAN, compression=COMPRESSION) as file:
        start = 0
        for batch in read_batches(clean / "documents.parquet"):
            rows = slice(start, start + len(batch))
            start = rows.stop
            divided = cutter(batch["text"].to_pylist(), hashes[rows])
            batch, part = divide_batch(batch, decisions[rows], divided)
            digests = text_digests(batch["text"])
            ids.append(np.array(digests, "S32"))
            sizes.append(byte_lengths(batch["text"]))
            decided.append(part)
            file.write_batch(batch.set_column(0, "id", hex_ids(digests)))
    np.save(out / "ids.npy", np.concatenate([*ids, np.empty(0, "S32")]))
    np.save(out / "sizes.npy", np.concatenate([*sizes, np.empty(0, np.int64)]))
    Decisions.concatenate(decided).save(out / "decisions.npz")


def divide_batch(
    batch: pa.RecordBatch, decisions: Decisions, divided: dict[int, list[tuple[str, int]]]
) -> tuple[pa.RecordBatch, Decisions]:
    """Replace documents of a batch by their pieces, which keep source, licence and address, and decide about these."""
    texts, rows, splits = [], [], []
    for row, text in enumerate(batch["text"].to_pylist()):
        for piece, split in divided.get(row, [(text, BY_HASH)]):
            texts.append(piece)
            rows.append(row)
            splits.append(split)
    taken, fixed = np.array(rows, np.int64), np.array(splits, np.uint8)
    column = batch.schema.get_field_index("text")
    batch = batch.take(pa.array(taken)).set_column(column, CLEAN.field("text"), pa.array(texts, pa.string()))
    part = decisions[taken]
    representative = part.representative_id.copy()
    pieces = fixed != BY_HASH
    representative[pieces] = np.array(text_digests(batch["text"]), "S32")[pieces]
    assert (part.decision[pieces] == KEPT).all()
    return batch, Decisions(part.decision, representative, np.where(pieces, fixed, part.fixed), part.shared)


def held_out_bytes(counts: dict[str, Any]) -> Iterator[str]:
    """What was cut out, for the user: one phrase for each split that got text."""
    for name, size in counts["bytes"].items():
        yield f"{size / 1000:,.0f} kB of {name} text"
