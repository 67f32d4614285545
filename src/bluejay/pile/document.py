"""What sources give: documents, and what they had to set aside."""

import hashlib
import io
import tokenize
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any


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
class SetAside:
    """A piece of a source that gave no document."""

    name: str
    """The file, or the place within it."""
    reason: str


def read_text(path: Path) -> str:
    """The text of a file, its line ends untouched: UTF-8, or for Python source the encoding it declares (PEP 263).

    Raises ValueError: it cannot be read, or is not text in that encoding.
    """
    try:
        return decode(path.read_bytes(), python=path.suffix == ".py")
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def decode(raw: bytes, python: bool = False) -> str:
    """Bytes as UTF-8, with or without its mark; as `python`, in the encoding that the source declares (PEP 263).

    Raises ValueError: not text in that encoding.
    """
    encoding = "utf-8-sig"
    try:
        if python:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        return raw.decode(encoding)
    except (SyntaxError, LookupError, UnicodeError) as error:
        raise ValueError(f"not text: {error}") from None
