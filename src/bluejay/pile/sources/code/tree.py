"""Source code in a folder of the user."""

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bluejay.fetch import without_credentials
from bluejay.pile.documents import Document, Skipped, skipped
from bluejay.pile.sources.io.decode import file_text, is_binary, refuse_other_format
from bluejay.pile.sources.io.lines import further, pieces
from bluejay.pile.sources.io.open import matches, require_size, stamp_of, unopened, unreadable
from bluejay.pile.sources.io.spdx import MAX_LICENCE_BYTES, LicenceFiles, declared, is_licence, permitted
from bluejay.progress import say
from bluejay.recipe import STRICT, NotEmpty

VERSION_CONTROL = (".git", ".hg", ".svn", ".bzr")
"""The folders in which version control keeps its data; in a worktree, `.git` is a file."""
TOP = "."
"""The unit of the files that are directly in the folder."""


@dataclass(frozen=True, kw_only=True)
class SourceFiles:
    """The fields of all sources of code in a recipe, in whose patterns `*` matches any characters, as in `matches`."""

    __pydantic_config__ = STRICT
    path: NotEmpty
    """The folder or repository."""
    include: tuple[str, ...] = ("*",)
    """Patterns of files: ["*.py", "docs/*.rst"]. Binary files are skipped."""
    exclude: tuple[str, ...] = ()
    """Patterns of files that are not read, even if `include` matches them: ["*_test.py", "**/node_modules/"]."""
    licences: tuple[str, ...] = ()
    """SPDX names: ["MIT", "Apache-2.0"]. If given, files under other or unknown licences are skipped."""
    licence: str = "from-metadata"
    """The licence of all files; "from-metadata" is that of a file's SPDX line, else of the nearest LICENSE above it."""
    max_bytes: int = 1_000_000
    """A larger file is skipped; few of them are written by hand."""

    def __post_init__(self) -> None:
        require_size(self.max_bytes)
        if not self.include:
            raise ValueError('include is empty; write include = ["*"], or leave it out, for all files')

    def wants(self, name: str) -> bool:
        """Whether a file is read at all."""
        return matches(name, self.include) and not matches(name, self.exclude)

    def say_idle(self, names: Sequence[str], expected: Collection[str] = ()) -> None:
        """Say which patterns of `exclude`, and of several of `include`, match none of the names of all files, but for
        those from which that is expected."""
        for field, patterns in (("include", self.include if len(self.include) > 1 else ()), ("exclude", self.exclude)):
            for pattern in patterns:
                if pattern not in expected and not any(matches(name, (pattern,)) for name in names):
                    say(f"{pattern} in {field} matches no file in {without_credentials(self.path)}")

    def nothing_in(self, folder: str, names: Sequence[str]) -> str:
        """Why no file of a folder is read, whose files have these names."""
        if any(matches(name, self.include) for name in names):
            return f"exclude leaves out every file in {folder} that include matches"
        return f"no file in {folder} matches {', '.join(self.include)}"

    def check_size(self, size: int) -> None:
        """Raise ValueError where a file of `size` bytes is not read."""
        if size > self.max_bytes:
            raise ValueError(f"larger than {self.max_bytes:,} bytes")

    def document(self, name: str, raw: bytes, licences: LicenceFiles, source: str, url: str) -> Document:
        """The document of a file, or of its first piece. Raises ValueError: it must be skipped, for this reason."""
        if is_binary(raw):
            refuse_other_format(raw)
            raise ValueError("binary")
        text = file_text(raw, name)
        licence = self.licence
        if licence == "from-metadata":
            licence = declared(text) or licences.above(name)
        if self.licences and not permitted(licence, self.licences):
            raise ValueError(f"its licence, {licence}, is none of {', '.join(self.licences)}")
        return Document(text, source, licence, url, {"path": name})


@dataclass(frozen=True, kw_only=True)
class Tree(SourceFiles):
    """A folder; links are not followed, and the data of version control is not read."""

    kind: Literal["tree"]

    def units(self) -> list[str]:
        """Its subfolders, and its own files as one unit.

        Raises ValueError: it is no folder, one in it cannot be read, or no file matches.
        """
        found = [unit for unit in self.folders() if any(map(self.wants, self.files_in(unit)))]
        if not found:
            names = (name for unit in self.folders() for name in self.files_in(unit))
            raise ValueError(self.nothing_in(self.path, list(names)))
        return found

    def folders(self) -> list[str]:
        """Its subfolders, those in which no file matches, too, and TOP."""
        try:
            found = [folder.name for folder in self.root.iterdir() if folder.is_dir() and not folder.is_symlink()]
        except OSError as error:
            unreadable(error)
        return [TOP, *sorted(set(found).difference(VERSION_CONTROL))]

    def stamps(self, unit: str) -> list[tuple[int | str, ...]]:
        """Name and `stamp_of` of the files that a unit's documents depend on: those that are read, and licence files
        beside and above them."""
        names, above = self.files_in(unit), [] if unit == TOP else self.files_in(TOP)
        needed = [name for name in names if self.wants(name) or is_licence(name)] + list(filter(is_licence, above))
        return [(name, *stamp_of(self.root / name)) for name in needed]

    def read(self, unit: str) -> Iterator[Document | Skipped]:
        """One document per file, or for each of its `lines.pieces`, in order of path."""
        root = self.root
        names = self.files_in(unit)
        above = [] if unit == TOP else self.files_in(TOP)
        licences = LicenceFiles([*above, *names], lambda name: beginning(root / name))
        for name in filter(self.wants, names):
            url = (root / name).as_posix()
            try:
                self.check_size((root / name).stat().st_size)
                with (root / name).open("rb") as file:
                    raw = pieces(file)
                    document = self.document(name, next(raw), licences, root.name, url)
                    yield document
                    yield from further(document, raw)
            except ValueError as error:
                yield skipped(url, error)
            except OSError as error:
                yield skipped(url, unopened(error))

    def files_in(self, unit: str) -> list[str]:
        """The paths of a unit's files, in order, without links. Raises ValueError: a folder that `exclude` does not
        leave out cannot be read."""
        root, found = self.root, []

        def refuse(error: OSError) -> None:
            if not matches(f"{Path(error.filename).relative_to(root).as_posix()}/", self.exclude):
                unreadable(error)

        for folder, folders, files in os.walk(root if unit == TOP else root / unit, onerror=refuse):
            folders[:] = [] if unit == TOP else [name for name in folders if name not in VERSION_CONTROL]
            paths = [Path(folder, name) for name in files if name not in VERSION_CONTROL]  # `.git` of a worktree
            found += [path for path in paths if path.is_file() and not path.is_symlink()]
        return sorted(path.relative_to(root).as_posix() for path in found)

    @property
    def root(self) -> Path:
        """The folder. Raises ValueError: it is not one."""
        root = Path(self.path).expanduser().resolve()
        if not root.is_dir():
            raise ValueError(f"{self.path} is not a folder")
        return root


def beginning(path: Path) -> bytes:
    """The first MAX_LICENCE_BYTES of a file."""
    with path.open("rb") as file:
        return file.read(MAX_LICENCE_BYTES)
