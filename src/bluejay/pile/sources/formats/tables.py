"""Records with a text field: JSON Lines (the exchange format of The Pile), JSON, CSV and Parquet."""

import io
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, ClassVar, Literal, cast

from bluejay.decompress import BROKEN, READ_BYTES, decompressed, refuse_pointer
from bluejay.files import unnested
from bluejay.pile.documents import BROKEN_OFF, MAX_DOCUMENT_BYTES, Document, Skipped, read_bounded, too_large
from bluejay.pile.sources.formats.arrow_rows import UNFIT, rows_of
from bluejay.pile.sources.formats.json_objects import from_first_line, is_by_line, json_value, wrong_with
from bluejay.pile.sources.io.csv_rows import rows
from bluejay.pile.sources.io.decode import (
    Encoding,
    decode_text,
    in_utf8,
    recoded,
    refuse_other_format,
    refuse_unknown,
    refuse_zeros,
    start_of,
)
from bluejay.pile.sources.io.lines import lines
from bluejay.pile.sources.io.open import UntilDamaged, local, matching, open_bytes
from bluejay.pile.sources.io.parse import reason
from bluejay.pile.sources.io.ranges import FileRange, Records, opens_value
from bluejay.pile.sources.io.sandbox import sandboxed
from bluejay.recipe import STRICT, NotEmpty

MAX_ROW_BYTES = 1 << 24
"""A longer row of a CSV file has a quotation mark that is never closed."""
NAMES_SHOWN = 8
"""Fields that a message names."""
READ_ARRAY = 'kind = "json", or a name that ends in .json, reads arrays'
WEB_PAGE = re.compile(rb"\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)
"""The start of what servers send in place of a file: a page about it, an error, a login."""
OVER_LINES = f"not a JSON value per line but one over several lines: {READ_ARRAY}"
RELEASED_NAMES = {
    "CommonCrawl": "Pile-CC",
    "Bibliotik": "Books3",
    "BookCorpus": "BookCorpus2",
    "USPTO": "USPTO Backgrounds",
    "UPSTO Backgrounds": "USPTO Backgrounds",
}
"""Component names in The Pile's code or in copies of it -> the names in its release."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The fields of every kind of table in a recipe."""

    __pydantic_config__ = STRICT
    path: NotEmpty
    """A file, a pattern of files or an address; within a package, a pattern of its members."""
    text: str = "text"
    """The field that holds a document's text; data.text is the field text of the object data."""
    licence: str = "unknown"
    """The licence of records that do not state their own."""

    @property
    def reads_array(self) -> str:
        """What to write to read the records of an array."""
        return READ_ARRAY

    def units(self) -> list[str]:
        """The files, in order. Raises ValueError: there is none."""
        return matching(self.path, getattr(self, "kind", ""))

    def document(self, name: str, number: int, record: Any) -> Document | Skipped:
        """The document of one record; its licence and URL are those of the record, if it has such fields."""
        place = f"{name}#{number}"
        if not isinstance(record, Mapping):
            return Skipped(place, "not a record but " + kind_of(record, self.reads_array))
        if self.text not in record and self.text not in (record := unnested(record, [self.text])):
            return Skipped(place, f"the record has no field {self.text}: it has {listed(record)}")
        if isinstance(text := record[self.text], bytes):  # a column of Parquet that does not say that it is text
            try:
                text = decode_text(text)
            except ValueError as error:
                return Skipped(place, f"the field {self.text} is {error}")
        if isinstance(text, list) and all(isinstance(part, str) for part in text):
            text = "\n\n".join(text)  # as lm_dataformat's reader does
        if not isinstance(text, str):
            return Skipped(place, f"the field {self.text} holds no text")
        others = ((key, value) for key, value in record.items() if not isinstance(value, bytes))
        meta = {key: value for key, value in others if key not in (self.text, "meta", "metadata")}
        for nested in map(unpacked, (record.get("metadata"), record.get("meta"))):
            meta |= nested if isinstance(nested, dict) else {} if nested is None else {"meta": nested}
        lists = (meta.get(key) for key in ("licences", "licenses", "licence", "license"))
        several = next((names for names in lists if isinstance(names, list) and names), ())
        licence = first_text(meta, "licence", "license") or " AND ".join(map(str, several)) or self.licence
        return Document(text, first_text(meta, "source") or name, licence, first_text(meta, "url") or place, meta)


def unpacked(meta: Any) -> Any:
    """A record's metadata, also where they are JSON in a text, as in the tables of a corpus; other values unchanged."""
    with suppress(ValueError):
        return json_value(meta.encode()) if isinstance(meta, str) and meta.startswith("{") else meta
    return meta


class TextTable(Table, ABC):
    """A table in text files, also compressed."""

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """The documents of a file, in order. Raises ValueError: it cannot be read, or is not of this format."""
        with open_bytes(unit) as stream:
            yield from self.checked(unit, stream)

    def read_stream(self, name: str, data: bytes) -> Iterator[Document | Skipped]:
        """The documents of a file in memory. Raises ValueError as `read` does."""
        return self.checked(name, decompressed(io.BytesIO(data)))

    def checked(self, name: str, stream: io.BufferedIOBase) -> Iterator[Document | Skipped]:
        """The documents of a decompressed file. Raises ValueError: it is of a format that is no table."""
        start = start_of(stream)
        refuse_other_format(start)
        if WEB_PAGE.match(start):
            raise ValueError("a web page and no table; its address may be that of a page about the file")
        if not getattr(self, "encoding", None):
            refuse_zeros(start)
        yield from self.documents(name, stream)

    @abstractmethod
    def documents(self, name: str, stream: io.BufferedIOBase) -> Iterator[Document | Skipped]:
        """The documents of a decompressed file, in order."""


@dataclass(frozen=True, kw_only=True)
class JSONLines(TextTable):
    """Files with one JSON object per line (.jsonl), also compressed."""

    RECORDS: ClassVar = Records(b"\n")
    kind: Literal["jsonl"]
    pile_set_name: str | None = None
    """If given, only documents of this component of The Pile are read."""

    def read_range(self, unit: str, place: FileRange) -> Iterator[Document | Skipped]:
        """The documents of a range of a file, in order."""
        with self.RECORDS.open(unit, place) as stream:
            yield from self.documents(unit, stream, place.first)

    def count_range(self, unit: str, place: FileRange) -> int:
        """How many lines begin in a range of a file."""
        found = 0
        with self.RECORDS.open(unit, place) as stream, suppress(*BROKEN):
            while stream.readline(MAX_DOCUMENT_BYTES):
                found += 1
        return found

    def documents(self, name: str, stream: io.BufferedIOBase, first: int = 0) -> Iterator[Document | Skipped]:
        """One document per line that is not empty; the lines before a damage are kept. `first` lines stand before."""
        content: Any = None
        begun, taken, others = first > 0, False, set[str]()
        for number in count(first + 1):
            try:
                content = content or in_utf8(stream)
                line = content.readline(MAX_DOCUMENT_BYTES)
            except BROKEN as error:
                yield Skipped(name, f"broken off after line {number - 1}: {error}")
                return
            if not line:
                break
            if not line.strip():
                continue
            opens, begun = not begun and opens_value(line), True
            try:
                record = json_value(line)
            except ValueError as error:
                yield Skipped(f"{name}#{number}", OVER_LINES if opens else wrong_with(error))
                if opens:
                    return
                continue
            found = self.document(name, number, record)
            if isinstance(found, Document) and self.pile_set_name is not None and not self.belongs(found):
                others |= {str(found.meta.get("pile_set_name"))} if len(others) <= NAMES_SHOWN else set()
                continue
            taken = taken or isinstance(found, Document)
            yield found
        if others and not taken:
            yield Skipped(
                name, f"no document has the pile_set_name {self.pile_set_name}: it has {listed(sorted(others))}"
            )

    def belongs(self, document: Document) -> bool:
        """Whether a document is of the component `pile_set_name`."""
        name = document.meta.get("pile_set_name")
        return RELEASED_NAMES.get(str(name), name) == self.pile_set_name


@dataclass(frozen=True, kw_only=True)
class JSON(TextTable):
    """Files with one JSON value, or with an object per line, also compressed."""

    kind: Literal["json"]
    records: str = ""
    """The path to the records, with `*` for every entry: "results.*". By default they are the entries of an array, the
    objects of the lines, or else the file is one record."""
    outline: bool = False
    """Whether all texts of a record, as an outline of names and texts, are the document, in place of one field."""

    @property
    def reads_array(self) -> str:
        return f'records = "{self.records or "*"}.*" reads its entries'

    def documents(self, name: str, stream: io.BufferedIOBase) -> Iterator[Document | Skipped]:
        """One document per record."""
        undamaged = UntilDamaged(stream)
        first, content = from_first_line(io.BufferedReader(undamaged, READ_BYTES))
        steps = self.records.split(".") if self.records else []
        is_whole = self.outline or bool(steps)
        if not is_whole and is_by_line(first):
            by_line = JSONLines(kind="jsonl", path=self.path, text=self.text, licence=self.licence)
            yield from by_line.documents(name, content)
        else:
            data = read_bounded(content)
            try:
                value = json_value(data)
            except ValueError as error:
                wrong = f"broken: {undamaged.damage}" if undamaged.damage else wrong_with(error)
                raise ValueError(wrong) from None
            yield from self.whole(name, value, ["*"] if isinstance(value, list) and not is_whole else steps)
        if undamaged.damage:
            yield Skipped(name, f"{BROKEN_OFF}: {undamaged.damage}")

    def whole(self, name: str, value: Any, steps: list[str]) -> Iterator[Document | Skipped]:
        """One document per record at a path of names in a JSON value."""
        for number, record in enumerate(found(value, steps), start=1):
            if self.outline:
                place = f"{name}#{number}" if steps else name
                yield Document("\n".join(outlined(record, self.text)), name, self.licence, place)
            else:
                yield self.document(name, number, record)


def found(value: Any, steps: list[str]) -> Iterator[Any]:
    """The entries of a JSON value at a path of names; `*` matches all. Raises ValueError: there is no such name."""
    if not steps:
        yield value
        return
    entries = dict(enumerate(value)) if isinstance(value, list) else value if isinstance(value, dict) else {}
    if steps[0] != "*" and steps[0] not in entries:
        raise ValueError(f"it has no {steps[0]}")
    for entry in entries.values() if steps[0] == "*" else [entries[steps[0]]]:
        yield from found(entry, steps[1:])


def outlined(value: Any, text: str, name: str = "") -> Iterator[str]:
    """The lines of an outline: names of objects, texts after their names; the field `text` is an object's own text."""
    if isinstance(value, dict):
        own = value.get(text)
        if isinstance(own, str):
            yield f"{name}: {own}" if name else own
        elif name:
            yield f"\n{name}"
        for key, entry in value.items():
            if key != text or not isinstance(own, str):
                yield from outlined(entry, text, key)
    elif isinstance(value, list):
        for entry in value:
            yield from outlined(entry, text, name)
    elif isinstance(value, str):
        yield f"{name}: {value}" if name else value


@dataclass(frozen=True, kw_only=True)
class CSV(TextTable):
    """Comma-separated values with a header line, also compressed."""

    kind: Literal["csv"]
    separator: str = ","
    """The character between two values."""
    encoding: Encoding | None = None
    """The encoding of files that do not begin as UTF-8."""

    def __post_init__(self) -> None:
        if len(self.separator) != 1 or self.separator in '"\r\n':
            raise ValueError(f'separator is {self.separator!r}; it must be one character, such as ";"')

    def documents(self, name: str, stream: io.BufferedIOBase) -> Iterator[Document | Skipped]:
        """One document per row. Raises ValueError: the header lacks the text's field, or the encoding is unknown."""
        stream = recoded(stream, self.encoding)
        refuse_unknown(start_of(stream))
        found = rows(lines(stream), self.separator, MAX_ROW_BYTES)
        names: list[str] | None = None
        for number in count():
            try:
                row = next(found, None)
            except BROKEN as error:
                yield Skipped(name, f"broken off after row {max(0, number - 1)}: {error}")
                return
            if row is None:
                return
            if isinstance(row, ValueError):
                yield Skipped(f"{name}#{number}", str(row))
            elif names is None:
                if number == 0 and "".join(row).lower() == "sep=":
                    continue  # the line in which Excel finds the separator
                names = row
                require_column(self.text, names)
            elif row == names:
                yield Skipped(f"{name}#{number}", "the header again")
            elif any(row[len(names) :]):
                yield Skipped(f"{name}#{number}", f"a row of {len(row)} values under a header of {len(names)}")
            else:
                yield self.document(name, number, dict(zip(names, row + [None] * len(names), strict=False)))


@dataclass(frozen=True, kw_only=True)
class Parquet(Table):
    """Parquet files. They are read in a child process (`sandbox`): in few bytes they may state values of any size."""

    MAX_DATA_BYTES: ClassVar = 4 << 30
    """Memory that the child may allocate. Arrow holds a page whole, which often has 1,024 rows, and reserves its size
    twice more."""
    kind: Literal["parquet"]

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """One document per row, in order. Raises ValueError: it is not a Parquet file, or has no such column."""
        return sandboxed(self, unit, None)

    def records(self, name: str, stream: io.BufferedIOBase) -> Iterator[Document | Skipped]:
        """What `read` gives, in the child process."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            # Without a buffer, Arrow reads the columns of a whole row group, which may be all of a file.
            opened = pq.ParquetFile(local(name), buffer_size=READ_BYTES, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            refuse_pointer(cast(io.BufferedReader, stream).peek())
            raise ValueError(f"not a whole Parquet file: {error}") from None
        with opened as file:
            require_column(self.text, file.schema_arrow.names)
            first = 1
            for group in range(file.num_row_groups):
                try:
                    for number, row in enumerate(rows_of(file, group), start=first):
                        yield bounded(self.document(name, number, row))
                except MemoryError as error:
                    yield Skipped(f"{name}, row group {group}", reason(error))
                except (pa.ArrowException, OSError, *UNFIT) as error:
                    yield Skipped(f"{name}, row group {group}", f"broken: {error}")
                first += file.metadata.row_group(group).num_rows


def bounded(found: Document | Skipped) -> Document | Skipped:
    """What a record gave, unless its text has more than MAX_DOCUMENT_BYTES."""
    if isinstance(found, Document) and len(found.text) > MAX_DOCUMENT_BYTES:
        return Skipped(found.url, str(too_large()))
    return found


def require_column(name: str, names: list[str]) -> None:
    """Raise ValueError unless a table with columns of these names has exactly one of this name."""
    if not {name, name.partition(".")[0]} & set(names):
        others = [f"; write separator = {json.dumps(mark)}" for mark in ";\t|," if len(names) == 1 and mark in names[0]]
        raise ValueError(f"it has no column {name} (it has {listed(names)}){''.join(others[:1])}")
    if names.count(name) > 1:
        raise ValueError(f"it has {names.count(name)} columns {name}")


def listed(names: Iterable[Any]) -> str:
    """The first of some names, for a message."""
    shown = [str(name) for name in islice(names, NAMES_SHOWN + 1)]
    return ", ".join(shown[:NAMES_SHOWN]) + ", ..." * (len(shown) > NAMES_SHOWN) or "none"


def kind_of(value: Any, reads_array: str) -> str:
    """What a JSON value is that is no record, and how to read it if there is a way."""
    if isinstance(value, list):
        return f"an array: {reads_array}"
    return {str: "a string", bool: "a truth value", type(None): "null"}.get(type(value), "a number")


def first_text(record: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that holds text; empty if none does."""
    return next((record[name] for name in names if isinstance(record.get(name), str)), "")
