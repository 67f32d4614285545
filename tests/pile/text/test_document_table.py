"""Tables are written in row groups that fit into memory, and whose ends do not depend on metadata of ordinary size."""

from pathlib import Path

import pytest

from bluejay.pile.text import document_table
from bluejay.pile.text.document_table import RAW, TableWriter, read_batches


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
