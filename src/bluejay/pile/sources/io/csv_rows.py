"""Tables of separated values (RFC 4180), row by row: a broken row costs itself.

A quotation mark opens a quotation only at the start of a field; within a field that does not begin with one it is text.
Where a later line shows that a mark opened none, as in tables that quote nothing, that field is text, too. Within a
quotation, a mark is written as two, or behind a backslash.
"""

import csv
import re
from collections.abc import Iterator
from contextlib import suppress

from bluejay.pile.documents import MAX_DOCUMENT_BYTES
from bluejay.pile.sources.io.decode import decode

QUOTE, ESCAPED = b'"', b'\\"'
CLOSED, CARRIED, REFUTED = -1, -2, -3
"""What `quotation` gives where none is open, where the one that was open before is, and where that was none."""
MAX_CELLS = 1_000_000
"""Cells of a row: each takes some sixty bytes of memory, and only two of the file."""
READ_AGAIN, SPARE_BYTES = 4, 1 << 20
"""Bytes that may be read again for each byte of a table, and at first: a hostile one takes no quadratic time."""


def rows(lines: Iterator[bytes], separator: str, most_bytes: int) -> Iterator[list[str] | ValueError]:
    """The cells of each row that is not blank. A quotation that is open after `most_bytes`, or at the end of the file,
    gives an exception and costs its first line; reading resumes after it. Behind many of those, fewer bytes count."""
    csv.field_size_limit(MAX_DOCUMENT_BYTES)
    mark = separator.encode()
    end_of_field = re.compile(rb" *(?:%b|[\r\n]|\Z)" % re.escape(mark))
    waiting: list[bytes] = []
    held: list[bytes] = []
    opened, is_open, size, spare = (0, 0), False, 0, SPARE_BYTES
    while True:
        if waiting:
            line = waiting.pop()
        else:
            line = next(lines, b"")
            spare += READ_AGAIN * len(line)
        began = quotation(line, mark, is_open, end_of_field)
        held.append(line)
        size += len(line)
        if began >= 0:
            opened = (len(held) - 1, began)
        if began == CLOSED:
            if raw := b"".join(held).rstrip(b"\r\n"):
                yield cells(raw, separator) if raw.count(mark) < MAX_CELLS else too_many()
        elif began == REFUTED:
            number, place = opened
            before, rest = b"".join(held[:number]) + held[number][:place], held[number][place:]
            is_bounded = before.count(mark) + rest.count(mark) < MAX_CELLS
            yield with_text(before, rest, separator) if is_bounded else too_many()
            waiting += reversed(held[number + 1 :])
            spare -= size
        elif not line or size > min(most_bytes, spare):
            yield ValueError("a quotation mark is never closed")
            waiting += reversed(held[1:] if line else held[1:-1])
            spare -= size
        else:
            is_open = True
            continue
        if not line and not waiting:
            return
        held, is_open, size = [], False, 0


def too_many() -> ValueError:
    """What a row of more than MAX_CELLS gives."""
    return ValueError(f"a row of more than {MAX_CELLS:,} cells")


def quotation(line: bytes, mark: bytes, is_open: bool, end_of_field: re.Pattern[bytes]) -> int:
    """Where the quotation begins that is open at the end of a line; CARRIED where it began before, as `is_open` says
    that one did. CLOSED where none is open; REFUTED where the one from before ends within a field, and so was none."""
    if QUOTE not in line:
        return CARRIED if is_open else CLOSED
    at, began = 0, CARRIED
    while True:
        if is_open:
            at = closing(line, at, end_of_field)
            if at < 0:
                return began
            if not end_of_field.match(line, at):
                if line.startswith(ESCAPED, at - len(ESCAPED)):
                    continue
                if began == CARRIED:
                    return REFUTED
        elif line.startswith(QUOTE, at):
            is_open, began, at = True, at, at + 1
            continue
        at = line.find(mark, at) + len(mark)
        if at < len(mark):
            return CLOSED
        is_open = False


def closing(line: bytes, at: int, end_of_field: re.Pattern[bytes]) -> int:
    """Where a quotation that is open at a position of a line has been closed; -1 if it stays open."""
    while (at := line.find(QUOTE, at)) >= 0:
        if not line.startswith(QUOTE, at + 1):
            return at + 1
        at += 2
        if line.startswith(ESCAPED, at - 3) and end_of_field.match(line, at):
            return at
    return -1


def with_text(raw: bytes, rest: bytes, separator: str) -> list[str] | ValueError:
    """The cells of one row, of which those in `rest` are text, whatever quotation marks they have."""
    first = cells(raw[: -len(separator.encode())], separator) if raw else []
    if isinstance(first, ValueError):
        return first
    return [*first, *decode(rest.rstrip(b"\r\n")).replace("\0", "").split(separator)]


def cells(raw: bytes, separator: str) -> list[str] | ValueError:
    """The cells of one row, or the exception that it raises. Only a row that is none of RFC 4180 has escaped marks."""
    text = decode(raw).replace("\0", "")
    if '"' not in text:
        return text.split(separator)
    if '\\"' in text:
        with suppress(csv.Error):
            return next(csv.reader([text], delimiter=separator, strict=True), [])
        text = re.sub(rf'\\"(?! *(?:{re.escape(separator)}|\Z))', '""', text)
    try:
        return next(csv.reader([text], delimiter=separator), [])
    except csv.Error as error:
        return ValueError(f"not CSV: {error}")
