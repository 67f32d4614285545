"""Text files of the user's own."""

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bluejay.pile.document import Document, SetAside, read_text
from bluejay.recipe import STRICT


@dataclass(frozen=True)
class Text:
    """UTF-8 files, each one document."""

    __pydantic_config__ = STRICT
    kind: Literal["text"]
    path: str
    """A file or a pattern of files, `~/notes/**/*.md`; relative to the folder in which the command runs."""

    def documents(self) -> Iterator[Document | SetAside]:
        """One document per file, in order of path. Raises ValueError: no file matches."""
        pattern = str(Path(self.path).expanduser())
        found = glob.glob(pattern, recursive=True)  # noqa: PTH207 - it passes over hidden files, as Path.glob does not
        paths = sorted(path for path in map(Path, found) if path.is_file())
        if not paths:
            hint = f"; it is a folder, write {self.path.rstrip('/')}/**/*.txt" if Path(pattern).is_dir() else ""
            raise ValueError(f"no file matches {self.path}{hint}")
        for path in paths:
            try:
                text = read_text(path)
            except ValueError as error:
                yield SetAside(path.as_posix(), str(error))
                continue
            yield Document(text, path.as_posix(), "unknown", path.as_posix(), {"path": path.as_posix()})
