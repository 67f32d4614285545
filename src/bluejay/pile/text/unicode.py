"""Normalise text: Unicode NFC, lines that end in a line feed, no control characters.

- CR LF, CR, vertical tab, form feed, NEL, and the line and paragraph separators of Unicode become a line feed;
- other control characters except the tab are removed, and so are byte order marks, U+FFFE and U+FFFF;
- letters and their marks are composed (NFC; Unicode Standard Annex 15). NFKC would change formulas.

Spaces and indentation stay: they have a meaning in source code.
"""

import re
import unicodedata

import pyarrow as pa

from bluejay.pile.text.text_batch import Texts, array_slices

LINE_ENDS = bytes.maketrans(b"\v\f", b"\n\n")
CONTROLS = bytes(sorted({*range(32), 127} - set(b"\t\n\v\f")))
WIDE = re.compile("[\x80-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
WIDE_LINE_ENDS = re.compile("[\x85\u2028\u2029]")


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
    return unicodedata.normalize("NFC", text)
