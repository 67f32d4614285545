"""Compute the MinHash signatures of a part, from which near-copies are found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bluejay.pile.text.document_table import read_batches, text_hashes
from bluejay.pile.text.minhash import MinHashSettings, band_keys, signatures
from bluejay.pile.text.sorted_records import sorted_records


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
        near = self.near
        signed = [signatures(batch["text"], near) for batch in read_batches(self.clean / "documents.parquet", ["text"])]
        table = np.concatenate([*signed, np.empty((0, near.bands * near.rows), np.uint32)])
        np.save(out / "signatures.npy", table)
        np.save(out / "bands.npy", np.stack([sorted_records(keys) for keys in band_keys(table, near).T]))
        np.save(out / "texts.npy", text_hashes(np.load(self.clean / "ids.npy")))
        return {}
