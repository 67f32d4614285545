"""Documents, as sources give them, and the pieces of sources that sources skip."""

import hashlib
import io
import tokenize
from dataclasses import dataclass, field
from functools import cached_property
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any

MAX_DOCUMENT_BYTES = 256_000_000
"""Largest file or record that may become a document: a larger one could exhaust the memory of a build."""


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


def read_text(path: Path) -> str:
    """The decoded text of a file. Raises ValueError: the file cannot be read, is too large, or is not text."""
    try:
        with path.open("rb") as file:
            return decode(read_bounded(file), path.name)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def read_bounded(stream: BufferedIOBase | IO[bytes]) -> bytes:
    """All bytes of a stream. Raises ValueError: there are more than MAX_DOCUMENT_BYTES."""
    data = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"larger than {MAX_DOCUMENT_BYTES // 10**6} MB")
    return data


def decode(raw: bytes, name: str) -> str:
    """Decode a file, line ends unchanged: as UTF-8, or for Python source in the encoding that it declares (PEP 263).

    Raises ValueError: the bytes are not text in that encoding.
    """
    encoding = "utf-8-sig"
    try:
        if name.endswith(".py"):
            encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        return raw.decode(encoding)
    except (SyntaxError, LookupError, UnicodeError) as error:
        raise ValueError(f"not text: {error}") from None


def is_binary(raw: bytes) -> bool:
    """Whether a file is binary: it has a zero byte near its start (git's rule)."""
    return b"\0" in raw[:8000]
