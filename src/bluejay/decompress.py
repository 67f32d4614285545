"""Streams of bytes, decompressed where they are compressed."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

from bluejay.extras import install

READ_BYTES = 1 << 17
"""Bytes of a compressed file that are read at once."""
READ_ZSTD_BYTES = 1 << 10
"""Likewise of Zstandard, which makes up to 32,768 bytes of each and gives all at once."""
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""The exceptions that reading a damaged stream raises."""
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
"""Ends of the names of compressed files."""
POINTER = b"version https://git-lfs.github.com/spec/"
"""The start of what a repository holds in place of a file that Git LFS keeps elsewhere."""


class MachineFault(ValueError):
    """What is wrong with this machine and not with a file: a package is missing, the disk is full, a download fails."""


def decompressed(stream: BufferedIOBase) -> BufferedIOBase:
    """The decompressed content of a gzip, bzip2, xz or Zstandard stream, all its members; any other stream unchanged.

    Reading a damaged stream gives everything before the damage, then raises one of BROKEN.
    Raises ValueError: it is a pointer of Git LFS, or the package that decompresses it is not installed.
    """
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, stream))
    start = buffered.peek(len(POINTER))[: len(POINTER)]
    refuse_pointer(start)
    start = start[:6]
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(buffered)
    if start.startswith(b"BZh"):
        return io.BufferedReader(Members(buffered, bz2.BZ2Decompressor), READ_BYTES)
    if start == b"\xfd7zXZ\x00":
        return io.BufferedReader(Members(buffered, partial(lzma.LZMADecompressor, lzma.FORMAT_XZ)), READ_BYTES)
    skippable = start[1:4] == b"\x2a\x4d\x18" and start[0] >> 4 == 5
    if start.startswith(b"\x28\xb5\x2f\xfd") or skippable:
        return io.BufferedReader(ZstdFrames(buffered), READ_BYTES)
    return buffered


def refuse_pointer(start: bytes) -> None:
    """Raise ValueError where a file begins like a pointer of Git LFS."""
    if start.startswith(POINTER):
        raise ValueError("a pointer of Git LFS, not the file itself")


def refuse_pointer_file(path: Path) -> None:
    """Raise ValueError where a file is only a pointer of Git LFS."""
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise ValueError(f"{path} is a pointer of Git LFS, not the file itself; `git lfs pull` gets that")


def zstd_frames() -> tuple[Callable[[], Any], type[Exception]]:
    """What makes a decompressor of one Zstandard frame, and the error of a damaged one. Raises MachineFault:
    `zstandard` is not installed."""
    try:
        import zstandard
    except ImportError:
        raise MachineFault(f"reading .zst needs zstandard: {install('corpus')}") from None
    # 2 GiB: `zstd --long=31` makes such frames.
    return zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj, zstandard.ZstdError


class Members(io.RawIOBase):
    """All members of a bzip2 or xz stream, between which zeros may stand, such as the padding of xz.

    Reading raises one of BROKEN where anything else follows a member, which `bz2.open` and `lzma.open` take for the end
    of the file, and where the last member is truncated.
    """

    def __init__(self, packed: BufferedIOBase, new: Callable[[], Any], at_once: int = READ_BYTES) -> None:
        self.packed, self.new, self.at_once = packed, new, at_once
        self.member: Any = None
        self.held, self.ready = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while not self.ready:
            if not self.held and getattr(self.member, "needs_input", True):
                self.held = self.packed.read(self.at_once)
                if not self.held and self.member is None:
                    return 0
                if not self.held:
                    raise EOFError("the last member is truncated")
            if self.member is None:
                self.held = self.held.lstrip(b"\0")
                if not self.held:
                    continue
                self.member = self.new()
            self.ready, self.held = memoryview(self.unpacked(self.held, len(view))), b""
            if self.member.eof:
                self.held, self.member = self.member.unused_data, None
        count = min(len(view), len(self.ready))
        view[:count], self.ready = self.ready[:count], self.ready[count:]
        return count

    def unpacked(self, packed: bytes, size: int) -> bytes:
        """What the member gives for some more bytes of it: at most `size` bytes, and later the rest."""
        return self.member.decompress(packed, size)


class ZstdFrames(Members):
    """All frames of a Zstandard stream, between which zeros may stand."""

    def __init__(self, packed: BufferedIOBase) -> None:
        new_frame, self.error = zstd_frames()
        super().__init__(packed, new_frame, READ_ZSTD_BYTES)

    def unpacked(self, packed: bytes, size: int) -> bytes:
        """All that the frame gives for some more bytes of it, whatever `size` is."""
        try:
            return self.member.decompress(packed)
        except self.error as error:
            raise OSError(f"not Zstandard: {error}") from None
