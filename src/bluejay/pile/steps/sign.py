"""Compute the MinHash signatures of a part, from which near-copies are found."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bluejay.pile.text.document_table import read_batches, text_hashes
from bluejay.pile.text.minhash import MinHashSettings, band_keys, batch_signatures
from bluejay.pile.text.sorted_records import row_type, sorted_records, write_array
from bluejay.pile.text.text_batch import TextBatch, split_texts
from bluejay.storage import ensure_local


@dataclass(frozen=True)
class Sign:
    """Writes `signatures.npy` (n, bands x rows) uint32, `bands.npy` (bands, n), `sorted_records` of each band, and
    `texts.npy` (n,), the hash of each text."""

    name: ClassVar[str] = "sign"
    clean: Path
    near: MinHashSettings

    def key(self) -> list[Any]:
        """The documents and the shape of the signatures; the threshold is only applied later."""
        return [self.clean.name, self.near.bands, self.near.rows, self.near.ngram]

    def run(self, out: Path) -> dict[str, Any]:
        near, ids = self.near, np.load(ensure_local(self.clean / "ids.npy"))
        keys = np.empty((near.bands, len(ids)), np.uint64)

        def signed() -> Iterator[NDArray[np.uint32]]:
            """Yield the signatures of a few documents at a time, and fill in their keys, a quarter of the bytes."""
            first = 0
            for batch in read_batches(self.clean / "documents.parquet", ["text"]):
                for group in split_texts(batch["text"]):
                    some = batch_signatures(TextBatch(group), near)
                    keys[:, first : first + len(some)] = band_keys(some, near).T
                    first += len(some)
                    yield some

        write_array(out / "signatures.npy", np.dtype(np.uint32), (len(ids), near.bands * near.rows), signed())
        record = np.dtype([("key", np.uint64), ("row", row_type(len(ids)))])
        write_array(out / "bands.npy", record, keys.shape, map(sorted_records, keys))
        np.save(out / "texts.npy", text_hashes(ids))
        return {}
