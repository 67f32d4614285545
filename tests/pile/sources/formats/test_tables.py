"""Records become documents; what is broken is named and takes nothing with it."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from bluejay.pile.documents import Document, Skipped
from bluejay.pile.sources.formats.tables import CSV, JSON, JSONLines, Parquet, Table


def read(source: Table) -> tuple[list[Document], list[Skipped]]:
    """All that a source gives."""
    found = [found for unit in source.units() for found in source.read(unit)]
    return [f for f in found if isinstance(f, Document)], [f for f in found if isinstance(f, Skipped)]


def line(text: Any, **fields: Any) -> bytes:
    """A record as a line."""
    return json.dumps({"text": text, **fields}).encode() + b"\n"


def test_the_pile_in_frames(tmp_path: Path) -> None:
    file, texts = tmp_path / "00.jsonl.zst", [f"text {number}" * 20 for number in range(3000)]
    frames = [
        zstandard.ZstdCompressor().compress(
            b"".join(line(t, meta={"pile_set_name": "Github"}) for t in texts[at : at + 1000])
        )
        for at in range(0, 3000, 1000)
    ]
    file.write_bytes(b"".join(frames))
    documents, aside = read(JSONLines(kind="jsonl", path=str(file)))
    assert [document.text for document in documents] == texts
    assert documents[0].meta == {"pile_set_name": "Github"}
    assert not aside
    file.write_bytes(b"".join(frames)[:-100])
    documents, aside = read(JSONLines(kind="jsonl", path=str(file)))
    assert [document.text for document in documents[:2000]] == texts[:2000]
    assert "broken off after line" in aside[0].reason


def test_components_by_any_of_their_names(tmp_path: Path) -> None:
    file = tmp_path / "mixed.jsonl"
    names = ("Pile-CC", "CommonCrawl", "Books3", "USPTO", "UPSTO Backgrounds", "USPTO Backgrounds", None)
    file.write_bytes(b"".join(line(str(name), meta={"pile_set_name": name}) for name in names))

    def texts(component: str) -> list[str]:
        return [d.text for d in read(JSONLines(kind="jsonl", path=str(file), pile_set_name=component))[0]]

    file.write_bytes(
        file.read_bytes() + line("a text", meta='{"pile_set_name": "Books3"}') + line("b", meta="{no JSON")
    )
    assert texts("Books3") == ["Books3", "a text"]
    assert texts("Pile-CC") == ["Pile-CC", "CommonCrawl"]
    assert texts("USPTO Backgrounds") == ["USPTO", "UPSTO Backgrounds", "USPTO Backgrounds"]


def test_mixed_schemas_and_broken_lines_lose_no_good_record(tmp_path: Path) -> None:
    file = tmp_path / "mixed.jsonl.gz"
    lines = [
        b"\xef\xbb\xbf" + line("a", meta={"n": 1}),
        line("b", meta={"n": "one"}, license="MIT", url="https://x"),
        b"\n",
        line(["c1", "c2"], meta=None),
        b'{"text": "caf\xe9"}\n',
        b'{"text": "cut\n',
        b'"only a string"\n',
        line(None),
        b"[" * 100_000 + b"\n",
        line("d", metadata={"license": "CC-BY-4.0", "source": "peS2o"}, meta=["odd"]),
        b'{"text": "\\ud800 e", "n": NaN}',
    ]
    file.write_bytes(gzip.compress(b"".join(lines[:5])) + gzip.compress(b"".join(lines[5:])))
    documents, aside = read(JSONLines(kind="jsonl", path=str(file), licence="CC0-1.0"))
    assert [d.text for d in documents] == ["a", "b", "c1\n\nc2", "café", "d", "\ud800 e"]
    assert [d.licence for d in documents] == ["CC0-1.0", "MIT", "CC0-1.0", "CC0-1.0", "CC-BY-4.0", "CC0-1.0"]
    assert documents[1].url == "https://x"
    assert documents[4].source == "peS2o"
    assert [entry.name.rpartition("#")[2] for entry in aside] == ["6", "7", "8", "9"]


def test_an_empty_file_has_no_document(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "empty.csv").touch()
    assert read(JSONLines(kind="jsonl", path=f"{tmp_path}/*.jsonl")) == ([], [])
    assert read(CSV(kind="csv", path=f"{tmp_path}/*.csv")) == ([], [])


def test_csv_as_a_spreadsheet_writes_it(tmp_path: Path) -> None:
    rows, packed = [("1", 'a "quoted"\ntext, of two lines'), ("2", "ö"), ("3", "x" * 300_000)], io.StringIO(newline="")
    csv.writer(packed, delimiter=";").writerows([("id", "speech"), *rows])
    file = tmp_path / "speeches.csv"
    file.write_bytes(packed.getvalue().encode("utf-8-sig") + b"4;caf\xe9\n5;a;b\n6\n7;last;\n")
    documents, aside = read(CSV(kind="csv", path=str(file), text="speech", separator=";"))
    assert [d.text for d in documents] == [text for _, text in rows] + ["café", "last"]
    assert documents[0].meta == {"id": "1"}
    assert [entry.reason for entry in aside] == [
        "a row of 3 values under a header of 2",
        "the field speech holds no text",
    ]
    with pytest.raises(ValueError, match=r"no column text \(it has id, speech\)"):
        read(CSV(kind="csv", path=str(file), separator=";"))
    with pytest.raises(ValueError, match=r'it has id;speech\); write separator = ";"'):
        read(CSV(kind="csv", path=str(file), text="text"))
    with pytest.raises(ValueError, match="separator is ', '; it must be one character"):
        CSV(kind="csv", path="x", separator=", ")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_tables_in_any_encoding(tmp_path: Path, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    texts = ["Grüße aus Köln", "élève à Noël"]
    for kind, content, source in (
        ("jsonl", "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts), JSONLines),
        ("json", json.dumps([{"text": t} for t in texts], ensure_ascii=False), JSON),
        ("csv", "id,text\n" + "".join(f"1,{text}\n" for text in texts), CSV),
    ):
        (tmp_path / kind).write_bytes(pack(content.encode(encoding)))
        how = {"records": "*"} if kind == "json" else {}
        documents, aside = read(source(kind=kind, path=str(tmp_path / kind), **how))
        assert ([d.text for d in documents], aside) == (texts, [])


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        (b'{"content": "a", "id": 1}\n', ["the record has no field text: it has content, id"]),
        (b"{}\n", ["the record has no field text: it has none"]),
        (
            b'[{"text": "a"}]\n',
            ['not a record but an array: kind = "json", or a name that ends in .json, reads arrays'],
        ),
        (
            b'"a"\n3\nnull\ntrue\n',
            [f"not a record but {kind}" for kind in ("a string", "a number", "null", "a truth value")],
        ),
        *(
            (
                start + b' {"text": "a"},\n {"text": "b"}\n]\n',
                [
                    "not a JSON value per line but one over several lines: "
                    'kind = "json", or a name that ends in .json, reads arrays'
                ],
            )
            for start in (b"[\n", b"\n[\n", b"[", b" [", b"\n[")
        ),
    ],
)
def test_records_that_are_none_say_how_to_read_them(tmp_path: Path, content: bytes, reasons: list[str]) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    documents, aside = read(JSONLines(kind="jsonl", path=str(tmp_path / "a.jsonl")))
    assert ([entry.reason for entry in aside], documents) == (reasons, [])


def test_an_integer_of_any_length_costs_no_record(tmp_path: Path) -> None:
    for kind, source in (("jsonl", JSONLines), ("json", JSON)):
        (tmp_path / kind).write_bytes(b'{"text": "a", "n": 12, "long": -' + b"7" * 5000 + b"}\n")
        documents, aside = read(source(kind=kind, path=str(tmp_path / kind)))
        assert ([d.meta for d in documents], aside) == ([{"n": 12, "long": "-" + "7" * 5000}], [])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_a_csv_file_end_in_any_way(tmp_path: Path, end: str) -> None:
    (tmp_path / "a.csv").write_bytes(f'text,id{end}hello,1{end}"a ""b""",2{end}'.encode())
    documents, aside = read(CSV(kind="csv", path=str(tmp_path / "a.csv")))
    assert ([(d.text, d.meta) for d in documents], aside) == ([("hello", {"id": "1"}), ('a "b"', {"id": "2"})], [])


def test_the_header_of_a_second_table_in_a_file_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,id\nhello,1\n" * 2)
    documents, aside = read(CSV(kind="csv", path=str(tmp_path / "a.csv")))
    assert [d.text for d in documents] == ["hello", "hello"]
    assert [entry.reason for entry in aside] == ["the header again"]


def test_two_columns_of_the_name_of_the_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "csv").write_text("text,text\na,b\n")
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), tmp_path / "parquet")
    for kind, source in (("csv", CSV), ("parquet", Parquet)):
        with pytest.raises(ValueError, match="it has 2 columns text"):
            read(source(kind=kind, path=str(tmp_path / kind)))


def test_a_text_within_an_object_of_a_record_is_found_by_a_dot(tmp_path: Path) -> None:
    records = [{"id": 1, "data": {"text": "one", "language": "en"}}, {"id": 2, "data": {"title": "none"}}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    tables = [JSONLines(kind="jsonl", path=str(tmp_path / "a.jsonl"), text="data.text")]
    tables.append(Parquet(kind="parquet", path=str(tmp_path / "a.parquet"), text="data.text"))
    for table in tables:
        [document], [aside] = read(table)
        assert (document.text, document.meta["id"], document.meta["data.language"]) == ("one", 1, "en")
        assert "one" not in document.meta.values() and "the " in aside.reason and "field data.text" in aside.reason


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
        (pa.array([[("at", 1)]], pa.map_(pa.string(), pa.timestamp("ns"))), [("at", "1970-01-01 00:00:00.000000001")]),
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
    found = Parquet(kind="parquet", path="").read(str(tmp_path / "a.parquet"))
    assert next(found) and pa.total_allocated_bytes() - before < table.nbytes / 2
    assert sum(1 for _ in found) == 19_999


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


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_table_in_an_unknown_encoding_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    table = "id,text\n" + "1,今天天气很好，我们去公园散步。\n" * 9
    (tmp_path / "a.csv").write_bytes(pack(table.encode("gb18030")))
    with pytest.raises(ValueError, match="its encoding is unknown"):
        read(CSV(kind="csv", path=str(tmp_path / "a.csv")))
    (tmp_path / "a.csv").write_bytes(pack(table.encode("utf-16")))
    assert len(read(CSV(kind="csv", path=str(tmp_path / "a.csv")))[0]) == 9


def test_records_within_json(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"results": {"x": [{"body": "one"}, {"body": 2}], "y": [{"body": "three"}]}}))
    documents, aside = read(JSON(kind="json", path=str(file), records="results.*.*", text="body"))
    assert [d.text for d in documents] == ["one", "three"]
    assert [entry.name.rpartition("#")[2] for entry in aside] == ["2"]
    with pytest.raises(ValueError, match="it has no hits"):
        read(JSON(kind="json", path=str(file), records="hits.*"))
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(ValueError, match="not JSON"):
        read(JSON(kind="json", path=str(file)))


def test_how_records_in_arrays_of_arrays_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[[{"text": "one"}, {"text": "two"}]]')
    documents, (aside,) = read(JSON(kind="json", path=str(tmp_path / "a.json")))
    assert (documents, aside.reason) == ([], 'not a record but an array: records = "*.*" reads its entries')
    documents, _ = read(JSON(kind="json", path=str(tmp_path / "a.json"), records="*.*"))
    assert [document.text for document in documents] == ["one", "two"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda raw: gzip.compress(raw) + b"more"])
@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ([{"text": "one"}, {"text": "two"}], ["one", "two"]),
        ({"text": "one", "results": [1]}, ["one"]),
        (b'{"text": "one"}\n\n{"text": "two"}\n', ["one", "two"]),
        (b'\n{"text": "one"}', ["one"]),
        (b"[]", []),
    ],
)
def test_json_by_its_layout(tmp_path: Path, content: Any, texts: list[str], pack: Callable[[bytes], bytes]) -> None:
    for indent in (None, 1):
        raw = content if isinstance(content, bytes) else json.dumps(content, indent=indent).encode()
        (tmp_path / "a.json").write_bytes(pack(raw))
        documents, aside = read(JSON(kind="json", path=str(tmp_path / "a.json")))
        assert [d.text for d in documents] == texts
        assert [entry.reason[:10] for entry in aside] == ["broken off"] * pack(b"").endswith(b"more")


def test_a_broken_line_of_json_by_lines_costs_itself(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(line("one") + b"{\n" + b"[1]\n" + line("two"))
    documents, aside = read(JSON(kind="json", path=str(tmp_path / "a.json")))
    assert [d.text for d in documents] == ["one", "two"] and len(aside) == 2


def test_text_in_a_binary_column_and_pictures_beside_it(tmp_path: Path) -> None:
    columns = {"text": [b"caf\xc3\xa9", b"\x89PNG\0\0\1\2\3", None], "picture": [b"\0"] * 3, "n": [1, 2, 3]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    documents, aside = read(Parquet(kind="parquet", path=str(tmp_path / "a.parquet")))
    assert [(d.text, d.meta) for d in documents] == [("café", {"n": 1})]
    assert [entry.reason for entry in aside] == [
        "the field text is not text: it has too many control characters",
        "the field text holds no text",
    ]


def test_an_outline_keeps_the_names_of_its_parts(tmp_path: Path) -> None:
    country = {"Geography": {"Area": {"total": {"text": "28,748 sq km"}, "note": "small"}, "Coast": {"text": "long"}}}
    (tmp_path / "al.json").write_text(json.dumps(country))
    (document,), _ = read(JSON(kind="json", path=str(tmp_path / "al.json"), outline=True))
    assert document.text == "\nGeography\n\nArea\ntotal: 28,748 sq km\nnote: small\nCoast: long"


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (b"PK\x03\x04\x14\0\0\0 a.csv text\n1,2\n", 'a zip archive, .* kind = "archive" reads'),
        (b"PAR1\x15\x04\x15", 'Parquet, which kind = "parquet" reads'),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "a 7z archive"),
        (b"\n<!DOCTYPE html>\n<html>\n404\n", "a web page and no table"),
    ],
)
def test_a_file_of_another_format_is_no_table(tmp_path: Path, start: bytes, says: str) -> None:
    (tmp_path / "a").write_bytes(start)
    for source in (CSV(kind="csv", path="x"), JSON(kind="json", path="x"), JSONLines(kind="jsonl", path="x")):
        with pytest.raises(ValueError, match=says):
            list(source.read(str(tmp_path / "a")))
        with pytest.raises(ValueError, match=says):
            list(source.read_stream("a", gzip.compress(start)))


def test_a_pointer_in_place_of_parquet_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="a pointer of Git LFS, not the file itself"):
        list(Parquet(kind="parquet", path="x").read(str(tmp_path / "a.parquet")))


def test_the_line_in_which_excel_names_the_separator_is_no_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sep=;\r\nid;text\r\n1;a, b\r\n")
    documents, aside = read(CSV(kind="csv", path=f"{tmp_path}/a.csv", separator=";"))
    assert ([document.text for document in documents], aside) == (["a, b"], [])
    with pytest.raises(ValueError, match='write separator = ";"'):
        read(CSV(kind="csv", path=f"{tmp_path}/a.csv"))


def test_a_component_that_a_file_lacks_is_said_with_those_that_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b"".join(line(name, meta={"pile_set_name": name}) for name in ("Github", "ArXiv"))
    )
    documents, aside = read(JSONLines(kind="jsonl", path=f"{tmp_path}/a.jsonl", pile_set_name="GitHub"))
    assert ([entry.reason for entry in aside], documents) == (
        ["no document has the pile_set_name GitHub: it has ArXiv, Github"],
        [],
    )


@pytest.mark.parametrize("name", ["license", "licenses"])
def test_several_licences_of_a_record_are_all_stated(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(line("a", meta={name: ["MIT", "Apache-2.0"]}) + line("b", **{name: []}))
    documents, _ = read(JSONLines(kind="jsonl", path=f"{tmp_path}/a.jsonl", licence="CC0-1.0"))
    assert [document.licence for document in documents] == ["MIT AND Apache-2.0", "CC0-1.0"]
