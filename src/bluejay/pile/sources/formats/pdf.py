"""PDF files that hold text; scans without text are skipped."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from ctypes import c_int, create_string_buffer
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal

from bluejay.pile.documents import Document, stated
from bluejay.pile.sources.formats.faults import record_with_faults
from bluejay.pile.sources.formats.office.symbols import from_symbol_font
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
BRACKETS = "‾⏐⎯®©™⎛⎜⎝⎡⎢⎣⎧⎨⎩⎪⎮⎞⎟⎠⎤⎥⎦⎫⎬⎭"
SMALL = (*b"!$&?0123456789abcdefghijklmnopqrstuvwxyz\xa1\xa2\xbf", *range(0xE0, 0xF7), *range(0xF8, 0x100))
PRIVATE = {0xF700 + code: chr(code) for code in SMALL}
PRIVATE |= {0xF8E5 + number: mark for number, mark in enumerate(BRACKETS)}
PRIVATE |= {0xF6E9 + number: letter for number, letter in enumerate("abdeilmorst")}
PRIVATE |= {0xF6BE: "ȷ", 0xF6DC: "1", 0xF6DE: "—", 0xF6F9: "ł", 0xF6FA: "œ", 0xF6FD: "š", 0xF6FF: "ž", 0xF0B7: "•"}
"""Private codes -> characters: Adobe's for digits of old style, letters in small capitals and parts of large brackets
(https://github.com/adobe-type-tools/agl-aglfn), and the bullet of the font Symbol, by whatever font it is drawn."""
SYMBOL_CODE = re.compile("[\uf020-\uf0ff]")
"""A character of a font of symbols, by the code that it has there."""
MAX_FONT_NAME = 128
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
        return record_with_faults(stream, read_pdf)

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


def read_pdf(raw: bytes) -> tuple[Any, list[ValueError]]:
    """The lines of the pages of a file with what it states, and what is wrong with the other pages. Raises ValueError:
    it is no PDF, or encrypted."""
    import pypdfium2

    pages, broken = [], []
    try:
        with closing(pypdfium2.PdfDocument(raw)) as document:
            for number in range(len(document)):
                try:
                    pages.append(page_lines(document, number))
                except pypdfium2.PdfiumError as error:
                    broken.append(ValueError(f"a page is broken: {number + 1}: {error}"))
            return (pages, document.get_metadata_dict()), broken
    except pypdfium2.PdfiumError as error:
        is_encrypted = getattr(error, "err_code", None) == pypdfium2.raw.FPDF_ERR_PASSWORD
        raise ValueError(
            "encrypted: it needs a password" if is_encrypted else f"not readable as PDF: {error}"
        ) from None


def page_lines(document: Any, number: int) -> list[str]:
    """The lines of one page."""
    with closing(document[number]) as page, closing(page.get_textpage()) as text:
        return [line.rstrip() for line in with_symbols(text.get_text_range(), text).split("\r\n")]


def with_symbols(written: str, page: Any) -> str:
    """The text of a page in which the private codes of fonts of symbols are what these draw, as far as it is known."""
    if not SYMBOL_CODE.search(written):
        return written
    from pypdfium2.raw import FPDFText_GetUnicode

    codes = (chr(FPDFText_GetUnicode(page, at)) for at in range(page.count_chars()))
    fonts = (font_at(page, at) for at, code in enumerate(codes) if SYMBOL_CODE.match(code))
    return SYMBOL_CODE.sub(lambda code: from_symbol_font(next(fonts, ""), code[0]), written)


def font_at(page: Any, at: int) -> str:
    """The name of the font of a character of a page."""
    from pypdfium2.raw import FPDFText_GetFontInfo

    name = create_string_buffer(MAX_FONT_NAME)
    FPDFText_GetFontInfo(page, at, name, MAX_FONT_NAME, c_int())
    return name.value.decode("utf-8", "replace")


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
    return WITHIN_SENTENCE.sub(" ", text.translate(LIGATURES | PRIVATE)).strip()
