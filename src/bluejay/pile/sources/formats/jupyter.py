"""Notebooks of Jupyter, of every version of their format (https://nbformat.readthedocs.io)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document, stated
from bluejay.pile.sources.formats.faults import record_with_faults
from bluejay.pile.sources.formats.json_objects import json_value
from bluejay.pile.sources.io.records import RecordFiles
from bluejay.pile.sources.io.spdx import declared

PICTURE = re.compile(
    r"!\[([^\]]*)\]\(\s*<?(?:data|attachment):[^)>]*>?[^)]*\)|<img\b[^>]*?\bsrc\s*=\s*[\"']?(?:data|attachment):[^>]*>",
    re.IGNORECASE,
)
"""A picture whose bytes are written in the text or beside it."""
BADGE = re.compile(
    r"<a\b[^>]*\bhref\s*=\s*[\"']https?://colab\.research\.google\.com/[^>]*>\s*<img\b[^>]*>\s*</a>"
    r"|\[!\[[^\]]*\]\([^)]*\)\]\(https?://colab\.research\.google\.com/[^)]*\)",
    re.IGNORECASE,
)
"""The button that opens a notebook in Colab, which Colab writes into it."""
PICTURE_BELOW = re.compile(r"^[ ]{0,3}\[[^\]]+\]:\s*<?data:\S*[^\n]*$\n?", re.MULTILINE | re.IGNORECASE)
"""The bytes of a picture that the text refers to by a name."""
TICKS = re.compile(r"`{3,}")


@dataclass(frozen=True, kw_only=True)
class Notebook(RecordFiles):
    """Each notebook (.ipynb) is one document, as Markdown: texts, and code in fences; no results of the code."""

    kind: Literal["notebook"] = "notebook"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The notebook; then an exception for each cell that is broken. Of what is no notebook, an exception."""
        return record_with_faults(stream, read_notebook)

    def document(self, name: str, record: Any) -> Document:
        """The cells, with the metadata of the notebook."""
        notebook, cells = record
        about = table(notebook, "metadata")
        authors = about.get("authors")
        named = (
            [author.get("name") for author in authors if isinstance(author, dict)] if isinstance(authors, list) else []
        )
        title = about.get("title") or about.get("name")
        meta = {
            "title": title if isinstance(title, str) else "",
            "authors": [author for author in named if isinstance(author, str)],
        }
        text = "\n\n".join(filter(None, cells))
        return Document(text, name, declared(text) or self.licence, name, stated(meta))


def read_notebook(raw: bytes) -> tuple[Any, list[ValueError]]:
    """A notebook with the texts of its cells, and what is wrong with the others. Raises ValueError: it is none."""
    try:
        notebook = json_value(raw)
        found = [*cells_of(notebook)]
    except ValueError as error:
        raise ValueError(f"not a notebook: {error}") from None
    cells = [read_cell(cell, number, language_of(notebook)) for number, cell in enumerate(found, 1)]
    texts = [cell for cell in cells if isinstance(cell, str)]
    return (notebook, texts), [cell for cell in cells if isinstance(cell, ValueError)]


def cells_of(notebook: Any) -> Iterator[Any]:
    """The cells of a notebook; those of before 2014 are in worksheets. Raises ValueError: it has none of both."""
    if not isinstance(notebook, dict):
        raise ValueError("not a JSON object")
    sheets = notebook.get("worksheets")
    lists = [sheet.get("cells") for sheet in sheets if isinstance(sheet, dict)] if isinstance(sheets, list) else []
    lists = [found for found in (notebook.get("cells"), *lists) if isinstance(found, list)]
    if not lists:
        raise ValueError("it has no cells")
    for found in lists:
        yield from found


def table(value: Any, *keys: str) -> dict[str, Any]:
    """The table to which keys lead; an empty one where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def language_of(notebook: Any) -> str:
    """The language of the code, as the notebook names it; empty where it does not."""
    kernel, described = table(notebook, "metadata", "kernelspec"), table(notebook, "metadata", "language_info")
    name = described.get("name") or kernel.get("language")
    return name if isinstance(name, str) else ""


def read_cell(cell: Any, number: int, language: str) -> str | ValueError:
    """The text of a cell, or what is wrong with it."""
    kind = cell.get("cell_type") if isinstance(cell, dict) else None
    keys = ("source", "input", "text") if isinstance(cell, dict) else ()
    source = next((cell[key] for key in keys if key in cell), None)
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(kind, str) or not isinstance(source, str):
        return ValueError(f"a cell is broken: {number}")
    if not source.strip():
        return ""
    source = source.strip("\n") if kind == "code" else source.strip()
    if kind == "code":
        named = cell.get("language")
        fence = "`" * max((len(ticks[0]) + 1 for ticks in TICKS.finditer(source)), default=3)
        return f"{fence}{named if isinstance(named, str) else language}\n{source}\n{fence}"
    if kind == "heading":
        level = cell.get("level")
        return f"{'#' * min(max(level, 1), 6) if isinstance(level, int) else '#'} {' '.join(source.split())}"
    return PICTURE_BELOW.sub("", PICTURE.sub(r"\1", BADGE.sub("", source))).strip()
