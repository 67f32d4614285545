"""The stages between reading and choosing, each over one part: clean it, sign it, hold it against test sets."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bluejay.files import sha256_of
from bluejay.pile.recipe import Component, Decontaminate
from bluejay.pile.steps.read import RAW
from bluejay.pile.text.minhash import MinHashSettings, band_keys, signatures

CLEAN = pa.schema([("id", pa.string()), *RAW])
DROPPED = pa.schema([*CLEAN, ("reason", pa.string()), ("of", pa.string())])
"""The side table: what was dropped, why, and for copies the id of the document that stands for them."""
COMPRESSION = "lz4"
"""Of what only later stages read; faster than a disk."""


@dataclass(frozen=True)
class Cleaning:
    """What `clean_part` works on."""

    raw: Path
    """The directory that `read_part` filled."""
    component: Component
    seed: int

    def decisive(self) -> list[Any]:
        """What the clean documents follow from."""
        models = [sha256_of(file) for file in map(model_of, self.component.filters) if file and file.is_file()]
        return [self.raw.name, self.component.clean, self.component.filters, models, self.seed]


def model_of(filter: str) -> Path | None:
    """The file that a filter names, "quality:FILE>9"."""
    kind, _, rest = filter.partition(":")
    return Path(rest.partition(">")[0]).expanduser() if kind == "quality" else None


def clean_part(cleaning: Cleaning, directory: Path) -> dict[str, Any]:
    """Write `documents.parquet` (CLEAN), `dropped.parquet` (DROPPED), `ids.npy` (n,) S32, `sizes.npy` (n,) in bytes."""
    ids, sizes, counts = [], [], Cleaned()
    sift = sifter(cleaning.component, cleaning.seed)
    with (
        pq.ParquetWriter(directory / "documents.parquet", CLEAN, compression=COMPRESSION) as kept,
        pq.ParquetWriter(directory / "dropped.parquet", DROPPED, compression="zstd") as dropped,
    ):
        for batch in batches(cleaning.raw / "documents.parquet"):
            batch, out = sift(batch, counts)
            if len(batch):
                digests = digests_of(batch["text"])
                ids.append(np.array(digests, "S32"))
                sizes.append(np.diff(offsets_of(batch["text"])).astype(np.int64))
                kept.write_batch(batch.add_column(0, "id", hexadecimal(digests)))
            if len(out):
                nothing = pa.nulls(len(out), pa.string())
                rows = out.add_column(0, "id", hexadecimal(digests_of(out["text"]))).append_column("of", nothing)
                dropped.write_batch(rows)
    np.save(directory / "ids.npy", np.concatenate([*ids, np.empty(0, "S32")]))
    np.save(directory / "sizes.npy", np.concatenate([*sizes, np.empty(0, np.int64)]))
    return {"documents": sum(map(len, ids)), "dropped": counts.dropped, "replaced": counts.replaced}


class Cleaned:
    """What happened to the documents of a part, counted."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.replaced: Counter[str] = Counter()


def sifter(component: Component, seed: int) -> Any:
    """The component's cleaning as one function: batch and counts to the batch that stays and the one that goes."""
    normalise = replace = chain = None
    if "unicode" in component.clean:
        from bluejay.pile.text.unicode import normalise
    if "personal-data" in component.clean:
        from bluejay.pile.text.pii import replace_personal as replace
    if component.filters:
        from bluejay.pile.filters import chain as chained

        chain = chained(component.filters, seed)

    def sift(batch: pa.RecordBatch, counts: Cleaned) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        texts = batch["text"] if normalise is None else normalise(batch["text"])
        reasons = pa.nulls(len(texts), pa.string())
        if chain is not None:
            texts, reasons = chain(texts)
        blank = pc.and_(pc.is_null(reasons), pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0))
        reasons = pc.if_else(blank, "empty when clean", reasons)
        kept, dropped = with_text(batch, texts).filter(pc.is_null(reasons)), batch.filter(pc.is_valid(reasons))
        counts.dropped.update(reasons.drop_null().to_pylist())
        if replace is not None:
            texts, replaced = replace(kept["text"])
            counts.replaced.update(replaced)
            kept = with_text(kept, texts)
        return kept, dropped.append_column("reason", reasons.drop_null())

    return sift


def batches(path: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The row groups of a Parquet file, each as one batch."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group, columns).combine_chunks().to_batches()


def with_text(batch: pa.RecordBatch, texts: pa.StringArray) -> pa.RecordBatch:
    """The batch with other texts."""
    return batch.set_column(batch.schema.get_field_index("text"), RAW.field("text"), texts)


def offsets_of(texts: pa.StringArray) -> np.ndarray:
    """Where each text begins in the array's bytes, and where the last one ends (int32, one more than texts)."""
    return np.frombuffer(texts.buffers()[1], np.int32, len(texts) + 1, 4 * texts.offset)


def digests_of(texts: pa.StringArray) -> list[bytes]:
    """The sha256 of each text."""
    data, offsets = memoryview(texts.buffers()[2] or b""), offsets_of(texts).tolist()
    return [hashlib.sha256(data[a:b]).digest() for a, b in itertools.pairwise(offsets)]


def hexadecimal(digests: list[bytes]) -> pa.StringArray:
    """Digests as the documents' ids are written."""
    return pa.array([digest.hex() for digest in digests], pa.string())


@dataclass(frozen=True)
class Signing:
    """What `sign_part` works on."""

    clean: Path
    """The directory that `clean_part` filled."""
    near: MinHashSettings

    def decisive(self) -> list[Any]:
        """What the signatures follow from; not the threshold, which is held against them later."""
        return [self.clean.name, self.near.bands, self.near.rows, self.near.ngram]


def sign_part(signing: Signing, directory: Path) -> dict[str, Any]:
    """Write `signatures.npy` (n, bands x rows) uint32 and `bands.npy` (bands, n) uint64, a band's keys side by side."""
    near = signing.near
    signed = [signatures(batch["text"], near) for batch in batches(signing.clean / "documents.parquet", ["text"])]
    table = np.concatenate([*signed, np.empty((0, near.bands * near.rows), np.uint32)])
    np.save(directory / "signatures.npy", table)
    np.save(directory / "bands.npy", np.ascontiguousarray(band_keys(table, near).T))
    return {}


@dataclass(frozen=True)
class Holding:
    """What `contaminated_part` works on."""

    clean: Path
    """The directory that `clean_part` filled."""
    decontaminate: Decontaminate
    tests: tuple[str, ...]
    """The files of the test sets."""
    checksums: tuple[str, ...]

    def decisive(self) -> list[Any]:
        """What the reasons follow from."""
        return [self.clean.name, self.decontaminate.ngram, self.checksums]


def contaminated_part(holding: Holding, directory: Path) -> dict[str, Any]:
    """Write `reasons.parquet`: for each document why it is contaminated, or null."""
    against = against_of(holding.tests, holding.decontaminate.ngram)
    with pq.ParquetWriter(directory / "reasons.parquet", pa.schema([("reason", pa.string())])) as writer:
        for batch in batches(holding.clean / "documents.parquet", ["text"]):
            writer.write_batch(pa.record_batch({"reason": against.reasons(batch["text"])}))
    return {}


@cache
def against_of(tests: tuple[str, ...], ngram: int) -> Any:
    """The passages of the test sets, which take long to read."""
    from bluejay.pile.text.test_sets import Against

    return Against.load(tests, ngram)
