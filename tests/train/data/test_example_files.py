"""The rows of a file are the same however the file stores them."""

import bz2
import csv
import gzip
import io
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from bluejay.train.data.example_files import NoRow, read_rows

ROWS = [{"prompt": "Größe?", "completion": '1,5 "m"\nund mehr'}, {"prompt": "b", "completion": "日本"}]


def table(delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["prompt", "completion"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def parquet() -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), data)
    return data.getvalue()


LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
FILES = {
    "a.jsonl": LINES,
    "A.JSONL": LINES,
    "a.ndjson": LINES.replace(b"\n", b"\r\n\n"),
    "lines.json": LINES,
    "a.json": json.dumps(ROWS).encode(),
    "indented.json": json.dumps(ROWS, indent=2).encode(),
    "array.jsonl": json.dumps(ROWS).encode(),
    "wrapped.json": json.dumps({"version": "1", "data": ROWS}, indent=1).encode(),
    "wrapped-line.json": json.dumps({"data": ROWS, "version": "1"}).encode(),
    "mark.jsonl": b"\xef\xbb\xbf" + LINES,
    "wide.jsonl": LINES.decode().encode("utf-16"),
    "a.csv": table(","),
    "excel.csv": b"\xef\xbb\xbf" + table(";"),
    "a.tsv": table("\t"),
    "a.parquet": parquet(),
    "one-after-another.json": "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
    "without-breaks.jsonl": LINES.replace(b"\n", b""),
    "separator.csv": b"\xef\xbb\xbfsep=;\r\n" + table(";"),
    "spaces.csv": table(",").replace(b"prompt,completion", b"prompt, completion "),
    "a.jsonl.gz": gzip.compress(LINES),
    "a.json.bz2": bz2.compress(json.dumps(ROWS).encode()),
    "a.csv.xz": lzma.compress(table(",")),
    "a.jsonl.zst": zstandard.compress(LINES),
}


@pytest.mark.parametrize("name", FILES)
def test_all_kinds_of_file_give_the_same_rows(name, tmp_path):
    (tmp_path / name).write_bytes(FILES[name])
    assert [row for _, row in read_rows(tmp_path / name)] == ROWS


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl.gz", gzip.compress(b" \n\n", mtime=0), "is empty"),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)[:-9], "is damaged"),
        ("a.parquet", b"PAR1 and no more", "is not Parquet"),
        ("a.csv", b'prompt,completion\n"a"b,c\n', "line 2 is not a row of a table"),
        ("a.csv", b"prompt,completion\n\xff,b\n", "line 2 is not UTF-8; spreadsheets save it so"),
        ("a.csv", b"prompt,completion,completion\na,b,c\n", "has two columns of the name completion"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "is a pointer of Git LFS"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(name, data, sentence, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=sentence):
        list(read_rows(tmp_path / name))


def test_a_row_has_its_place_and_what_is_none_its_reason(tmp_path):
    def places(name: str, text: str) -> list[tuple[str, bool]]:
        path: Path = tmp_path / name
        path.write_text(text)
        return [(place, isinstance(row, NoRow)) for place, row in read_rows(path)]

    assert places("a.jsonl", '{"a": 1}\n\n{"a": \n') == [("line 1", False), ("line 3", True)]
    assert places("a.json", '[{"a": 1}, 5]') == [("entry 1", False), ("entry 2", True)]
    assert places("one.json", '{"a": ["x"]}') == [("line 1", False)]
    assert places("a.csv", 'a,b\n1,"2\n3"\n4,5,6\n') == [("line 3", False), ("line 4", True)]
    assert places("broken.json", '[{"a": 1}, {"a"') == [("line 1", True)]
    assert places("comma.json", '[\n{"a": 1},\n{"a": 2},\n\n]')[0][0] in ("line 5", "line 3")  # as Python says it
    assert places("two.json", '{\n"a": 1\n}\n\n{"a": 2} {') == [("line 1", False), ("line 5", False), ("line 5", True)]
    assert places("excel.csv", "sep=,\na,b\n1,2\n3,4,5\n") == [("line 3", False), ("line 4", True)]


def test_a_number_that_is_none_is_a_missing_value(tmp_path):
    """pandas holds missing texts as NaN, and Python writes that into JSON."""
    (tmp_path / "a.jsonl").write_text('{"input": NaN, "messages": [{"name": NaN}]}\n' * 2)
    pq.write_table(pa.table({"input": [float("nan")] * 2, "messages": [[{"name": None}]] * 2}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        assert [row for _, row in read_rows(tmp_path / name)] == [{"input": None, "messages": [{"name": None}]}] * 2


def test_what_stands_beside_the_list_of_rows_is_said(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps({"system": "Be", "examples": ROWS}))
    assert [row for _, row in read_rows(tmp_path / "a.json")] == ROWS
    assert "its rows are those of examples; not used: system" in capsys.readouterr().err


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("name", "keys"),
    [("messages", ("role", "content")), ("x", ("from", "value")), ("conversation", ("input", "output"))],
)
def test_a_conversation_alone_in_a_file_is_one_row(name, keys, indent, tmp_path):
    row = {name: [dict(zip(keys, ("user", "a"), strict=True)), dict(zip(keys, ("assistant", "b"), strict=True))]}
    (tmp_path / "a.json").write_text(json.dumps(row, indent=indent))
    assert [found for _, found in read_rows(tmp_path / "a.json")] == [row]
