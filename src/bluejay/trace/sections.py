"""A file of named arrays with checksums, which is mapped: the form of all files of an index.

The file is, little-endian: the magic `BLUEJAY\\0`, uint32 length of the header, uint32 CRC-32 of the header, the header
(JSON), and the arrays, each from a multiple of 4,096 bytes on. The header holds `kind`, `version`, the values of the
writer, and for each array `[dtype, first byte counted from the first array, bytes, CRC-32]`. An array in pages ends
with zeros that fill its last page, has no CRC-32 of its own, and the array NAME_sums holds the CRC-32 of each of its
pages, so that a page is checked when it is first read.
"""

import json
import os
import shlex
import struct
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bluejay.files import atomic_file, parse_json
from bluejay.native import native

MAGIC = b"BLUEJAY\0"
PREFACE = struct.Struct("<8sII")
VERSION = 1
PAGE = 4096
CHUNK_BYTES = 1 << 24


class Damaged(ValueError):
    """A file does not hold what was written to it."""


@contextmanager
def as_written(path: Path) -> Generator[None]:
    """Raise Damaged where the header of a file lacks what the block looks for in it, or has it in another form."""
    try:
        yield
    except Damaged:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise Damaged(f"{path} is damaged: its header is not as it was written ({error})") from None


def to_index(corpus: Path) -> str:
    """The advice to index a corpus, with the command as a shell takes it."""
    return f"run bluejay index {shlex.quote(str(corpus))}"


@contextmanager
def advised(corpus: Path) -> Generator[None]:
    """Add to the error about a damaged file of a corpus's index what makes it anew."""
    try:
        yield
    except Damaged as error:
        raise Damaged(f"{error}; {to_index(corpus)}") from None


def write_sections(path: Path, kind: str, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> int:
    """Write a file whole or not at all, and return its size in bytes. Arrays of bytes whose name has an array NAME_sums
    beside it are in pages."""
    table, end = {}, 0
    for name, array in arrays.items():
        table[name] = [array.dtype.str, end, array.nbytes, 0 if f"{name}_sums" in arrays else crc32_of(array)]
        end += in_pages(array.nbytes)
    header = json.dumps({"kind": kind, "version": VERSION, **values, "arrays": table}).encode()
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(PREFACE.pack(MAGIC, len(header), zlib.crc32(header)) + header)
        for array in arrays.values():
            file.write(bytes(in_pages(file.tell()) - file.tell()))
            data = bytes_of(array)
            for begin in range(0, len(data), CHUNK_BYTES):
                file.write(data[begin : begin + CHUNK_BYTES])
        file.write(bytes(in_pages(file.tell()) - file.tell()))
        return file.tell()


def require_numbers(values: Mapping[str, Any], path: Path, *names: str) -> None:
    """Raise Damaged unless the values of a file's header with these names are whole numbers from 0 on."""
    for name in names:
        if type(values.get(name)) is not int or values[name] < 0:
            raise Damaged(f"{path} is damaged: its header has no number {name}")


class Sections:
    """A file that `write_sections` wrote, mapped. Small arrays are read and checked at once, arrays in pages later.

    Raises FileNotFoundError: there is no such file; Damaged: it is of another kind, or not as it was written.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        with path.open("rb") as file, as_written(path):
            preface = file.read(PREFACE.size)
            if len(preface) < PREFACE.size or not preface.startswith(MAGIC):
                raise Damaged(f"{path} is not a file of an index")
            _, length, checksum = PREFACE.unpack(preface)
            header = file.read(length)
            if len(header) < length or zlib.crc32(header) != checksum:
                raise Damaged(f"{path} is damaged: its header does not have its checksum")
            self.values: dict[str, Any] = parse_json(header)
            if self.values["kind"] != kind or self.values["version"] != VERSION:
                found = f"{self.values['kind']} of version {self.values['version']}"
                raise Damaged(f"{path} is a file of {found}, and {kind} of version {VERSION} is needed")
            self.table: dict[str, list[Any]] = self.values["arrays"]
            self.base = in_pages(PREFACE.size + length)
            end = self.base + max((in_pages(first + size) for _, first, size, _ in self.table.values()), default=0)
            self.bytes = os.fstat(file.fileno()).st_size
            if self.bytes < end:
                raise Damaged(f"{path} is damaged: it has {self.bytes:,} bytes of {end:,}")
            self.arrays = {name: self._read(file, name) for name in self.table if f"{name}_sums" not in self.table}

    def _read(self, file: Any, name: str) -> np.ndarray:
        dtype, first, size, checksum = self.table[name]
        file.seek(self.base + first)
        data = file.read(size)
        if zlib.crc32(data) != checksum:
            raise Damaged(f"{self.path} is damaged: {name} does not have its checksum")
        return np.frombuffer(data, dtype)

    def __getitem__(self, name: str) -> np.ndarray:
        """A small array."""
        return self.arrays[name]

    def mapped(self, name: str) -> np.ndarray:
        """The bytes of an array in pages, mapped and not checked."""
        _, first, size, _ = self.table[name]
        mapped = (
            np.memmap(self.path, np.uint8, "r", self.base + first, (in_pages(size),)) if size else np.zeros(0, np.uint8)
        )
        return np.asarray(read_at_random(mapped))

    def check(self) -> None:
        """Check all pages. Raises Damaged."""
        for name in self.table.keys() - self.arrays.keys():
            if not np.array_equal(native.page_sums(self.mapped(name)), self.arrays[f"{name}_sums"]):
                raise Damaged(f"{self.path} is damaged: {name} does not have its checksums")


class Pages:
    """The bytes of an array in pages, each page checked when it is first read."""

    def __init__(self, sections: Sections, name: str) -> None:
        self.path, self.bytes, self.sums = sections.path, sections.mapped(name), sections[f"{name}_sums"]
        self.checked = np.zeros(len(self.sums), bool)

    def check(self, firsts: np.ndarray, lasts: np.ndarray) -> None:
        """Check the pages of the bytes from firsts[i] to before lasts[i], of each i, that were not. Raises Damaged."""
        begins, ends = (firsts // PAGE).tolist(), (-(-lasts // PAGE)).tolist()
        for page in {page for both in zip(begins, ends, strict=True) for page in range(*both)}:
            if not self.checked[page]:
                if zlib.crc32(bytes_of(self.bytes[page * PAGE : (page + 1) * PAGE])) != self.sums[page]:
                    raise Damaged(f"{self.path} is damaged: a page does not have its checksum")
                self.checked[page] = True


def paged(data: bytes | np.ndarray) -> np.ndarray:
    """Bytes, padded with zeros to whole pages."""
    data = np.frombuffer(data, np.uint8)
    return np.concatenate([data, np.zeros(in_pages(len(data)) - len(data), np.uint8)])


def with_sums(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of whole pages, with the arrays of their checksums."""
    return {**arrays, **{f"{name}_sums": native.page_sums(array) for name, array in arrays.items()}}


def read_at_random(mapped: np.ndarray) -> np.ndarray:
    """Ask the operating system to read no more of a mapped file than is touched."""
    import mmap

    raw = getattr(mapped, "_mmap", None)
    if raw is not None and hasattr(mmap, "MADV_RANDOM"):
        raw.madvise(mmap.MADV_RANDOM)
    return mapped


def in_pages(size: int) -> int:
    """A number of bytes, rounded up to whole pages."""
    return -(-size // PAGE) * PAGE


def bytes_of(array: np.ndarray) -> memoryview:
    """The bytes of an array, without a copy."""
    return memoryview(np.ascontiguousarray(array).data).cast("B") if array.size else memoryview(b"")


def crc32_of(array: np.ndarray) -> int:
    """The CRC-32 of an array's bytes."""
    return zlib.crc32(bytes_of(array))
