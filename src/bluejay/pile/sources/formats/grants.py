"""Abstracts of awarded grants: the CSV files of NIH ExPORTER (https://reporter.nih.gov/exporter)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document, stated
from bluejay.pile.sources.io.csv_rows import rows
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
        found = rows(lines(stream), ",", MAX_ROW_BYTES)
        head = next(found, [])
        names = [column.strip().upper() for column in head] if isinstance(head, list) else []
        if "ABSTRACT_TEXT" not in names:
            raise ValueError("the table has no column ABSTRACT_TEXT")
        yield None  # a table without rows is one
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
        return Document(text, name, self.licence, url, stated(meta))
