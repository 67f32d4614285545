"""Documents, as sources give them, and the pieces of sources that sources skip."""

import errno
import hashlib
import sqlite3
from dataclasses import dataclass, field
from functools import cached_property
from io import BufferedIOBase, BufferedReader
from typing import IO, Any, cast

from bluejay.decompress import BROKEN, READ_BYTES, MachineFault

MAX_DOCUMENT_BYTES = 256_000_000
"""Largest file or record that may become a document: a larger one could exhaust the memory of a build."""

MAX_VALUE_BYTES = 1_000_000_000
"""Memory that the values of a record or file of JSON may take."""
VALUE_BYTES = {b"{": 192, b"[": 64, b",": 60}
"""Memory that a value takes, by the character of JSON that begins it or stands before it."""

BROKEN_OFF = "broken off, what stands before is kept"
"""The reason for which the rest of a file is skipped."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
"""The errors of a full disk, and of too many open files."""
NO_DISK = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
"""The errors of a database whose temporary file cannot be written."""


@dataclass(frozen=True)
class Document:
    """A text and its origin."""

    text: str
    source: str
    """The work that the text is part of, with its version: `cpython-3.11.7`."""
    licence: str
    """An SPDX expression where the source gives one; else the source's words, or "unknown"."""
    url: str
    """Where the text can be found."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Other facts from the source, as JSON types."""

    @cached_property
    def id(self) -> str:
        """The sha256 of the text: equal texts are the same document."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Skipped:
    """A piece of a source that gave no document."""

    name: str
    """The file, or the position within it."""
    reason: str


def as_json(value: Any) -> str | None:
    """What JSON has for a value of another type: its text; null for bytes, such as those of a picture."""
    return None if isinstance(value, bytes) else str(value)


def stated(meta: dict[str, Any]) -> dict[str, Any]:
    """What a source states of possible metadata: the entries that are not empty."""
    return {key: value for key, value in meta.items() if value}


def is_machine_fault(error: Exception) -> bool:
    """Whether an exception tells of this machine and not of the file that was read."""
    if isinstance(error, sqlite3.OperationalError):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in NO_DISK  # above the lowest byte: details
    return isinstance(error, (MachineFault, ImportError)) or (isinstance(error, OSError) and error.errno in NO_ROOM)


def skipped(name: str, error: Exception) -> Skipped:
    """What stands for a piece that could not be read. Raises the exception again where it `is_machine_fault`."""
    if is_machine_fault(error):
        raise error
    return Skipped(name, str(error))


def too_large() -> ValueError:
    """What a file or record of more than MAX_DOCUMENT_BYTES raises."""
    return ValueError(f"larger than {MAX_DOCUMENT_BYTES // 10**6} MB")


def refuse_many_values(raw: bytes) -> None:
    """Raise ValueError for JSON whose values may take more memory than MAX_VALUE_BYTES: they may be thirty times as
    large as the file, of which a compressed one may have a few bytes."""
    if len(raw) * max(VALUE_BYTES.values()) <= MAX_VALUE_BYTES:
        return
    if sum(raw.count(mark) * size for mark, size in VALUE_BYTES.items()) > MAX_VALUE_BYTES:
        raise ValueError(f"its values may take more than {MAX_VALUE_BYTES // 10**6} MB of memory")


def read_bounded(stream: BufferedIOBase | IO[bytes]) -> bytes:
    """All bytes of a stream. Raises ValueError: there are more than MAX_DOCUMENT_BYTES."""
    data = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise too_large()
    return data


def read_until_damaged(stream: BufferedIOBase) -> tuple[bytes, Exception | None]:
    """The bytes of a decompressed stream, and the exception, one of `decompress.BROKEN`, of a damage behind them.

    Raises that exception where nothing stands before it; ValueError: there are more than MAX_DOCUMENT_BYTES.
    """
    parts: list[bytes] = []
    size = 0
    damage = None
    try:
        while chunk := cast(BufferedReader, stream).read1(READ_BYTES):
            parts.append(chunk)
            size += len(chunk)
            if size > MAX_DOCUMENT_BYTES:
                raise too_large()
    except BROKEN as error:
        if not parts:
            raise
        damage = error
    return b"".join(parts), damage
