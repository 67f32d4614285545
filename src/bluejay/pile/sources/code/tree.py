"""Source code: a folder of the user's own."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bluejay.pile.documents import Document, Skipped, decode, is_binary
from bluejay.pile.sources.io.open import matches
from bluejay.pile.sources.io.spdx import LicenceFiles, declared
from bluejay.recipe import STRICT

HISTORIES = (".git", ".hg", ".svn", ".bzr")
TOP = "."
"""The unit of the files that stand in the folder itself."""


@dataclass(frozen=True, kw_only=True)
class SourceFiles:
    """The fields that source code has in a recipe, whatever its kind. In patterns, `*` stands for any characters."""

    __pydantic_config__ = STRICT
    path: str
    """The folder or repository."""
    include: tuple[str, ...] = ("*",)
    """Patterns of files: ["*.py", "docs/*.rst"]. Binary files are set aside."""
    exclude: tuple[str, ...] = ()
    """Patterns of files that are passed over, whatever else they fit."""
    licences: tuple[str, ...] = ()
    """SPDX names: ["MIT", "Apache-2.0"]; files under any other licence, or an unknown one, are set aside."""
    licence: str = "from-metadata"
    """The licence of all of it; else what a file's SPDX line says, or the LICENSE file nearest above it."""
    max_bytes: int = 1_000_000
    """A larger file is set aside; few of them are written by hand."""

    def wants(self, name: str) -> bool:
        """Whether a file is read at all."""
        return matches(name, self.include) and not matches(name, self.exclude)

    def document(self, name: str, raw: bytes, licences: LicenceFiles, source: str, url: str) -> Document:
        """The document of one file. Raises ValueError: it is to be set aside."""
        if len(raw) > self.max_bytes:
            raise ValueError(f"larger than {self.max_bytes:,} bytes")
        if is_binary(raw):
            raise ValueError("binary")
        text = decode(raw, name)
        licence = self.licence
        if licence == "from-metadata":
            licence = declared(text) or licences.above(name)
        if self.licences and licence not in self.licences:
            raise ValueError(f"its licence, {licence}, is none of {', '.join(self.licences)}")
        return Document(text, source, licence, url, {"path": name})


@dataclass(frozen=True, kw_only=True)
class Tree(SourceFiles):
    """A folder; what its links point to is not read, nor what version control keeps in it."""

    kind: Literal["tree"]

    def units(self) -> list[str]:
        """Its folders, and its own files as one. Raises ValueError: it is no folder, or has no file that is wanted."""
        root = self.root
        folders = [folder.name for folder in root.iterdir() if folder.is_dir() and not folder.is_symlink()]
        units = [TOP, *sorted(set(folders).difference(HISTORIES))]
        found = [unit for unit in units if any(map(self.wants, files_in(root, unit)))]
        if not found:
            raise ValueError(f"no file in {self.path} matches {', '.join(self.include)}")
        return found

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """One document per file, in order of path."""
        root = self.root
        names = files_in(root, unit)
        above = [] if unit == TOP else files_in(root, TOP)
        licences = LicenceFiles([*above, *names], lambda name: (root / name).read_bytes())
        for name in filter(self.wants, names):
            url = (root / name).as_posix()
            try:
                if (root / name).stat().st_size > self.max_bytes:
                    raise ValueError(f"larger than {self.max_bytes:,} bytes")
                yield self.document(name, (root / name).read_bytes(), licences, root.name, url)
            except ValueError as error:
                yield Skipped(url, str(error))
            except OSError as error:
                yield Skipped(url, f"cannot be read: {error.strerror}")

    @property
    def root(self) -> Path:
        """The folder. Raises ValueError: it is none."""
        root = Path(self.path).expanduser().resolve()
        if not root.is_dir():
            raise ValueError(f"{self.path} is no folder")
        return root


def files_in(root: Path, unit: str) -> list[str]:
    """The paths of the files of a unit, in order; links are none."""
    found = []
    for folder, folders, files in os.walk(root if unit == TOP else root / unit):
        folders[:] = [] if unit == TOP else [name for name in folders if name not in HISTORIES]
        found += [path for path in map(Path(folder).joinpath, files) if path.is_file() and not path.is_symlink()]
    return sorted(path.relative_to(root).as_posix() for path in found)
