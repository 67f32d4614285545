"""Long files, line by line."""

from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

from bluejay.pile.sources.io.decode import in_utf8
from bluejay.pile.sources.io.open import decompressed

READ_BYTES = 1 << 20


def lines(stream: BufferedIOBase) -> Iterator[bytes]:
    """The lines of a file that may be compressed, with their line ends; UTF-16 and UTF-32 become UTF-8.

    Raises any of `open.BROKEN`, after the lines before the damage.
    """
    content: Any = in_utf8(decompressed(stream))
    held = b""
    while chunk := content.read1(READ_BYTES):
        *whole, held = (held + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if held:
        yield held
