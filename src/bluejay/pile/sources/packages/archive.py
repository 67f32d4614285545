"""Archives of the user's own: tar (also compressed), zip, Debian packages."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bluejay.pile.documents import Document, Skipped
from bluejay.pile.sources.io.open import local, matching
from bluejay.pile.sources.io.unpack import open_archive
from bluejay.pile.sources.packages.member import MemberFormat, Members, Release


@dataclass(frozen=True, kw_only=True)
class Archive(Members):
    """Files that each hold many."""

    kind: Literal["archive"]
    path: str
    """A file, a pattern of files or an address; in a package, a pattern of its members."""
    formats: tuple[MemberFormat, ...] = ()
    """How other members are read, by the first whose `path` fits."""
    licence: str = "unknown"
    """What holds for all members that do not say themselves."""

    def units(self) -> list[str]:
        """The archives, in order. Raises ValueError: there is none."""
        return matching(self.path)

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """The documents of an archive, in its order. Raises ValueError: it is none, or cannot be had."""
        with open_archive(local(unit)) as stream:
            yield from self.documents(stream, Release(unit, unit, self.licence), rooted=False)

    def read_stream(self, name: str, data: bytes) -> Iterator[Document | Skipped]:
        """The documents of an archive that is in memory, a member of a package."""
        return self.documents(io.BytesIO(data), Release(name, name, self.licence), rooted=False)
