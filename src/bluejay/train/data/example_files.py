"""Files of examples: JSON lines, JSON arrays, CSV, TSV and Parquet, also compressed, as rows with their places."""

import codecs
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bluejay.decompress import BROKEN, decompressed

Row = dict[str, Any]


@dataclass(frozen=True)
class NoRow:
    """A piece of a file that is no row."""

    reason: str
    """Why, as the end of a sentence that begins with its place."""


def read_rows(path: Path) -> Iterator[tuple[str, Row | NoRow]]:
    """The rows of a file, each with its place in it, such as "line 3".

    Raises FileNotFoundError if there is no such file; ValueError if it is damaged, empty or of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file of examples at {path}")
    try:
        with path.open("rb") as raw, decompressed(raw) as stream:
            data = stream.read()
    except BROKEN as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path} is {error}") from None
    if not data.strip():
        raise ValueError(f"{path} is empty")
    names = path.name.lower().split(".")
    kind = next((name for name in reversed(names) if name in READERS), "jsonl")
    yield from READERS[kind](data, path)


def json_rows(data: bytes, path: Path) -> Iterator[tuple[str, Row | NoRow]]:
    """The objects of a JSON array, or of an object whose only list they are; one object; or those of JSON lines,
    whatever the file's name."""
    data = as_utf8(data)
    text = data.strip()
    is_one_line = b"\n" not in text
    if text.startswith(b"[") or is_one_line or b"\n" in text.split(b"}", 1)[0]:
        whole = parsed(text)
        entries = whole
        if isinstance(whole, dict):
            entries = wrapped(whole) or (None if is_one_line else [whole])
        if isinstance(entries, list):
            yield from ((f"entry {n}", as_row(value)) for n, value in enumerate(entries, start=1))
            return
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            yield f"line {number}", as_row(parsed(line))


def table_rows(data: bytes, path: Path) -> Iterator[tuple[str, Row | NoRow]]:
    """The rows of a file of comma-, semicolon- or tab-separated values, whose first line names the columns."""
    try:
        text = as_utf8(data).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from None
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            extra = None in row
            yield f"line {reader.line_num}", NoRow("has more values than there are columns") if extra else row
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.reader.line_num} is no row of a table: {error}") from None


def parquet_rows(data: bytes, path: Path) -> Iterator[tuple[str, Row | NoRow]]:
    """The rows of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(data))
        rows = (row for batch in file.iter_batches(1024) for row in batch.to_pylist())
        yield from ((f"row {number}", row) for number, row in enumerate(rows, start=1))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not Parquet: {error}") from None


MESSAGES = ({"role", "content"}, {"from", "value"})
"""Keys of the messages of a conversation."""
READERS = {
    "jsonl": json_rows,
    "ndjson": json_rows,
    "json": json_rows,
    "csv": table_rows,
    "tsv": table_rows,
    "parquet": parquet_rows,
}
"""The reader for each suffix."""


def as_utf8(data: bytes) -> bytes:
    """The text of a file in UTF-8 without a byte order mark, which may be that of UTF-16."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace").encode()
    return data.removeprefix(codecs.BOM_UTF8)


def parsed(data: bytes) -> Any:
    """The value of a piece of JSON; NoRow if it is none."""
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError:
        return NoRow("is not UTF-8")
    except (ValueError, RecursionError) as error:
        return NoRow(f"is not JSON: {error}")


def wrapped(whole: Row) -> list[Any] | None:
    """The only list of an object, if it is one of objects and not of the messages of a conversation."""
    lists = [value for value in whole.values() if isinstance(value, list)]
    first = lists[0][0] if len(lists) == 1 and lists[0] else None
    is_row = isinstance(first, dict) and not any(keys <= first.keys() for keys in MESSAGES)
    return lists[0] if is_row else None


def as_row(value: Any) -> Row | NoRow:
    """A value if it can be a row, else why it cannot."""
    return value if isinstance(value, (dict, NoRow)) else NoRow(f"is {kind_of(value)}, not an object of columns")


def kind_of(value: Any) -> str:
    """What a value is, for people."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "an object"
    return f"a {type(value).__name__}"
