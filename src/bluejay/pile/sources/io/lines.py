"""Long files, line by line or in pieces."""

import codecs
from collections.abc import Iterator
from dataclasses import replace
from io import BufferedIOBase, BufferedReader
from typing import Any

from bluejay.pile.documents import BROKEN_OFF, MAX_DOCUMENT_BYTES, Document, Skipped
from bluejay.pile.sources.io.decode import BEYOND_ASCII, decode_text, in_utf8, marked_encoding
from bluejay.pile.sources.io.open import decompressed

READ_BYTES = 1 << 20
"""Bytes that are read at once."""
PIECE_BYTES = 64_000_000
"""A longer text is read in pieces of at most this size; no text that can be one document is as long."""


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


def pieces(stream: BufferedReader) -> Iterator[bytes]:
    """The text of a decompressed stream in pieces of at most PIECE_BYTES, the last of which may be empty. They end with
    a line where they have one, and otherwise not within a character of UTF-8. UTF-16 and UTF-32 become UTF-8; if the
    text has a byte order mark, each piece has that of UTF-8."""
    mark = codecs.BOM_UTF8 if marked_encoding(stream.peek(4)[:4]) else b""
    content = in_utf8(stream)
    held = b""
    while len(held := held + content.read(PIECE_BYTES - len(held))) == PIECE_BYTES:
        end = held.rfind(b"\n") + 1 or len(held.rstrip(BEYOND_ASCII)) or PIECE_BYTES
        yield mark + held[:end]
        held = held[end:]
    yield mark + held


def further(document: Document, raw: Iterator[bytes]) -> Iterator[Document | Skipped]:
    """The documents of the pieces of a text behind its first, whose document is given, up to one that is no text."""
    for piece in raw:
        try:
            yield replace(document, text=decode_text(piece))
        except ValueError as error:
            yield Skipped(document.url, f"{BROKEN_OFF}: {error}")
            return
