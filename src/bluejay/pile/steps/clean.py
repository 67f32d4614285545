"""Clean the documents of a part, filter them, and give each its id."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bluejay.files import sha256_of
from bluejay.pile.filters import chain
from bluejay.pile.filters.quality import model_file
from bluejay.pile.recipe import Component
from bluejay.pile.steps.read import raw_file
from bluejay.pile.text.document_table import (
    CLEAN,
    COMPRESSION,
    DROPPED,
    byte_lengths,
    hex_ids,
    read_batches,
    text_digests,
    text_hashes,
    with_text,
)
from bluejay.pile.text.pii import replace_personal
from bluejay.pile.text.sorted_records import sorted_records
from bluejay.pile.text.unicode import normalise


@dataclass(frozen=True)
class Clean:
    """Clean and filter a part, or a piece of it, as its component asks.

    Writes `documents.parquet` (CLEAN), `dropped.parquet` (DROPPED), `ids.npy` (n,) S32, `sizes.npy` (n,), UTF-8 bytes,
    and `exact.npy`, the `sorted_records` of the text hashes with the column `id`. Counts the documents, the dropped
    ones by reason and the replaced personal data by kind.
    """

    name: ClassVar[str] = "clean"
    raw: Path
    component: Component
    seed: int
    piece: int = 0
    """Which of the files of `Read` is cleaned."""

    def key(self) -> list[Any]:
        """The raw documents, the component's cleaning and filters, the filters' model files, and the seed."""
        models = [sha256_of(file) for file in map(model_file, self.component.filters) if file and file.is_file()]
        return [self.raw.name, self.piece, self.component.clean, self.component.filters, models, self.seed]

    def run(self, out: Path) -> dict[str, Any]:
        ids, sizes, dropped, replaced = [], [], Counter(), Counter()
        clean = cleaner(self.component, self.seed)
        with (
            pq.ParquetWriter(out / "documents.parquet", CLEAN, compression=COMPRESSION) as kept_file,
            pq.ParquetWriter(out / "dropped.parquet", DROPPED, compression="zstd") as dropped_file,
        ):
            for batch in read_batches(self.raw / raw_file(self.piece)):
                kept, rejected, counts = clean(batch)
                replaced.update(counts)
                if len(kept):
                    digests = text_digests(kept["text"])
                    ids.append(np.array(digests, "S32"))
                    sizes.append(byte_lengths(kept["text"]))
                    kept_file.write_batch(kept.add_column(0, "id", hex_ids(digests)))
                if len(rejected):
                    dropped.update(rejected["reason"].to_pylist())
                    rejected = rejected.add_column(0, "id", hex_ids(text_digests(rejected["text"])))
                    dropped_file.write_batch(rejected.append_column("of", pa.nulls(len(rejected), pa.string())))
        every = np.concatenate([*ids, np.empty(0, "S32")])
        np.save(out / "ids.npy", every)
        np.save(out / "exact.npy", sorted_records(text_hashes(every), id=every))
        np.save(out / "sizes.npy", np.concatenate([*sizes, np.empty(0, np.int64)]))
        return {
            "documents": len(every),
            "dropped": dropped,
            "replaced": replaced,
            "stored": (out / "documents.parquet").stat().st_size,
        }


Cleaner = Callable[[pa.RecordBatch], tuple[pa.RecordBatch, pa.RecordBatch, dict[str, int]]]
"""A batch of RAW to cleaned documents, rejected documents (with a column `reason`), and replacements by kind."""


def cleaner(component: Component, seed: int) -> Cleaner:
    """The cleaning and the filters of a component as one function. Raises ValueError: a filter is unknown."""
    apply_filters = chain(component.filters, seed) if component.filters else None

    def clean(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch, dict[str, int]]:
        texts = normalise(batch["text"]) if "unicode" in component.clean else batch["text"]
        reasons = pa.nulls(len(texts), pa.string())
        if apply_filters is not None:
            texts, reasons = apply_filters(texts)
        blank = pc.and_(pc.is_null(reasons), pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0))
        reasons = pc.if_else(blank, "empty when clean", reasons)
        # A rejected document keeps its original text.
        kept, rejected = with_text(batch, texts).filter(pc.is_null(reasons)), batch.filter(pc.is_valid(reasons))
        counts: dict[str, int] = {}
        if "personal-data" in component.clean:
            texts, counts = replace_personal(kept["text"])
            kept = with_text(kept, texts)
        return kept, rejected.append_column("reason", reasons.drop_null()), counts

    return clean
