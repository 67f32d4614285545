"""One form for the same text: Unicode NFC, lines that end in a line feed, no control characters.

- CR LF, CR, vertical tab, form feed, NEL, and the line and paragraph separators of Unicode become a line feed;
- other control characters but the tab go, and so do byte order marks and the two noncharacters of the first plane;
- letters and their marks are composed (NFC; Unicode Standard Annex 15). NFKC would make other text of formulas.

Spaces and indentation stay: in source code they mean something.
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
    """The texts in that form, which a second time leaves as it is."""
    return pa.array((normal(text) for part in array_slices(texts) for text in part.to_pylist()), texts.type)


def normal(text: str) -> str:
    """One text in that form."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    # Bytes below 128 are characters of their own in UTF-8.
    text = text.encode().translate(LINE_ENDS, CONTROLS).decode()
    if text.isascii():
        return text
    if WIDE.search(text):
        text = WIDE.sub("", WIDE_LINE_ENDS.sub("\n", text))
    return unicodedata.normalize("NFC", text)
