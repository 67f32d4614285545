"""Plain text whose encoding is uncertain, and long files line by line."""

import codecs
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

from bluejay.pile.sources.io.open import decompressed

CHUNK = 1 << 20
"""Bytes read at once."""
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def lines(stream: BufferedIOBase) -> Iterator[bytes]:
    """The lines of a file that may be compressed, with their ends.

    Raises any of `open.BROKEN`, after all that is whole.
    """
    content: Any = decompressed(stream)
    held = b""
    while chunk := content.read1(CHUNK):
        *whole, held = (held + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if held:
        yield held


def decode(raw: bytes, declared: str | None = None) -> str:
    """Text in the encoding that its byte order mark or its declaration tells, else UTF-8, else what Windows wrote.

    What none of them explains is decoded as the declaration says, with U+FFFD for what is broken.
    """
    marked = next((name for mark, name in MARKS if raw.startswith(mark)), None)
    known = [name for name in (marked, declared, "utf-8", "cp1252") if name and is_encoding(name)]
    for name in known:
        try:
            return raw.decode(name)
        except UnicodeDecodeError:
            continue
    return raw.decode(known[0], "replace")


def is_encoding(name: str) -> bool:
    """Whether Python knows an encoding of text by that name."""
    try:
        return codecs.lookup(name)._is_text_encoding
    except (LookupError, ValueError):  # ValueError: a null character in the name
        return False
