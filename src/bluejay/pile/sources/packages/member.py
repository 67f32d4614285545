"""Archives as sources: which of their members are documents, and how those are read."""

import dataclasses
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

from pydantic import Field

from bluejay.pile.documents import BROKEN_OFF, Document, Skipped, read_until_damaged, skipped
from bluejay.pile.sources.formats import Format
from bluejay.pile.sources.formats.tables import CSV, JSON, NAMES_SHOWN, JSONLines, listed
from bluejay.pile.sources.io.decode import file_text, is_binary, refuse_other_format
from bluejay.pile.sources.io.open import BROKEN, decompressed, matches, require_size
from bluejay.pile.sources.io.unpack import Stream, content, members
from bluejay.recipe import STRICT

MemberFormat = Annotated[Format | JSON | JSONLines | CSV, Field(discriminator="kind")]
"""The formats that a member of an archive may have. Their `path` is then a pattern of members."""


@runtime_checkable
class Reader(Protocol):
    """What a reader of members must have; all of MemberFormat do."""

    @property
    def path(self) -> str:
        """A pattern of members."""
        ...

    def read_stream(self, name: str, data: bytes) -> Iterator[Document | Skipped]:
        """The documents of the member `name`."""
        ...


@dataclass(frozen=True)
class Release:
    """Properties that all documents of one archive share."""

    source: str
    """Name and version: `django-5.2.19`."""
    url: str
    """The package URL, `pkg:pypi/django@5.2.19`; that of a document adds `#` and its path."""
    licence: str
    """The licence of members that do not state their own."""


@dataclass(frozen=True, kw_only=True)
class Members:
    """The fields of every kind of archive in a recipe. In patterns, `*` matches any characters, including `/`."""

    __pydantic_config__ = STRICT
    include: tuple[str, ...] = ()
    """Patterns of members that are plain text, compressed or not, one document each: ["*.py", "docs/*.txt.gz"]."""
    exclude: tuple[str, ...] = ()
    """Patterns of members that are not read, even if they match other patterns."""
    formats: tuple[Reader, ...] = ()
    """Readers of other members; the first whose `path` matches is used."""
    max_bytes: int | None = None
    """A larger member is skipped."""

    def __post_init__(self) -> None:
        if not self.include and not self.formats:
            raise ValueError('an archive needs include = ["*.py"] or formats = [{ kind = "html", path = "*.html" }]')
        require_size(self.max_bytes)

    def documents(self, archive: io.BufferedIOBase, release: Release, rooted: bool) -> Iterator[Document | Skipped]:
        """The documents of an archive, in its order; that it has no member for them is said as one that is skipped.

        Raises ValueError: it is not an archive.
        """
        wanted = (*self.include, *(reader.path for reader in self.formats))
        others: list[str] = []
        is_empty = True
        for found in members(archive, release.source):
            if isinstance(found, Skipped):
                is_empty = False
                yield found
                continue
            name = without_root(found[0], rooted)
            if not matches(name, wanted) or matches(name, self.exclude):
                others += [name] if len(others) <= NAMES_SHOWN else []
                continue
            is_empty = False
            try:
                yield from self.member_documents(name, self.checked_content(found[1]), release)
            except ValueError as error:
                yield skipped(f"{release.source}/{name}", error)
        if is_empty:
            yield Skipped(release.source, f"no member matches {', '.join(wanted)}: it has {listed(others)}")

    def checked_content(self, member: Stream | None) -> bytes:
        """The content of a member. Raises ValueError: it is damaged, too large or a link."""
        data = content(member)
        if self.max_bytes is not None and len(data) > self.max_bytes:
            raise ValueError(f"larger than {self.max_bytes:,} bytes")
        return data

    def member_documents(self, name: str, data: bytes, release: Release) -> Iterator[Document | Skipped]:
        """The documents of one member. Raises ValueError: it has none."""
        label, url = f"{release.source}/{name}", f"{release.url}#{name}"
        for reader in self.formats:
            if matches(name, (reader.path,)):
                for found in reader.read_stream(label, data):
                    yield with_release(found, label, url, release) if isinstance(found, Document) else found
                return
        try:
            text, damage = read_until_damaged(decompressed(io.BytesIO(data)))
        except BROKEN as error:
            raise ValueError(f"broken: {error}") from None
        if is_binary(text):
            refuse_other_format(text)
            raise ValueError("binary")
        yield Document(file_text(text, name), release.source, release.licence, url, {"path": name})
        if damage:
            yield Skipped(label, f"{BROKEN_OFF}: {damage}")


def without_root(name: str, rooted: bool) -> str:
    """A member's path, without the folder that holds all members if there is one (`rooted`)."""
    name = name.removeprefix("./")
    return name.partition("/")[2] if rooted else name


def with_release(document: Document, label: str, url: str, release: Release) -> Document:
    """A reader's document, with the archive's source, licence and URL where the member does not state its own."""
    return dataclasses.replace(
        document,
        source=release.source if document.source == label else document.source,
        licence=release.licence if document.licence == "unknown" else document.licence,
        url=url + document.url.removeprefix(label) if document.url.startswith(label) else document.url,
    )
