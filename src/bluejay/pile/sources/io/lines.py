"""Reading long files line by line, and decoding text whose encoding is uncertain."""

import codecs
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

from bluejay.pile.sources.io.open import decompressed

READ_BYTES = 1 << 20
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def lines(stream: BufferedIOBase) -> Iterator[bytes]:
    """The lines of a file that may be compressed, with their line ends.

    Raises any of `open.BROKEN`, after the lines before the damage.
    """
    content: Any = decompressed(stream)
    held = b""
    while chunk := content.read1(READ_BYTES):
        *whole, held = (held + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if held:
        yield held


def decode(raw: bytes, declared: str | None = None) -> str:
    """The text of bytes, by the first encoding that fits: the byte order mark's, the declared one, UTF-8, Windows-1252.

    If none fits, it is decoded by the first of them that is known, with U+FFFD for invalid bytes.
    """
    marked = next((name for mark, name in BYTE_ORDER_MARKS if raw.startswith(mark)), None)
    known = [name for name in (marked, declared, "utf-8", "cp1252") if name and is_encoding(name)]
    for name in known:
        try:
            return raw.decode(name)
        except UnicodeDecodeError:
            continue
    return raw.decode(known[0], "replace")


def is_encoding(name: str) -> bool:
    """Whether Python has a text encoding of that name."""
    try:
        return codecs.lookup(name)._is_text_encoding
    except (LookupError, ValueError):  # ValueError: a null character in the name
        return False
