"""Members of tar, zip and Debian archives, read into memory one at a time and never written anywhere."""

import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from tarfile import HeaderError, ReadError
from typing import IO, Any, cast

from bluejay.pile.documents import Skipped, read_bounded
from bluejay.pile.sources.io.open import BROKEN, decompressed

Stream = io.BufferedIOBase | IO[bytes]
AR_MAGIC, AR_HEADER = b"!<arch>\n", 60


def members(archive: io.BufferedIOBase, name: str) -> Iterator[tuple[str, Stream] | Skipped]:
    """Path and content of each file in an archive, in its order; damaged members are skipped.

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


def content(stream: Stream) -> bytes:
    """All bytes of a member, whatever size the archive states. Raises ValueError: it is damaged or too large."""
    try:
        return read_bounded(stream)
    except (*BROKEN, tarfile.TarError, zipfile.BadZipFile) as error:
        raise ValueError(f"broken: {error}") from None


def zip_members(archive: io.BufferedIOBase, name: str) -> Iterator[tuple[str, Stream] | Skipped]:
    """The files of a zip archive."""
    try:
        opened = zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"not a whole zip archive: {error}") from None
    with opened:
        for entry in opened.infolist():
            if entry.is_dir():
                continue
            try:  # what zipfile raises for damage, an unknown compression, a password, truncation, a name in no UTF-8
                with opened.open(entry) as stream:
                    yield entry.filename, stream
            except (zipfile.BadZipFile, RuntimeError, OSError, zlib.error, UnicodeDecodeError) as error:
                yield Skipped(f"{name}/{entry.filename}", f"broken: {error}")


def tar_members(archive: io.BufferedIOBase, name: str) -> Iterator[tuple[str, Stream] | Skipped]:
    """The files of a tar archive, compressed or not."""
    found = False
    try:
        with tarfile.open(fileobj=cast(Any, Pieces(decompressed(archive))), mode="r|", tarinfo=Header) as opened:
            for entry in opened:
                if entry.isreg():
                    stream = opened.extractfile(entry)
                    assert stream is not None
                    yield entry.name, stream
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
    """A header that tells a truncated archive from a complete one; `tarfile` does so only at the first member."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> "Header":
        try:
            return super().fromtarfile(tarfile)
        except HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the end marker; the module does not export this class
                raise
            raise ReadError(str(error)) from None


def debian_data(package: io.BufferedIOBase) -> io.BufferedIOBase:
    """The tar archive of the files that a Debian package installs (deb(5)). Raises ValueError: it has none."""
    package.read(len(AR_MAGIC))
    while len(header := package.read(AR_HEADER)) == AR_HEADER:
        try:
            name, size = header[:16].decode().rstrip(" /"), int(header[48:58])
        except ValueError:
            break
        data = package.read(size)
        if name.startswith("data.tar"):
            return io.BytesIO(data)
        package.read(size % 2)
    raise ValueError("not a whole Debian package: it has no data.tar")


def open_archive(path: Path) -> io.BufferedIOBase:
    """A stream of an archive's bytes. Raises ValueError: the file cannot be read."""
    try:
        return path.open("rb")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
