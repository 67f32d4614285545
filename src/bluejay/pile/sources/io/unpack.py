"""Members of tar, zip and Debian archives, read into memory one at a time and never written anywhere."""

import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from tarfile import HeaderError, ReadError
from typing import IO, Any, cast

from bluejay.pile.documents import Skipped, read_bounded
from bluejay.pile.sources.io.open import BROKEN, decompressed

Stream = io.BufferedIOBase | IO[bytes]
AR_MAGIC, AR_HEADER = b"!<arch>\n", 60
ENCRYPTED = 1
"""The bit among a member's flags that says that it is encrypted (APPNOTE 4.4.4)."""
ZIP_END_BYTES = 22 + 0xFFFF
"""The most bytes that the record at the end of a zip archive takes, with its comment."""
READ_BYTES = 1 << 20
"""Bytes that are read at once."""
MAX_NAME_BYTES = 1_000_000
"""Content of a tar header for a long name or other facts of the next member, which `tarfile` reads at once."""
FACTS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
"""The types of such headers."""


def members(archive: io.BufferedIOBase, name: str) -> Iterator[tuple[str, Stream | None] | Skipped]:
    """Path and content of each file in an archive, in its order, and of each link, with None; damaged members are
    skipped.

    The content must be read, by `content(stream)`, before the next member is requested.
    Raises ValueError: it is not an archive of a known kind.
    """
    buffered = archive if isinstance(archive, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, archive))
    start = buffered.peek(8)[:8]
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        yield from zip_members(buffered, name)
    elif start == AR_MAGIC:
        yield from tar_members(debian_data(buffered), name)
    else:
        yield from tar_members(buffered, name)


def content(stream: Stream | None) -> bytes:
    """All bytes of a member, whatever size the archive states. Raises ValueError: it is broken, too large or a link."""
    if stream is None:
        raise ValueError("a link")
    try:
        return read_bounded(stream)
    except (*BROKEN, tarfile.TarError, zipfile.BadZipFile) as error:
        raise ValueError(f"broken: {error}") from None


def file_in(archive: zipfile.ZipFile, path: str) -> bytes:
    """The content of a file of a zip archive. Raises KeyError: it is missing; ValueError: it is broken, encrypted or
    too large."""
    if archive.getinfo(path).flag_bits & ENCRYPTED:
        raise ValueError("encrypted: it needs a password")
    try:  # what zipfile raises for damage, an unknown compression, truncation, a name in no UTF-8
        with archive.open(path) as stream:
            return content(stream)
    except (zipfile.BadZipFile, RuntimeError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"broken: {error}") from None


def zip_members(archive: io.BufferedIOBase, name: str) -> Iterator[tuple[str, Stream | None] | Skipped]:
    """The files and links of a zip archive."""
    try:
        opened = zipfile.ZipFile(archive)
        stated = stated_members(archive)
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:  # the second: a version zipfile cannot read
        raise ValueError(f"not a whole zip archive: {error}") from None
    with opened:
        entries = opened.infolist()
        if stated not in (len(entries) % 0x10000, 0xFFFF):
            yield Skipped(name, f"the archive is broken: it states {stated:,} members and lists {len(entries):,}")
        for entry in entries:
            if entry.filename.endswith("/"):
                continue
            if stat.S_ISLNK(entry.external_attr >> 16):
                yield entry.filename, None
                continue
            try:  # what zipfile raises for damage, an unknown compression, a password, truncation, a name in no UTF-8
                with opened.open(entry) as stream:
                    yield entry.filename, stream
            except (zipfile.BadZipFile, RuntimeError, OSError, zlib.error, UnicodeDecodeError) as error:
                yield Skipped(f"{name}/{entry.filename}", f"broken: {error}")


def stated_members(archive: io.BufferedIOBase) -> int:
    """The members that the end of a zip archive states, modulo 0x10000; or 0xFFFF, which means that another place says
    it (APPNOTE 4.3.16). `zipfile` does not compare it with the members that it finds."""
    size = archive.seek(0, io.SEEK_END)
    archive.seek(max(0, size - ZIP_END_BYTES))
    end = archive.read()
    at = end.rfind(b"PK\x05\x06")
    return int.from_bytes(end[at + 10 : at + 12], "little")


def tar_members(archive: io.BufferedIOBase, name: str) -> Iterator[tuple[str, Stream | None] | Skipped]:
    """The files and links of a tar archive, compressed or not, and of those that `cat` put behind it."""
    found = False
    stream = cast(Any, Pieces(decompressed(archive)))
    try:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=Header, ignore_zeros=True) as opened:
            for entry in opened:
                cast(Any, opened).members.clear()  # `tarfile` would keep half a kilobyte for each
                if entry.isreg() or entry.issym() or entry.islnk():
                    yield entry.name, opened.extractfile(entry) if entry.isreg() else None
                found = True
    except (*BROKEN, tarfile.TarError) as error:
        if not found:
            raise ValueError(f"not a tar, zip or Debian archive: {error}") from None
        yield Skipped(name, f"the archive is broken off: {error}")


class Pieces:
    """A stream for `tarfile` that returns what is available, so that members before a damaged one are not lost."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self.stream = stream

    def read(self, size: int) -> bytes:
        """At least one byte, except at the end of the stream."""
        return cast(io.BufferedReader, self.stream).read1(size)


class Header(tarfile.TarInfo):
    """A header that tells a truncated archive from a complete one, which `tarfile` does only at the first member, and
    that refuses long names without end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Header":
        header = super().frombuf(buf, encoding, errors)
        if header.type in FACTS and header.size > MAX_NAME_BYTES:
            raise ReadError(f"a name or other facts of a member have {header.size:,} bytes")
        return header

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> "Header":
        archive: Any = tarfile
        try:
            header = super().fromtarfile(tarfile)
        except HeaderError as error:
            kind = type(error).__name__  # the module does not export these classes
            if kind == "EOFHeaderError":  # the end marker
                archive.has_ended = True
                raise
            if kind in ("EmptyHeaderError", "TruncatedHeaderError") and getattr(archive, "has_ended", False):
                raise  # nothing, or less than a header, stands behind it
            raise ReadError(str(error)) from None
        archive.has_ended = False
        return header


class Part(io.RawIOBase):
    """The next bytes of a stream, at most so many, as a stream of its own."""

    def __init__(self, stream: io.BufferedIOBase, size: int) -> None:
        self.stream, self.left = stream, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = self.stream.readinto(view[: min(len(view), self.left)])
        self.left -= count
        return count


def debian_data(package: io.BufferedIOBase) -> io.BufferedIOBase:
    """The tar archive of the files that a Debian package installs (deb(5)). Raises ValueError: it has none."""
    package.read(len(AR_MAGIC))
    while len(header := package.read(AR_HEADER)) == AR_HEADER:
        try:
            name, size = header[:16].decode().rstrip(" /"), int(header[48:58])
        except ValueError:
            break
        if size < 0:
            break
        part = io.BufferedReader(Part(package, size))
        if name.startswith("data.tar"):
            return part
        while part.read(READ_BYTES):
            pass
        package.read(size % 2)
    raise ValueError("not a whole Debian package: it has no data.tar")
