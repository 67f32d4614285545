"""Tables of separated values (RFC 4180), row by row: a broken row costs itself.

A quotation mark opens a quotation only at the start of a field; within a field that does not begin with one it is text.
"""

import csv
from collections.abc import Iterator

from bluejay.pile.documents import MAX_DOCUMENT_BYTES
from bluejay.pile.sources.io.decode import decode

QUOTE = b'"'


def rows(lines: Iterator[bytes], separator: str, most_bytes: int) -> Iterator[list[str] | ValueError]:
    """The cells of each row that is not blank. A quotation that is open after `most_bytes`, or at the end of the file,
    gives an exception and costs its first line; reading resumes after it."""
    csv.field_size_limit(MAX_DOCUMENT_BYTES)
    mark = separator.encode()
    waiting: list[bytes] = []
    held: list[bytes] = []
    is_open, size = False, 0
    while True:
        line = waiting.pop() if waiting else next(lines, b"")
        is_open = ends_open(line, mark, is_open)
        held.append(line)
        size += len(line)
        if not is_open:
            if raw := b"".join(held).rstrip(b"\r\n"):
                yield cells(raw, separator)
        elif not line or size > most_bytes:
            yield ValueError("a quotation mark is never closed")
            waiting += reversed(held[1:] if line else held[1:-1])
        else:
            continue
        if not line and not waiting:
            return
        held, is_open, size = [], False, 0


def ends_open(line: bytes, mark: bytes, is_open: bool) -> bool:
    """Whether a line ends within a quotation; `is_open` says whether it begins within one."""
    if QUOTE not in line:
        return is_open
    at = 0
    while True:
        if is_open:
            at = closing(line, at)
            if at < 0:
                return True
        elif line.startswith(QUOTE, at):
            is_open, at = True, at + 1
            continue
        at = line.find(mark, at) + len(mark)
        if at < len(mark):
            return False
        is_open = False


def closing(line: bytes, at: int) -> int:
    """Where a quotation that is open at a position of a line has been closed; -1 if it stays open."""
    while (at := line.find(QUOTE, at)) >= 0:
        if not line.startswith(QUOTE, at + 1):
            return at + 1
        at += 2
    return -1


def cells(raw: bytes, separator: str) -> list[str] | ValueError:
    """The cells of one row, or the exception that it raises."""
    text = decode(raw).replace("\0", "")
    if '"' not in text:
        return text.split(separator)
    try:
        return next(csv.reader([text], delimiter=separator), [])
    except csv.Error as error:
        return ValueError(f"not CSV: {error}")
