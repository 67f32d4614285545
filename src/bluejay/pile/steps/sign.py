"""Compute the MinHash signatures of a part, from which near-copies are found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bluejay.pile.text.document_table import read_batches
from bluejay.pile.text.minhash import MinHashSettings, band_keys, signatures


@dataclass(frozen=True)
class Sign:
    """Writes `signatures.npy` (n, bands x rows) uint32 and `bands.npy` (bands, n) uint64, one row of keys per band."""

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
        np.save(out / "bands.npy", np.ascontiguousarray(band_keys(table, near).T))
        return {}
