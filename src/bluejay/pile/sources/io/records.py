"""Files that hold records, each of which may be a document: what every format has in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any

from bluejay.pile.documents import Document, Skipped
from bluejay.pile.sources.io.open import decompressed, matching
from bluejay.pile.sources.io.sandbox import guarded
from bluejay.recipe import STRICT


@dataclass(frozen=True, kw_only=True)
class RecordFiles(ABC):
    """Files of one format. All of its parsing runs in a child process (`guard`), so that no file can stop a build."""

    __pydantic_config__ = STRICT
    path: str
    """A file, a pattern of files, an address; in a package, a pattern of its members."""
    licence: str = "unknown"
    """The licence of what the files themselves say nothing of."""

    def units(self) -> list[str]:
        """The files, in order. Raises ValueError: there is none."""
        return matching(self.path)

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """The documents of a file, in order. Raises ValueError: it gives nothing at all."""
        return guarded(self, unit, None)

    def read_stream(self, name: str, data: bytes) -> Iterator[Document | Skipped]:
        """The documents of a file that is in memory, a member of a package. Raises ValueError as `read` does."""
        return guarded(self, name, data)

    def records(self, name: str, stream: BufferedIOBase) -> Iterator[Any]:
        """Split a file into records, cheaply; here, the file is the record. None says that the work goes on.

        Raises any exception where the file is broken: what came before is kept.
        """
        yield decompressed(stream).read()

    @abstractmethod
    def document(self, name: str, record: Any) -> Document:
        """The document of a record of the file `name`. Raises any exception: the record is set aside."""
