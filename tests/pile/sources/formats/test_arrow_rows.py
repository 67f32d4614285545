"""Rows of Parquet become documents, whatever their columns and however large they are."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bluejay.pile.documents import Document, Skipped
from bluejay.pile.sources.formats import arrow_rows
from bluejay.pile.sources.formats.tables import Parquet
from tests.pile.sources.formats.test_tables import read


def test_parquet_of_any_columns(tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2, 3], "content": ["a", None, "c"], "license": ["MIT", "MIT", None]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    documents, aside = read(Parquet(kind="parquet", path=str(tmp_path / "a.parquet"), text="content"))
    assert [(d.text, d.licence, d.meta["id"]) for d in documents] == [("a", "MIT", 1), ("c", "unknown", 3)]
    assert len(aside) == 1
    with pytest.raises(ValueError, match=r"no column text \(it has id, content, license\)"):
        read(Parquet(kind="parquet", path=str(tmp_path / "a.parquet")))
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-10])
    with pytest.raises(ValueError, match="not a whole Parquet file"):
        read(Parquet(kind="parquet", path=str(tmp_path / "b.parquet"), text="content"))


FAR = 4 * 10**17
"""In microseconds, a time after the year 9999."""


@pytest.mark.parametrize(
    ("column", "read_as"),
    [
        (pa.array([1], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
        (pa.array([1], pa.timestamp("ns", "Europe/Berlin")), "1970-01-01 01:00:00.000000001+0100"),
        (pa.array([FAR], pa.timestamp("us")), "14645-06-30 15:06:40.000000"),
        (pa.array([FAR], pa.timestamp("us", "Mars/Jezero")), FAR),
        (pa.array([10**7], pa.date32()), "29349-01-26"),
        (pa.array([1], pa.time64("ns")), "00:00:00.000000001"),
        (pa.array([1], pa.duration("ns")), "1"),
        (pa.array([[1]], pa.list_(pa.timestamp("ns"))), ["1970-01-01 00:00:00.000000001"]),
        (pa.array([{"at": FAR}], pa.struct([("at", pa.timestamp("us", "Mars/Jezero"))])), {"at": FAR}),
        (pa.array([[("at", 1)]], pa.map_(pa.string(), pa.timestamp("ns"))), [["at", "1970-01-01 00:00:00.000000001"]]),
        (pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"]).buffers()), "café"),
    ],
)
def test_values_that_python_cannot_hold_lose_no_row(tmp_path: Path, column: pa.Array, read_as: object) -> None:
    odd = pa.concat_arrays([column, pa.nulls(1, column.type)])
    plain = pa.array([0, 0], pa.timestamp("us", "UTC"))
    for name, at in (("a", odd), ("b", odd.slice(1))):
        n = len(at)
        table = pa.table({"text": [f"text {name}"] * n, "plain": plain.slice(0, n), "odd": at})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    documents, aside = read(Parquet(kind="parquet", path=f"{tmp_path}/*.parquet"))
    assert ([d.text for d in documents], aside) == (["text a", "text a", "text b"], [])
    assert [d.meta["odd"] for d in documents] == [read_as, None, None]
    assert {str(d.meta["plain"]) for d in documents} == {"1970-01-01 00:00:00+00:00"}


def test_a_large_row_group_is_not_in_memory_at_once(tmp_path: Path) -> None:
    table = pa.table({"text": [f"{number:07}" * 100 for number in range(20_000)]})
    pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False)
    before = pa.total_allocated_bytes()
    found = Parquet(kind="parquet", path="").records(str(tmp_path / "a.parquet"), io.BytesIO())
    assert next(found) and pa.total_allocated_bytes() - before < table.nbytes / 2
    assert sum(1 for _ in found) == 19_999


def test_rows_take_little_memory_at_once_and_one_that_takes_too_much_costs_its_row_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, read_all = [], arrow_rows.records_of

    def records_of(batch: pa.RecordBatch) -> list[dict[str, object]]:
        sizes.append(len(batch))
        if batch.num_rows * max(map(len, batch["text"].to_pylist())) > 30_000:
            raise MemoryError
        return read_all(batch)

    monkeypatch.setattr(arrow_rows, "records_of", records_of)
    monkeypatch.setattr(arrow_rows, "BYTES_AT_ONCE", 20_000)
    texts = [f"{number:1000}" for number in range(50)] + ["shared" * 1000] * 50 + ["x" * 40_000] * 50 + ["y"] * 50
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=50)
    found = list(Parquet(kind="parquet", path="").records(str(tmp_path / "a.parquet"), io.BytesIO()))
    documents = [entry for entry in found if isinstance(entry, Document)]
    assert [document.text for document in documents] == texts[:100] + texts[150:]
    assert [document.url.rpartition("#")[2] for document in documents[99:101]] == ["100", "151"]
    assert [entry.reason for entry in found if isinstance(entry, Skipped)] == ["takes too much memory to parse"]
    assert sizes[0] < 25


def test_a_broken_row_group_loses_no_other(tmp_path: Path) -> None:
    table = pa.table({"text": [f"{number}" * 5000 for number in range(4)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1, compression="zstd", use_dictionary=False)
    at = pq.read_metadata(tmp_path / "a.parquet").row_group(1).column(0).data_page_offset
    raw = bytearray((tmp_path / "a.parquet").read_bytes())
    raw[at : at + 40] = b"\xff" * 40
    (tmp_path / "a.parquet").write_bytes(raw)
    documents, aside = read(Parquet(kind="parquet", path=str(tmp_path / "a.parquet")))
    assert [d.text[0] for d in documents] == ["0", "2", "3"]
    assert aside[0].name.endswith("row group 1")


def test_a_pointer_in_place_of_parquet_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="a pointer of Git LFS, not the file itself"):
        list(Parquet(kind="parquet", path="x").read(str(tmp_path / "a.parquet")))
