"""Plain text files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bluejay.fetch import is_address
from bluejay.pile.documents import BROKEN_OFF, Document, Skipped
from bluejay.pile.sources.io.decode import undamaged_text
from bluejay.pile.sources.io.open import matching
from bluejay.recipe import STRICT, NotEmpty


@dataclass(frozen=True)
class Text:
    """Text files, compressed or not, each of which is one document."""

    __pydantic_config__ = STRICT
    kind: Literal["text"]
    path: NotEmpty
    """A file, a pattern of files (`~/notes/**/*.md`; relative to the working directory) or an address."""
    licence: str = "unknown"
    """The licence of all files."""

    def units(self) -> list[str]:
        """The files, in order of path. Raises ValueError: no file matches."""
        return matching(self.path, self.kind)

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """The text of a file, up to a damage if it has one, as one document.

        Raises ValueError: it cannot be read, or is not text.
        """
        text, damage = undamaged_text(unit)
        name = unit if is_address(unit) else Path(unit).as_posix()
        yield Document(text, name, self.licence, name, {"path": name})
        if damage:
            yield Skipped(name, f"{BROKEN_OFF}: {damage}")
