"""Files as streams of bytes, local or at an address, decompressed where they are compressed."""

import bz2
import fnmatch
import glob
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

from bluejay.extras import install
from bluejay.fetch import fetch, find, is_address

READ_BYTES = 1 << 17
"""Bytes of a compressed file that are read at once."""
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""The exceptions that reading a damaged stream raises."""
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
"""Ends of the names of compressed files."""
POINTER = b"version https://git-lfs.github.com/spec/"
"""The start of what a repository holds in place of a file that Git LFS keeps elsewhere."""


def matching(path: str) -> list[str]:
    """The files that a path, a pattern (`~/notes/**/*.md`) or an address matches, in order.

    In a pattern, `**` does not follow links to folders, which may lead back; links to files that are missing count as
    files, so that reading reports them. Raises ValueError: no file matches.
    """
    if is_address(path):
        return find(path)
    pattern = Path(path).expanduser()
    top = Path(pattern.anchor)
    found = [pattern] if os.path.lexists(pattern) else expanded(top, pattern.relative_to(top).parts)
    paths = sorted({path for path in found if path.is_file() or (path.is_symlink() and not path.exists())})
    if not paths:
        hint = f"; it is a folder, write {path.rstrip('/')}/**/*.txt" if pattern.is_dir() else ""
        raise ValueError(f"no file matches {path}{hint}")
    return [path.as_posix() for path in paths]


def expanded(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """The paths within a folder that match the parts of a pattern; wildcards do not match hidden names."""
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from expanded(folder, rest or ("*",))
        for entry in entries(folder):
            if entry.is_dir(follow_symlinks=False):
                yield from expanded(folder / entry.name, parts)
    elif glob.has_magic(part):
        for entry in entries(folder, hidden=part.startswith(".")):
            if fnmatch.fnmatchcase(entry.name, part):
                yield from expanded(folder / entry.name, rest)
    elif os.path.lexists(folder / part):
        yield from expanded(folder / part, rest)


def entries(folder: Path, hidden: bool = False) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing where it is none or may not be read."""
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if hidden or not entry.name.startswith(".")]
    except OSError:
        return []


def local(path: str) -> Path:
    """The path of a local file; one at an address is downloaded first. Raises ValueError: the download fails."""
    return fetch(path) if is_address(path) else Path(path).expanduser()


def open_raw(path: str) -> io.BufferedReader:
    """A stream of a file's bytes as they are stored. Raises ValueError: it cannot be downloaded or opened."""
    try:
        return local(path).open("rb")
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


@contextmanager
def open_bytes(path: str) -> Generator[BufferedIOBase]:
    """A stream of a file's bytes, decompressed. Raises ValueError: it cannot be downloaded or opened."""
    with open_raw(path) as raw, decompressed(raw) as stream:
        yield stream


def decompressed(stream: BufferedIOBase) -> BufferedIOBase:
    """The decompressed content of a gzip, bzip2, xz or Zstandard stream, all its members; any other stream unchanged.

    Reading a damaged stream gives everything before the damage, then raises one of BROKEN.
    Raises ValueError: it is a pointer of Git LFS.
    """
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, stream))
    start = buffered.peek(len(POINTER))[: len(POINTER)]
    refuse_pointer(start)
    start = start[:6]
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(buffered)
    if start.startswith(b"BZh"):
        return bz2.open(buffered)
    if start == b"\xfd7zXZ\x00":
        return lzma.open(buffered)
    skippable = start[1:4] == b"\x2a\x4d\x18" and start[0] >> 4 == 5
    if start.startswith(b"\x28\xb5\x2f\xfd") or skippable:
        return io.BufferedReader(ZstdFrames(buffered), READ_BYTES)
    return buffered


def refuse_pointer(start: bytes) -> None:
    """Raise ValueError where a file begins like a pointer of Git LFS."""
    if start.startswith(POINTER):
        raise ValueError("a pointer of Git LFS, not the file itself")


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a whole path matches one of the patterns, in which `*` matches any characters, including `/`."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


class ZstdFrames(io.RawIOBase):
    """All frames of a Zstandard stream; raises EOFError if the last one is truncated, which `zstandard` ignores."""

    def __init__(self, packed: BufferedIOBase) -> None:
        try:
            import zstandard
        except ImportError:
            raise ValueError(f"reading .zst needs zstandard: {install('corpus')}") from None
        self.packed, self.error = packed, zstandard.ZstdError
        # 2 GiB: `zstd --long=31` makes such frames.
        self.new_frame = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
        self.frame, self.started = self.new_frame(), False
        self.ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            packed = self.frame.unused_data or self.packed.read(READ_BYTES)
            if not packed:
                if self.started and not self.frame.eof:
                    raise EOFError("the last Zstandard frame is truncated")
                return 0
            if self.frame.eof:
                self.frame = self.new_frame()
            self.started = True
            try:
                self.ready = memoryview(self.frame.decompress(packed))
            except self.error as error:
                raise OSError(f"not Zstandard: {error}") from None
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self.ready))
        view[:count], self.ready = self.ready[:count], self.ready[count:]
        return count
