"""Long files, line by line."""

from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

from bluejay.pile.documents import MAX_DOCUMENT_BYTES
from bluejay.pile.sources.io.decode import in_utf8
from bluejay.pile.sources.io.open import decompressed

READ_BYTES = 1 << 20


def lines(stream: BufferedIOBase) -> Iterator[bytes]:
    """The lines of a file that may be compressed, with their line ends; UTF-16 and UTF-32 become UTF-8. A line of more
    than MAX_DOCUMENT_BYTES comes in pieces. Where what is read first has carriage returns and no line feed, those end
    the lines.

    Raises any of `open.BROKEN`, after the lines before the damage.
    """
    content: Any = in_utf8(decompressed(stream))
    held: list[bytes] = []
    size = 0
    end = b""
    while chunk := content.read1(READ_BYTES):
        end = end or (b"\r" if b"\r" in chunk[:-1] and b"\n" not in chunk else b"\n")
        *whole, rest = chunk.split(end)
        if whole:
            whole[0] = b"".join((*held, whole[0]))
            held, size = [], 0
        for line in whole:
            yield line + end
        held.append(rest)
        size += len(rest)
        if size > MAX_DOCUMENT_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)
