"""The signatures of a part are those of its documents, and are not all in memory at once."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bluejay.pile.steps.sign import Sign
from bluejay.pile.text import text_batch
from bluejay.pile.text.minhash import MinHashSettings, band_keys, signatures
from bluejay.pile.text.sorted_records import sorted_records


def test_many_short_documents_are_signed_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_batch, "MAX_BATCH_TEXTS", 200)
    near = MinHashSettings(bands=20)
    texts = pa.array([f"short text {number % 3500}" for number in range(4000)])
    pq.write_table(pa.table({"text": texts}), tmp_path / "documents.parquet", row_group_size=2500)
    np.save(tmp_path / "ids.npy", np.arange(16_000, dtype=">u8").view("S32"))
    whole = signatures(texts, near)  # first, because its tables of characters stay
    out = tmp_path / "out"
    out.mkdir()
    tracemalloc.start()
    Sign(tmp_path, near).run(out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < whole.nbytes / 1.5
    assert (np.load(out / "signatures.npy") == whole).all()
    keys = band_keys(whole, near)
    assert [band.tolist() for band in np.load(out / "bands.npy")] == [sorted_records(band).tolist() for band in keys.T]
