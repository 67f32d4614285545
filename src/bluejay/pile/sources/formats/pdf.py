"""PDF files that hold text; scans without text are skipped."""

import re
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document, stated
from bluejay.pile.sources.formats.faults import record_with_faults
from bluejay.pile.sources.formats.pdf_letters import Letters, box, character
from bluejay.pile.sources.formats.pdf_lines import Line, running_text
from bluejay.pile.sources.io.records import RecordFiles

LINE_END = "\r\n"
DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?")


@dataclass(frozen=True, kw_only=True)
class Pdf(RecordFiles):
    """Each file is one document: the text of its pages, lines joined, without running titles and page numbers."""

    kind: Literal["pdf"] = "pdf"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The lines of the pages, and what the file states; then an exception for each page that is broken. Of what is
        no PDF, an exception."""
        return record_with_faults(stream, read_pdf)

    def document(self, name: str, record: Any) -> Document:
        """The text of all pages; title and date are those that the file states."""
        pages, described = record
        text = running_text(pages)
        date = DATE.match(described.get("CreationDate", ""))
        meta = {
            "title": described.get("Title", "").strip(),
            "date": "-".join(filter(None, date.groups())) if date else "",
        }
        return Document(text, name, self.licence, name, stated(meta))


def read_pdf(raw: bytes) -> tuple[Any, list[ValueError]]:
    """The lines of the pages of a file with what it states, and what is wrong with the other pages. Raises ValueError:
    it is no PDF, or encrypted."""
    import pypdfium2

    pages, broken = [], []
    try:
        with closing(pypdfium2.PdfDocument(raw)) as document:
            letters = Letters(raw)
            for number in range(len(document)):
                try:
                    pages.append(page_lines(document, number, letters))
                except pypdfium2.PdfiumError as error:
                    broken.append(ValueError(f"a page is broken: {number + 1}: {error}"))
            return (pages, document.get_metadata_dict()), broken
    except pypdfium2.PdfiumError as error:
        is_encrypted = getattr(error, "err_code", None) == pypdfium2.raw.FPDF_ERR_PASSWORD
        raise ValueError(
            "encrypted: it needs a password" if is_encrypted else f"not readable as PDF: {error}"
        ) from None


def page_lines(document: Any, number: int, letters: Letters) -> list[Line]:
    """The lines of one page."""
    with closing(document[number]) as page, closing(page.get_textpage()) as drawn:
        text = in_units(drawn.get_text_range())
        shown = letters.shown(text, drawn)
        lines, begin = [], 0
        for line in text.split(LINE_END):
            lines.append(line_at(begin, begin + len(line), text, shown, drawn))
            begin += len(line) + len(LINE_END)
        return lines


def line_at(begin: int, end: int, text: str, shown: Sequence[str], page: Any) -> Line:
    """The line between two places in the text of a page."""
    from pypdfium2.raw import FPDFText_GetFontSize

    written = text[begin:end]
    line = from_units("".join(shown[begin:end])).rstrip()
    if not line or written.isspace():
        return Line(line)
    first = begin + len(written) - len(written.lstrip())
    left, bottom, _, top = box(page, first)
    right = box(page, begin + len(written.rstrip()) - 1)[2]
    return Line(line, left, right, bottom, top, round(FPDFText_GetFontSize(page, character(page, first)), 1))


def in_units(text: str) -> str:
    """A text with the two units of UTF-16 in place of a character that has two, as PDFium counts."""
    return text if text.isascii() else "".join(map(chr, array("H", text.encode("utf-16", "surrogatepass"))[1:]))


def from_units(text: str) -> str:
    """A text with characters in place of units of UTF-16."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
