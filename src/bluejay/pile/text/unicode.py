"""Normalise text: Unicode NFC, lines that end in a line feed, no control characters.

- CR LF, CR, vertical tab, form feed, NEL, and the line and paragraph separators of Unicode become a line feed;
- other control characters except the tab are removed, and so are byte order marks, U+FFFE and U+FFFF;
- letters and their marks are composed (NFC; Unicode Standard Annex 15). NFKC would change formulas.

Spaces and indentation stay: they have a meaning in source code.
"""

import itertools
import operator
import re
import unicodedata
from collections.abc import Iterable

import pyarrow as pa

from bluejay.pile.text.text_batch import Texts, array_slices

LINE_ENDS = bytes.maketrans(b"\v\f", b"\n\n")
CONTROLS = bytes(sorted({*range(32), 127} - set(b"\t\n\v\f")))
WIDE = re.compile("[\x80-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
WIDE_LINE_ENDS = re.compile("[\x85\u2028\u2029]")
MOST_MARKS = 512
"""Marks in a row that `unicodedata` puts in order, in time that grows with their square; no script has as many."""


def normalise(texts: Texts) -> Texts:
    """Normalise texts; idempotent."""
    return pa.array((normalise_text(text) for part in array_slices(texts) for text in part.to_pylist()), texts.type)


def normalise_text(text: str) -> str:
    """Normalise one text."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    # In UTF-8, bytes below 128 are never part of another character.
    text = text.encode().translate(LINE_ENDS, CONTROLS).decode()
    if text.isascii():
        return text
    if WIDE.search(text):
        text = WIDE.sub("", WIDE_LINE_ENDS.sub("\n", text))
    # A run of twice as many marks has two consecutive characters of those that are looked at.
    marks = [is_mark(character) for character in text[::MOST_MARKS]]
    if any(map(operator.and_, marks, marks[1:])):
        text = "".join("".join(in_order(run) if marked else run) for marked, run in itertools.groupby(text, is_mark))
    return unicodedata.normalize("NFC", text)


def is_mark(character: str) -> bool:
    """Whether a character decomposes into marks alone that have an order (a canonical combining class above 0)."""
    return unicodedata.combining(unicodedata.normalize("NFD", character)[0]) > 0


def in_order(marks: Iterable[str]) -> list[str]:
    """The single marks of a run in canonical order, which no normalisation changes (Unicode Standard, D109)."""
    single = (mark for marked in marks for mark in unicodedata.normalize("NFD", marked))
    return sorted(single, key=unicodedata.combining)
