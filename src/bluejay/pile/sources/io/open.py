"""Files as streams of bytes, local or at an address, decompressed where they are compressed."""

import bz2
import fnmatch
import glob
import gzip
import io
import lzma
import zlib
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

from bluejay.fetch import fetch, find, is_address

READ_BYTES = 1 << 17
"""Bytes of a compressed file that are read at once."""
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""The exceptions that reading a damaged stream raises."""


def matching(path: str) -> list[str]:
    """The files that a path, a pattern (`~/notes/**/*.md`) or an address matches, in order.

    Raises ValueError: there is none.
    """
    if is_address(path):
        return find(path)
    pattern = str(Path(path).expanduser())
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207 - unlike Path.glob, it skips hidden files
    paths = sorted(path for path in map(Path, found) if path.is_file())
    if not paths:
        hint = f"; it is a folder, write {path.rstrip('/')}/**/*.txt" if Path(pattern).is_dir() else ""
        raise ValueError(f"no file matches {path}{hint}")
    return [path.as_posix() for path in paths]


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
    """
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, stream))
    start = buffered.peek(6)[:6]
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


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a whole path matches one of the patterns, in which `*` matches any characters, including `/`."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


class ZstdFrames(io.RawIOBase):
    """All frames of a Zstandard stream; raises EOFError if the last one is truncated, which `zstandard` ignores."""

    def __init__(self, packed: BufferedIOBase) -> None:
        try:
            import zstandard
        except ImportError:
            raise ValueError("reading .zst needs zstandard: pip install 'bluejay[corpus]'") from None
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
