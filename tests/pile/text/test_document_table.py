"""Tables are written in row groups that fit into memory, and whose ends do not depend on metadata of ordinary size;
those are read that have what is wanted."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bluejay.pile.text import document_table
from bluejay.pile.text.document_table import RAW, TableWriter, read_batches, read_texts


def groups(path: Path, text: int, meta: int, n: int = 40) -> list[int]:
    """The rows of each row group of a table of `n` rows, with so many characters in two of their columns."""
    row = {"text": "t" * text, "source": "", "licence": "", "url": "", "meta": "m" * meta}
    with TableWriter(path, RAW) as writer:
        for _ in range(n):
            writer.add(row, len(row["text"]))
    batches = list(read_batches(path))
    assert [batch.schema for batch in batches] == [RAW] * len(batches)
    assert {tuple(found.values()) for batch in batches for found in batch.to_pylist()} == {tuple(row.values())}
    return [batch.num_rows for batch in batches]


def test_row_groups_are_bounded_by_text_and_by_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_table, "ROW_GROUP_BYTES", 1000)
    monkeypatch.setattr(document_table, "MOST_HELD", 16_000)
    assert groups(tmp_path / "a", text=100, meta=0) == [10] * 4
    assert groups(tmp_path / "b", text=100, meta=1400) == [10] * 4
    assert groups(tmp_path / "c", text=100, meta=7_900) == [2] * 20
    assert groups(tmp_path / "d", text=0, meta=3_200) == [5] * 8
    assert groups(tmp_path / "e", text=2000, meta=0, n=2) == [1, 1]


def test_row_groups_without_a_wanted_text_are_not_read(tmp_path: Path) -> None:
    path, texts = tmp_path / "a.parquet", pa.array([f"text {number}" for number in range(40)])
    pq.write_table(pa.table({"text": texts}), path, row_group_size=10, compression="none", use_dictionary=False)
    damaged = path.read_bytes()
    start = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    path.write_bytes(damaged[:start] + bytes(100) + damaged[start + 100 :])
    wanted = np.isin(np.arange(40), (3, 30, 39))
    assert [found.to_pylist() for found in read_texts(path, wanted)] == [["text 3"], ["text 30", "text 39"]]
    with pytest.raises(OSError, match=r"\w"):
        list(read_texts(path, ~wanted))
    assert list(read_texts(tmp_path / "elsewhere.parquet", np.zeros(40, np.bool_))) == []
