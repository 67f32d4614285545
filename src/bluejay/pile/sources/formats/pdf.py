"""PDF files that hold text; scans without text are skipped."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document, read_until_damaged, stated
from bluejay.pile.sources.io.open import decompressed
from bluejay.pile.sources.io.records import RecordFiles

SOFT_HYPHEN = re.compile(r"[\ufffe\xad]\n?")
"""PDFium's mark of a word that is hyphenated at the end of a line."""
HYPHEN = re.compile(r"(?<=[^\W\d_]-)\n(?=[^\W\d_])")
"""A line end behind the hyphen of a compound."""
TEX_FONT = {"\x0b": "ff", "\x0c": "fi", "\x0e": "ffi", "\x0f": "ffl"}
TEX_FONT |= {"\x10": "“", "\x11": "”", "\x15": "–", "\x16": "—"}
TEX_FONT |= {"\x1b": "ff", "\x1c": "fi", "\x1d": "fl", "\x1e": "ffi", "\x1f": "ffl"}
"""Character codes of TeX's fonts (OT1 and T1) -> letters. They appear in texts of files that do not map them."""
TEX_LETTER = re.compile(r"(?<=[^\W\d_])[\x0b-\x1f]|[\x0b-\x1f](?=\w)|(?<=\d)[\x15\x16]")
"""A control character that is a letter or a dash of TeX's fonts, as the characters around it show."""
LIGATURES = {0xFB00 + number: letters for number, letters in enumerate(("ff", "fi", "fl", "ffi", "ffl", "st", "st"))}
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f]")
WITHIN_SENTENCE = re.compile(r"(?<=[\w,;)\]”’\"'])\n(?=[^\W\d_A-Z])|(?<=[,;])\n(?=\w)")
"""A line end within a sentence, as far as the letters around it show."""
DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?")
MIN_PAGES = 4
"""The smallest number of pages that tells a running title from text."""


@dataclass(frozen=True, kw_only=True)
class Pdf(RecordFiles):
    """Each file is one document: the text of its pages, lines joined, without running titles and page numbers."""

    kind: Literal["pdf"] = "pdf"

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """The lines of the pages, and what the file states; then an exception for each page that is broken. Of what is
        no PDF, an exception."""
        import pypdfium2

        raw, damage = read_until_damaged(decompressed(stream))
        pages, broken = [], []
        try:
            with closing(pypdfium2.PdfDocument(raw)) as document:
                for number in range(len(document)):
                    try:
                        pages.append(page_lines(document, number))
                    except pypdfium2.PdfiumError as error:
                        broken.append(ValueError(f"a page is broken: {number + 1}: {error}"))
                described = document.get_metadata_dict()
        except pypdfium2.PdfiumError as error:
            is_encrypted = getattr(error, "err_code", None) == pypdfium2.raw.FPDF_ERR_PASSWORD
            yield ValueError("encrypted: it needs a password" if is_encrypted else f"not readable as PDF: {error}")
        else:
            yield pages, described
            yield from broken
        if damage:
            raise damage

    def document(self, name: str, record: Any) -> Document:
        """The text of all pages; title and date are those that the file states."""
        pages, described = record
        text = join_lines("\n".join("\n".join(page) for page in without_running_titles(pages)))
        date = DATE.match(described.get("CreationDate", ""))
        meta = {
            "title": described.get("Title", "").strip(),
            "date": "-".join(filter(None, date.groups())) if date else "",
        }
        return Document(text, name, self.licence, name, stated(meta))


def page_lines(document: Any, number: int) -> list[str]:
    """The lines of one page."""
    with closing(document[number]) as page, closing(page.get_textpage()) as text:
        return [line.rstrip() for line in text.get_text_range().split("\r\n")]


def without_running_titles(pages: list[list[str]]) -> list[list[str]]:
    """Pages without first and last lines that are a page number, one at each end, or are equal, except digits, on a
    third of the pages: left and right pages often have different ones, and the first has none."""

    def shape(line: str) -> str:
        return re.sub(r"\d+", "0", line.strip())

    def outermost(lines: list[str]) -> str:
        return next((line for line in map(shape, lines) if line not in ("", "0")), "")

    edges = Counter(line for page in pages for line in {outermost(page), outermost(page[::-1])})

    def n_running(lines: list[str]) -> int:
        numbers = 0
        for count, line in enumerate(map(shape, lines)):
            numbers += line == "0"
            if numbers > 1 or not is_running(line, edges, len(pages)):
                return count
        return len(lines)

    kept = [page[n_running(page) :] for page in pages]
    return [page[: len(page) - n_running(page[::-1])] for page in kept]


def is_running(line: str, edges: Counter[str], pages: int) -> bool:
    """Whether a line at the edge of a page is a page number or a running title."""
    return not line or line == "0" or (pages >= MIN_PAGES and edges[line] >= max(2, pages / 3))


def join_lines(text: str) -> str:
    """The text with words and paragraphs joined that were split between lines, as far as the text shows."""
    text = CONTROL.sub(
        "", TEX_LETTER.sub(lambda found: TEX_FONT.get(found[0], ""), HYPHEN.sub("", SOFT_HYPHEN.sub("", text)))
    )
    return WITHIN_SENTENCE.sub(" ", text.translate(LIGATURES)).strip()
