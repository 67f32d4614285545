"""The user's own archives: tar (also compressed), zip, Debian packages."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bluejay.pile.documents import Document, Skipped
from bluejay.pile.sources.io.open import matching, open_raw
from bluejay.pile.sources.packages.member import MemberFormat, Members, Release
from bluejay.recipe import NotEmpty


@dataclass(frozen=True, kw_only=True)
class Archive(Members):
    """Archives that each hold many documents."""

    kind: Literal["archive"]
    path: NotEmpty
    """A file, a pattern of files or an address; within a package, a pattern of its members."""
    formats: tuple[MemberFormat, ...] = ()
    """Readers of other members; the first whose `path` matches is used."""
    licence: str = "unknown"
    """The licence of members that do not state their own."""

    def units(self) -> list[str]:
        """The archives, in order. Raises ValueError: there is none."""
        return matching(self.path, self.kind)

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """The documents of an archive, in its order. Raises ValueError: it is not one, or cannot be read."""
        with open_raw(unit) as stream:
            yield from self.documents(stream, Release(unit, unit, self.licence), rooted=False)

    def read_stream(self, name: str, data: bytes) -> Iterator[Document | Skipped]:
        """The documents of an archive in memory, such as a member of a package."""
        return self.documents(io.BytesIO(data), Release(name, name, self.licence), rooted=False)
