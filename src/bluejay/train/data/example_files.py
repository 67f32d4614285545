"""Files of examples: JSON, CSV, TSV and Parquet, also compressed, as rows with their places."""

import codecs
import csv
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bluejay.decompress import BROKEN, decompressed
from bluejay.progress import say

Row = dict[str, Any]
DECODER = json.JSONDecoder(parse_constant=lambda _: None)
"""Reads NaN, which is no JSON and which Python writes for a missing value, as null."""
NOT_SPACE = re.compile(r"\S")
SEPARATOR = re.compile(r'"?sep=(.)"?\r?\n')
"""The line that a spreadsheet may write above a table."""


@dataclass(frozen=True)
class NoRow:
    """A piece of a file that is not a row."""

    reason: str
    """Why, as the end of a sentence that begins with its place."""


def read_rows(path: Path) -> Iterator[tuple[str, Row | NoRow]]:
    """The rows of a file, each with its place in it, such as "line 3". NaN, as which some tables hold a missing value,
    is None.

    Raises FileNotFoundError if there is no such file; ValueError if it is damaged, empty or of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file of examples at {path.absolute()}")
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
    for place, row in READERS[kind](data, path):
        yield place, row if isinstance(row, NoRow) else {name: without_nan(value) for name, value in row.items()}


def json_rows(data: bytes, path: Path) -> Iterator[tuple[str, Row | NoRow]]:
    """The objects of a JSON array, or of an object whose only list they are; one object; those of JSON lines; or
    objects one after the other, whatever the file's name."""
    data = as_utf8(data)
    text = data.strip()
    is_one_line = b"\n" not in text
    if text.startswith(b"[") or is_one_line or b"\n" in text.split(b"}", 1)[0]:
        whole = parsed(text)
        entries = whole
        if isinstance(whole, dict):
            entries = wrapped(whole, path) or (None if is_one_line else [whole])
        if isinstance(entries, list):
            yield from ((f"entry {n}", as_row(value)) for n, value in enumerate(entries, start=1))
            return
        if isinstance(whole, NoRow) and isinstance(parsed(text.split(b"\n", 1)[0]), NoRow):
            yield from values_in(data)
            return
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            yield f"line {number}", as_row(parsed(line))


def values_in(data: bytes) -> Iterator[tuple[str, Row | NoRow]]:
    """The values of JSON that follow one another, as far as they can be read, each with the line where it begins."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        yield line_of(data, error.start), NoRow("is not UTF-8")
        return
    end, line = 0, 1
    while found := NOT_SPACE.search(text, end):
        start = found.start()
        line += text.count("\n", end, start)
        try:
            value, end = DECODER.raw_decode(text, start)
        except json.JSONDecodeError as error:
            yield f"line {error.lineno}", NoRow(f"is not JSON: {error.msg} at column {error.colno}")
            return
        except (ValueError, RecursionError) as error:
            yield f"line {line}", NoRow(f"is not JSON: {error}")
            return
        yield f"line {line}", as_row(value)
        line += text.count("\n", start, end)


def table_rows(data: bytes, path: Path) -> Iterator[tuple[str, Row | NoRow]]:
    """The rows of a file of comma-, semicolon- or tab-separated values, whose first line names the columns."""
    try:
        text = as_utf8(data).decode()
    except UnicodeDecodeError as error:
        place = line_of(data, error.start)
        raise ValueError(f'{path}, {place} is not UTF-8; spreadsheets save it so as "CSV UTF-8"') from None
    named = SEPARATOR.match(text)
    above = 0 if named is None else 1
    lines = text if named is None else text[named.end() :]
    delimiter = max(",;\t", key=lines.split("\n", 1)[0].count) if named is None else named[1]
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.StringIO(lines, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        if twice := next((name for name in names if name and names.count(name) > 1), None):
            raise ValueError(f"{path} has two columns of the name {twice}; give each its own")
        reader.fieldnames = names
        for row in reader:
            extra = None in row
            yield f"line {above + reader.line_num}", NoRow("has more values than there are columns") if extra else row
    except csv.Error as error:
        raise ValueError(f"{path}, line {above + reader.reader.line_num} is not a row of a table: {error}") from None


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
        return DECODER.decode(data.decode())
    except UnicodeDecodeError:
        return NoRow("is not UTF-8")
    except (ValueError, RecursionError) as error:
        return NoRow(f"is not JSON: {error}")


def without_nan(value: Any) -> Any:
    """A value; None for the number that is none."""
    return None if isinstance(value, float) and math.isnan(value) else value


def line_of(data: bytes, position: int) -> str:
    """The place of a byte in a file."""
    number = 1 + data.count(b"\n", 0, position)
    return f"line {number}"


def wrapped(whole: Row, path: Path) -> list[Any] | None:
    """The only list of an object, if it is one of objects and not of the messages of a conversation; what else the
    object holds is said."""
    lists = {name: value for name, value in whole.items() if isinstance(value, list)}
    name, rows = next(iter(lists.items()), ("", []))
    if len(lists) != 1 or name == "conversation" or not rows or not isinstance(rows[0], dict):
        return None
    if any(keys <= rows[0].keys() for keys in MESSAGES):
        return None
    if others := [other for other in whole if other != name]:
        say(f"{path}: its rows are those of {name}; not used: {', '.join(others)}")
    return rows


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
