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
    than MAX_DOCUMENT_BYTES comes in pieces.

    Raises any of `open.BROKEN`, after the lines before the damage.
    """
    content: Any = in_utf8(decompressed(stream))
    held: list[bytes] = []
    size = 0
    while chunk := content.read1(READ_BYTES):
        *whole, rest = chunk.split(b"\n")
        if whole:
            whole[0] = b"".join((*held, whole[0]))
            held, size = [], 0
        for line in whole:
            yield line + b"\n"
        held.append(rest)
        size += len(rest)
        if size > MAX_DOCUMENT_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)
