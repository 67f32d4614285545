"""What sources give: documents, and what they had to set aside."""

import hashlib
import io
import tokenize
from dataclasses import dataclass, field
from functools import cached_property
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any

MAX_DOCUMENT_BYTES = 256_000_000
"""Bytes of one file or record that may become a document; more would take a build's memory with it."""


@dataclass(frozen=True)
class Document:
    """One text and where it is from."""

    text: str
    source: str
    """The work it is part of, with its version: `cpython-3.11.7`."""
    licence: str
    """An SPDX expression where the source gives one, else what the source says, else "unknown"."""
    url: str
    """Where it can be found again."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Anything else that the source knows, as JSON."""

    @cached_property
    def id(self) -> str:
        """sha256 of the text: the same text is the same document, wherever it stands."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Skipped:
    """A piece of a source that gave no document."""

    name: str
    """The file, or the place within it."""
    reason: str


def read_text(path: Path) -> str:
    """The text of a file, as `decode` gives it. Raises ValueError: it cannot be read, is too large, or is not text."""
    try:
        with path.open("rb") as file:
            return decode(read_bounded(file), path.name)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def read_bounded(stream: BufferedIOBase | IO[bytes]) -> bytes:
    """All bytes of a stream. Raises ValueError: they are more than MAX_DOCUMENT_BYTES."""
    data = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"larger than {MAX_DOCUMENT_BYTES // 10**6} MB")
    return data


def decode(raw: bytes, name: str) -> str:
    """A file's bytes as text, line ends untouched: UTF-8, or for Python source the encoding it declares (PEP 263).

    Raises ValueError: it is not text in that encoding.
    """
    encoding = "utf-8-sig"
    try:
        if name.endswith(".py"):
            encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        return raw.decode(encoding)
    except (SyntaxError, LookupError, UnicodeError) as error:
        raise ValueError(f"not text: {error}") from None


def is_binary(raw: bytes) -> bool:
    """Whether a file is not text: it has a zero byte near its start (as git tells)."""
    return b"\0" in raw[:8000]
