"""Plain text files."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Literal

from bluejay.fetch import is_address
from bluejay.pile.documents import BROKEN_OFF, Document, Skipped
from bluejay.pile.sources.io.decode import START_BYTES, Encoding, file_text, recoded
from bluejay.pile.sources.io.lines import further, pieces
from bluejay.pile.sources.io.open import BROKEN, UntilDamaged, matching, open_bytes
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
    encoding: Encoding | None = None
    """The encoding of files that do not begin as UTF-8."""

    def units(self) -> list[str]:
        """The files, in order of path. Raises ValueError: no file matches."""
        return matching(self.path, self.kind)

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """The text of a file, up to a damage if it has one, as one document, or one for each of its `lines.pieces`.

        Raises ValueError: it cannot be read, or does not begin as text.
        """
        name = unit if is_address(unit) else Path(unit).as_posix()
        try:
            with open_bytes(unit) as stream:
                undamaged = UntilDamaged(stream)
                raw = pieces(recoded(BufferedReader(undamaged, START_BYTES), self.encoding))
                first = next(raw)
                if undamaged.damage and not first:
                    raise ValueError(f"broken: {undamaged.damage}")
                document = Document(file_text(first, Path(unit).name), name, self.licence, name, {"path": name})
                yield document
                yield from further(document, raw)
        except BROKEN as error:
            raise ValueError(f"broken: {error}") from None
        if undamaged.damage:
            yield Skipped(name, f"{BROKEN_OFF}: {undamaged.damage}")
