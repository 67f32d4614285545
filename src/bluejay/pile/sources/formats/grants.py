"""Abstracts of awarded grants: the CSV files of NIH ExPORTER (https://reporter.nih.gov/exporter)."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document
from bluejay.pile.sources.io.decode import decode
from bluejay.pile.sources.io.lines import lines
from bluejay.pile.sources.io.records import RecordFiles

MAX_ROW_BYTES = 1 << 18
"""A longer row has a quotation mark that is never closed."""
PREAMBLE = re.compile(
    r"\A\s*(?:DESCRIPTION|Abstract|PROJECT SUMMARY)?\s*\((?:provided|verbatim|adapted)[^)]*\)\s*:?\s*", re.I
)


@dataclass(frozen=True, kw_only=True)
class Grants(RecordFiles):
    """Each abstract (column ABSTRACT_TEXT) is one document."""

    kind: Literal["grants"] = "grants"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """Each row as a dictionary; an exception in place of a malformed row."""
        found = rows(lines(stream))
        names = [column.strip().upper() for column in next(found, [])]
        if "ABSTRACT_TEXT" not in names:
            raise ValueError("the table has no column ABSTRACT_TEXT")
        for row in found:
            if isinstance(row, list) and len(row) != len(names):
                row = ValueError(f"a row of {len(row)} columns in a table of {len(names)}")
            yield row if isinstance(row, Exception) else dict(zip(names, row, strict=True))

    def document(self, name: str, record: Any) -> Document:
        """The abstract, without the words that say who provided it."""
        number = record.get("APPLICATION_ID", "").strip()
        meta = {"title": record.get("PROJECT_TITLE", "").strip(), "date": record.get("FY", "").strip()}
        url = f"https://reporter.nih.gov/project-details/{number}" if number else name
        text = PREAMBLE.sub("", record["ABSTRACT_TEXT"]).strip()
        return Document(text, name, self.licence, url, {key: value for key, value in meta.items() if value})


def rows(source: Iterator[bytes]) -> Iterator[Any]:
    """The rows of a CSV file. A malformed row gives an exception and loses its first line; reading resumes after it."""
    waiting: list[bytes] = []
    held: list[bytes] = []
    quotes = size = 0
    while line := waiting.pop() if waiting else next(source, b""):
        held.append(line)
        quotes, size = quotes + line.count(b'"'), size + len(line)
        if quotes % 2 == 0:
            yield row(b"".join(held))
        elif size > MAX_ROW_BYTES:
            yield ValueError("a quotation mark is never closed")
            waiting += reversed(held[1:])
        else:
            continue
        held, quotes, size = [], 0, 0
    if held:
        yield ValueError("a quotation mark is never closed")


def row(raw: bytes) -> Any:
    """The cells of one row, or the exception that it raises."""
    try:
        return next(csv.reader([decode(raw).replace("\0", "")]), [])
    except csv.Error as error:
        return ValueError(f"not CSV: {error}")
