"""Files as streams of bytes: compressed or not, here or at an address."""

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

from bluejay.pile.sources.io.fetch import fetch, find, is_address

CHUNK = 1 << 17
"""Bytes of a compressed file read at once."""
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a damaged stream raises."""


def matching(path: str) -> list[str]:
    """The files that a path, a pattern (`~/notes/**/*.md`) or an address names, in order.

    Raises ValueError: there is none.
    """
    if is_address(path):
        return find(path)
    pattern = str(Path(path).expanduser())
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207 - it passes over hidden files, as Path.glob does not
    paths = sorted(path for path in map(Path, found) if path.is_file())
    if not paths:
        hint = f"; it is a folder, write {path.rstrip('/')}/**/*.txt" if Path(pattern).is_dir() else ""
        raise ValueError(f"no file matches {path}{hint}")
    return [path.as_posix() for path in paths]


def local(path: str) -> Path:
    """The file itself; what is at an address is fetched first. Raises ValueError: it cannot be had."""
    return fetch(path) if is_address(path) else Path(path).expanduser()


def open_raw(path: str) -> io.BufferedReader:
    """A stream of the bytes of a file as it is stored. Raises ValueError: it cannot be had."""
    try:
        return local(path).open("rb")
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


@contextmanager
def open_bytes(path: str) -> Generator[BufferedIOBase]:
    """A stream of the bytes of a file, unpacked where it is compressed. Raises ValueError: it cannot be had."""
    with open_raw(path) as raw, decompressed(raw) as stream:
        yield stream


def decompressed(stream: BufferedIOBase) -> BufferedIOBase:
    """The content of a stream that begins as gzip, bzip2, xz or Zstandard does, all its parts; any other unchanged.

    Reading a damaged one gives all that is whole and then raises one of BROKEN.
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
        return io.BufferedReader(ZstdFrames(buffered), CHUNK)
    return buffered


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a member's whole path fits one of the patterns, in which `*` stands for any characters, `/` too."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


class ZstdFrames(io.RawIOBase):
    """All frames of a stream, one after another; EOFError where the last is cut (which `zstandard` itself ignores)."""

    def __init__(self, packed: BufferedIOBase) -> None:
        try:
            import zstandard
        except ImportError:
            raise ValueError("reading .zst needs zstandard: pip install 'bluejay[corpus]'") from None
        self.packed, self.error = packed, zstandard.ZstdError
        # 2 GiB: frames made with --long=31 are legal.
        self.new_frame = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
        self.frame, self.started = self.new_frame(), False
        self.ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            packed = self.frame.unused_data or self.packed.read(CHUNK)
            if not packed:
                if self.started and not self.frame.eof:
                    raise EOFError("the last Zstandard frame is cut")
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
