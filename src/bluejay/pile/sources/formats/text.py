"""Text files of the user's own."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bluejay.pile.documents import Document, Skipped, read_text
from bluejay.pile.sources.io.fetch import is_address
from bluejay.pile.sources.io.open import local, matching
from bluejay.recipe import STRICT


@dataclass(frozen=True)
class Text:
    """UTF-8 files, each one document."""

    __pydantic_config__ = STRICT
    kind: Literal["text"]
    path: str
    """A file, a pattern of files (`~/notes/**/*.md`, from the folder in which the command runs) or an address."""
    licence: str = "unknown"
    """What holds for all of them."""

    def units(self) -> list[str]:
        """One per file, in order of path. Raises ValueError: no file matches."""
        return matching(self.path)

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """The text of a file. Raises ValueError: it cannot be read, or is not text."""
        text = read_text(local(unit))
        name = unit if is_address(unit) else Path(unit).as_posix()
        yield Document(text, name, self.licence, name, {"path": name})
