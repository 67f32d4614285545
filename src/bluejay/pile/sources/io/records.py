"""The base class of all formats: files that hold records, each of which may be a document."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, ClassVar

from bluejay.pile.documents import Document, Skipped, is_machine_fault, read_until_damaged
from bluejay.pile.sources.io.open import decompressed, matching
from bluejay.pile.sources.io.ranges import FileRange, Records
from bluejay.pile.sources.io.sandbox import sandboxed
from bluejay.recipe import STRICT, NotEmpty


@dataclass(frozen=True, kw_only=True)
class RecordFiles(ABC):
    """Files of one format. All parsing runs in a child process (`sandbox`), so that no file can stop a build."""

    __pydantic_config__ = STRICT
    RECORDS: ClassVar[Records | None] = None
    """How ranges of a large file are read; None where a file is read from its start."""
    path: NotEmpty
    """A file, a pattern of files or an address; within a package, a pattern of its members."""
    licence: str = "unknown"
    """The licence of documents that do not state their own."""

    def units(self) -> list[str]:
        """The files, in order. Raises ValueError: there is none."""
        return matching(self.path, getattr(self, "kind", ""))

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """The documents of a file, in order. Raises ValueError: nothing of it can be read."""
        return sandboxed(self, unit, None)

    def read_range(self, unit: str, place: FileRange) -> Iterator[Document | Skipped]:
        """The documents of a range of a file, in order. Raises ValueError: nothing of it can be read."""
        return sandboxed(self, unit, None, place=place)

    def count_range(self, unit: str, place: FileRange) -> int:
        """How many records begin in a range of a file."""
        found = 0
        try:
            for _ in sandboxed(self, unit, None, place=place, count=True):
                found += 1
        except ValueError as error:  # which reading the range says
            if is_machine_fault(error):
                raise
        return found

    def read_stream(self, name: str, data: bytes) -> Iterator[Document | Skipped]:
        """The documents of a file in memory, such as a member of a package. Raises ValueError as `read` does."""
        return sandboxed(self, name, data)

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """Split a file into records, cheaply; by default the file is one record. None restarts the time limit.

        Raises any exception where the file is damaged; the records before the damage are kept.
        """
        raw, damage = read_until_damaged(decompressed(stream))
        yield raw
        if damage:
            raise damage

    @abstractmethod
    def document(self, name: str, record: Any) -> Document:
        """The document of a record of the file `name`. After any exception the record is skipped."""
