"""Files as streams of bytes, local or at an address, decompressed where they are compressed."""

import errno
import fnmatch
import glob
import io
import os
import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NoReturn, cast

from bluejay.decompress import BROKEN as BROKEN
from bluejay.decompress import COMPRESSIONS as COMPRESSIONS
from bluejay.decompress import READ_BYTES as READ_BYTES
from bluejay.decompress import MachineFault, decompressed
from bluejay.decompress import refuse_pointer as refuse_pointer
from bluejay.fetch import fetch, find, is_address
from bluejay.pile.documents import is_machine_fault
from bluejay.recipe import at_home

ABOUT_A_FILE = re.compile(
    r"(https?://(?:www\.)?"
    r"(?:github\.com/[^/]+/[^/]+|huggingface\.co/(?:[^/]+/){1,2}[^/]+|gitlab\.com/(?:(?!/-/)[^?#])+/-))/blob/"
)
"""The address of a page on which a host shows a file, up to the branch."""
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
"""The start of an address of any kind."""
NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""The errors of listing what is no folder: a file, a link to nothing or to itself."""

ENDINGS = {"text": "txt", "mail": "mbox", "latex": "tex", "office": "docx", "notebook": "ipynb"} | {
    kind: kind for kind in ("csv", "epub", "html", "json", "jsonl", "parquet", "pdf", "warc")
}
"""The usual ending of the names of files, by the kind of source that reads them."""


def matching(path: str, kind: str = "") -> list[str]:
    """The files that a path, a pattern (`~/notes/**/*.md`) or an address matches, in order; `kind` is that of the
    source that reads them.

    In a pattern, `**` does not follow links to folders, which may lead back; links to files that are missing count as
    files, so that reading reports them. Raises ValueError: no file matches, a folder on the way cannot be read, an
    address is of a kind that is not read, or that of a page about a file, unless pages are what the source reads.
    """
    if is_address(path):
        if (page := ABOUT_A_FILE.match(path)) and kind != "html":
            itself = f"{page[1]}/{'resolve' if 'huggingface' in page[1] else 'raw'}/{path[page.end() :]}"
            raise ValueError(f"{path} is a page about a file; the file itself is at {itself}")
        return find(path)
    if other := ADDRESS.match(path):
        itself = f", or the path alone, {path[other.end() :]}" if other[1].lower() == "file" else ""
        raise ValueError(f"{path} begins with {other[0]}, which is not read; write http(s)://, s3:// or hf://{itself}")
    pattern = Path(at_home(path))
    top = Path(pattern.anchor)
    found = [pattern] if os.path.lexists(pattern) else expanded(top, pattern.relative_to(top).parts)
    paths = sorted({path for path in found if path.is_file() or (path.is_symlink() and not path.exists())})
    if not paths:
        ending = f".{ENDINGS[kind]}" if kind in ENDINGS else ""
        hint = f"; it is a folder, write {path.rstrip('/')}/**/*{ending}" if pattern.is_dir() else ""
        raise ValueError(f"no file matches {path}{hint}")
    return [path.as_posix() for path in paths]


def expanded(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """The paths within a folder that match the parts of a pattern; wildcards do not match hidden names. Brackets are no
    wildcard where something has them in its name."""
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from expanded(folder, rest or ("*",))
        for entry in entries(folder):
            if entry.is_dir(follow_symlinks=False):
                yield from expanded(folder / entry.name, parts)
    elif glob.has_magic(part) and ("*" in part or "?" in part or not os.path.lexists(folder / part)):
        for entry in entries(folder, hidden=part.startswith(".")):
            if fnmatch.fnmatchcase(entry.name, part):
                yield from expanded(folder / entry.name, rest)
    elif os.path.lexists(folder / part):
        yield from expanded(folder / part, rest)


def entries(folder: Path, hidden: bool = False) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing where it is none. Raises ValueError: it may not be read."""
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if hidden or not entry.name.startswith(".")]
    except OSError as error:
        if error.errno in NO_FOLDER:
            return []
        unreadable(error)


def unreadable(error: OSError) -> NoReturn:
    """Raise ValueError for a folder that cannot be listed, whose files would be left out unsaid."""
    raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from None


def local(path: str) -> Path:
    """The path of a local file; one at an address is downloaded first. Raises MachineFault: the download fails."""
    if not is_address(path):
        return Path(path).expanduser()
    try:
        return fetch(path)
    except ValueError as error:
        raise MachineFault(str(error)) from None


def stamp_of(path: Path) -> tuple[int | str, ...]:
    """What changes with the content of a file, and with the permission to read it: size, modification time (ns)."""
    stat = path.stat()
    return (stat.st_size, stat.st_mtime_ns) + (() if os.access(path, os.R_OK) else ("not readable",))


def open_raw(path: str) -> io.BufferedReader:
    """A stream of a file's bytes as they are stored. Raises ValueError: it cannot be opened; MachineFault: it cannot be
    downloaded, or too many files are open."""
    try:
        return local(path).open("rb")
    except OSError as error:
        raise unopened(error) from None


def unopened(error: OSError) -> ValueError:
    """What is raised for a file that cannot be opened."""
    return (MachineFault if is_machine_fault(error) else ValueError)(f"cannot be read: {error.strerror}")


@contextmanager
def open_bytes(path: str) -> Generator[BufferedIOBase]:
    """A stream of a file's bytes, decompressed. Raises ValueError: it cannot be downloaded or opened, or is a tar
    archive."""
    with open_raw(path) as raw, decompressed(raw) as stream:
        with suppress(*BROKEN):  # which reading raises again
            refuse_tar(cast(io.BufferedReader, stream).peek(512))
        yield stream


def refuse_tar(start: bytes) -> None:
    """Raise ValueError where a file begins like a tar archive, which would be a text with headers and zeros in it."""
    if start[257:262] == b"ustar":
        raise ValueError('a tar archive, which kind = "archive" reads')


def require_size(max_bytes: int | None) -> None:
    """Raise ValueError for a limit on the size of files under which there is none."""
    if max_bytes is not None and max_bytes < 1:
        raise ValueError(f"max_bytes is {max_bytes}; it must be at least 1, as in max_bytes = 1_000_000")


class UntilDamaged(io.RawIOBase):
    """A decompressed stream that ends where it is damaged, so that a reader of lines keeps what stands before."""

    def __init__(self, stream: BufferedIOBase) -> None:
        self.stream: Any = stream
        self.damage: Exception | None = None
        """The exception, one of BROKEN, that the damage raised; None before it, and where there is none."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        try:
            chunk = b"" if self.damage else self.stream.read1(min(len(view), READ_BYTES))
        except BROKEN as error:
            chunk, self.damage = b"", error
        view[: len(chunk)] = chunk
        return len(chunk)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a whole path matches one of the patterns, in which `*` matches any characters, including `/`, and `**/`
    nothing, too. A pattern that ends in `/`, or that has no other wildcard than `**/` and names a folder, matches all
    that is in it.

    >>> matches("a.md", ["**/*.md"]), matches("build/lib/a.py", ["build"]), matches("lib/build/a.py", ["build"])
    (True, True, False)
    """
    return any(fnmatch.fnmatchcase(name, option) for pattern in patterns for option in options(pattern))


@cache
def options(pattern: str) -> tuple[str, ...]:
    """The patterns of `fnmatch`, one of which matches what a pattern matches."""
    first, *rest = re.split(r"(?:(?<=/)|^)\*\*/", pattern)
    found = [first]
    for part in rest:
        found = [f"{start}{between}{part}" for start in found for between in ("**/", "")]
    if pattern.endswith("/"):
        return tuple(f"{option}*" for option in found)
    return tuple(found) if glob.has_magic("".join((first, *rest))) else (*found, *(f"{option}/*" for option in found))
