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

from bluejay.pile import documents as limits
from bluejay.pile.documents import Document, Skipped
from bluejay.pile.sources.formats.tables import CSV, JSON, JSONLines, Parquet, Table
from bluejay.pile.sources.formats.text import Text
from bluejay.pile.sources.io import csv_rows


def read(source: Table | Text) -> tuple[list[Document], list[Skipped]]:
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


def test_a_record_of_many_values_or_cells_loses_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_VALUE_BYTES", 10_000)
    monkeypatch.setattr(csv_rows, "MAX_CELLS", 9)
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a"}}\n{{"text": "b", "l": [{"[]," * 99}1]}}\n{{"text": "c"}}\n')
    (tmp_path / "a.csv").write_text(f'text\na\n{"b," * 9}\n"c\nd"\n')
    documents, (aside,) = read(JSONLines(kind="jsonl", path=f"{tmp_path}/a.jsonl"))
    assert [document.text for document in documents] == ["a", "c"]
    assert aside.reason.startswith("its values may take more than")
    documents, (aside,) = read(CSV(kind="csv", path=f"{tmp_path}/a.csv"))
    assert ([document.text for document in documents], aside.reason) == (["a", "c\nd"], "a row of more than 9 cells")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_characters_are_read_with_a_byte_order_mark_and_refused_without(
    tmp_path: Path, encoding: str, mark: str
) -> None:
    for kind, source, text in (
        ("csv", CSV, "id,text\n" + "1,今天天气很好\n" * 9),
        ("jsonl", JSONLines, '{"text": "今天天气很好"}\n' * 9),
        ("json", JSON, '[{"text": "今天天气很好"}]'),
        ("text", Text, "今天天气很好\n" * 9),
    ):
        (tmp_path / kind).write_bytes((mark + text).encode(encoding))
        table = source(kind=kind, path=str(tmp_path / kind))
        if mark:
            documents, aside = read(table)
            assert not aside and {found.text.strip().partition("\n")[0] for found in documents} == {"今天天气很好"}
        else:
            with pytest.raises(ValueError, match="not text"):
                read(table)


def test_zeros_are_no_table_but_may_stand_behind_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text\na\nb\n" + bytes(500))
    assert [found.text for found in read(CSV(kind="csv", path=f"{tmp_path}/a.csv"))[0]][:2] == ["a", "b"]
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(200 * 10**9)
    for table in (CSV(kind="csv", path=f"{tmp_path}/sparse"), JSONLines(kind="jsonl", path=f"{tmp_path}/sparse")):
        with pytest.raises(ValueError, match="it begins with nothing but zero bytes"):
            read(table)


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
