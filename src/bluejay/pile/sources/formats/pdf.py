"""PDF files that hold text; scans without it are set aside."""

import re
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

from bluejay.pile.documents import Document
from bluejay.pile.sources.io.records import RecordFiles

SOFT_HYPHEN = re.compile(r"[\ufffe\xad]\n?")
"""PDFium's mark of a word broken at a line's end."""
HYPHEN = re.compile(r"(?<=[^\W\d_]-)\n(?=[^\W\d_])")
TEX_FONT = {
    "\x0b": "ff",
    "\x0c": "fi",
    "\x0e": "ffi",
    "\x0f": "ffl",
    "\x10": "“",
    "\x11": "”",
    "\x15": "–",
    "\x16": "—",
}
TEX_FONT |= {"\x1b": "ff", "\x1c": "fi", "\x1d": "fl", "\x1e": "ffi", "\x1f": "ffl"}
"""Letters at their places in TeX's fonts (OT1 and T1), which come out as such where a file does not map them."""
OF_WORD = re.compile(r"(?<=[^\W\d_])[\x0b-\x1f]|[\x0b-\x1f](?=\w)|(?<=\d)[\x15\x16]")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f]")
WITHIN_SENTENCE = re.compile(r"(?<=[\w,;)\]”’\"'])\n(?=[^\W\d_A-Z])|(?<=[,;])\n(?=\w)")
"""A line that goes on in the next, as far as letters show."""
DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?")
FEW_PAGES = 4
"""Too few to tell a running title from text."""


@dataclass(frozen=True, kw_only=True)
class Pdf(RecordFiles):
    """Each file is one document: the text of its pages without running titles and page numbers, lines joined."""

    kind: Literal["pdf"] = "pdf"

    def document(self, name: str, record: Any) -> Document:
        """The text of all pages; title and date as the file states them."""
        import pypdfium2

        try:
            document = pypdfium2.PdfDocument(record)
        except pypdfium2.PdfiumError as error:
            raise ValueError(f"not readable as PDF: {error}") from None
        with closing(document):
            pages = [page_lines(document, number) for number in range(len(document))]
            stated = document.get_metadata_dict()
        text = join_lines("\n".join("\n".join(page) for page in without_running_titles(pages)))
        date = DATE.match(stated.get("CreationDate", ""))
        meta = {"title": stated.get("Title", "").strip(), "date": "-".join(filter(None, date.groups())) if date else ""}
        return Document(text, name, self.licence, name, {key: value for key, value in meta.items() if value})


def page_lines(document: Any, number: int) -> list[str]:
    """The lines of one page."""
    with closing(document[number]) as page, closing(page.get_textpage()) as text:
        return [line.rstrip() for line in text.get_text_range().split("\r\n")]


def without_running_titles(pages: list[list[str]]) -> list[list[str]]:
    """Pages without first and last lines that are page numbers or, but for digits, the same on half of the pages."""

    def shape(line: str) -> str:
        return re.sub(r"\d+", "0", line.strip())

    edges = Counter(shape(page[at]) for page in pages if page for at in (0, -1))
    kept = []
    for page in pages:
        start, end = 0, len(page)
        while start < end and is_running(shape(page[start]), edges, len(pages)):
            start += 1
        while end > start and is_running(shape(page[end - 1]), edges, len(pages)):
            end -= 1
        kept.append(page[start:end])
    return kept


def is_running(line: str, edges: Counter[str], pages: int) -> bool:
    """Whether a line at the edge of a page is about the page: its number, a title that others have."""
    return not line or line == "0" or (pages >= FEW_PAGES and 2 * edges[line] >= pages)


def join_lines(text: str) -> str:
    """Words and paragraphs on one line each, as far as the text itself shows them."""
    text = CONTROL.sub(
        "", OF_WORD.sub(lambda found: TEX_FONT.get(found[0], ""), HYPHEN.sub("", SOFT_HYPHEN.sub("", text)))
    )
    return WITHIN_SENTENCE.sub(" ", text).strip()
