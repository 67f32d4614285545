"""Ranges of a large file that are read independently of each other: each has the records that begin in it.

Text that is not compressed is cut at any byte. In gzip and Zstandard a range begins with the first member or frame that
begins in it, in bzip2 with the first block, which begins at any bit.
"""

import bz2
import io
import itertools
import re
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from io import BufferedIOBase, BufferedReader
from typing import Any

from bluejay.decompress import BROKEN, READ_BYTES, READ_ZSTD_BYTES, decompressed, zstd_frames
from bluejay.pile.sources.io.decode import MARKS
from bluejay.pile.sources.io.open import open_raw

GZIP, ZSTD, XZ, BZIP2 = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh"
SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
"""The start of a Zstandard frame that holds no text (RFC 8878, section 3.1.2)."""
MAX_FRAME_BLOCK = 1 << 17
"""Bytes of a block in a Zstandard frame (section 3.1.1.2.4)."""
BLOCK, END = 0x314159265359, 0x177245385090
"""The 48 bits before a block of bzip2, and those before the checksum at the end of its stream."""
WINDOW_BYTES = 1 << 22
"""Bytes in which marks are looked for at once."""
HEAD_BYTES, MOST_HEAD_BYTES = 1 << 20, 1 << 26
"""Text at the start of a file that shows whether it can be read in ranges; and where no record ends or begins in that,
at most."""


@dataclass(frozen=True)
class FileRange:
    """A range of a file's bytes as they are stored."""

    start: int
    end: int
    first: int = 0
    """How many records stand before the range."""


@dataclass(frozen=True)
class Records:
    """How the records of a format are found from the middle of a file."""

    mark: bytes
    """What begins a record; or a line end, which ends one."""
    whole_members: bool = False
    """Whether the mark may stand within a record, too: only members of a compressed file that begin with it are
    taken."""
    header: bool = False
    """Whether every range needs what stands before the first record."""

    def has_ranges(self, path: str) -> bool:
        """Whether a file can be read in ranges; one that cannot be read at all is not."""
        try:
            with open_raw(path) as raw:
                start, head = raw.peek(6)[:6], head_of(raw, self.mark)
        except ValueError:
            return False
        if self.whole_members:
            return members_of(start) is not None and head.startswith(self.mark)
        if start.startswith(XZ) or head.startswith(MARKS) or b"\0" in head:
            return False
        return self.mark in head and not opens_value(head.lstrip().partition(b"\n")[0])

    def start_of(self, path: str, place: FileRange) -> int | None:
        """The byte at which reading begins in a range; None where nothing begins in it that can be decompressed.

        The first range begins at 0 in any case, so that what is wrong there is said by its reader.
        """
        with open_raw(path) as raw:
            members = members_of(raw.peek(6)[:6])
            return first_member(raw, place, members) if members and place.start else place.start

    def open(self, path: str, place: FileRange) -> BufferedIOBase:
        """The decompressed text of the records that begin in a range, which begins where `start_of` says.

        Reading raises one of `decompress.BROKEN` at a damage.
        """
        return io.BufferedReader(ChunkStream(self.text(path, place)), READ_BYTES)

    def text(self, path: str, place: FileRange) -> Generator[bytes]:
        """The text that `open` gives, in chunks."""
        with open_raw(path) as raw:
            if self.header and place.start:
                yield head_of(raw, self.mark).partition(self.mark)[0]
                raw.seek(0)
            with closing(chunks(raw, place)) as found:
                yield from self.trimmed(found, begun=not place.start)

    def trimmed(self, found: Iterator[tuple[bool, bytes]], begun: bool) -> Iterator[bytes]:
        """The records that begin in chunks of which it is known whether they begin in a range: from the first mark in
        it, or from its start where a record has `begun` there, to the first mark behind it."""
        outside: list[bytes] = []

        def within() -> Iterator[bytes]:
            for inside, chunk in found:
                if not inside:
                    outside.append(chunk)
                    return
                yield chunk

        shift, kept, held = int(self.mark == b"\n"), len(self.mark) - 1, b""
        inside = within()
        while not begun and (chunk := next(inside, None)) is not None:
            held += chunk
            at = held.find(self.mark)
            begun = at >= 0
            held = held[at + shift :] if begun else held[max(0, len(held) - kept) :]
        if not begun:  # a mark may begin in the range and end behind it
            while held and len(b"".join(outside)) < kept and (more := next(found, None)):
                outside.append(more[1])
            at = (held + b"".join(outside)[:kept]).find(self.mark)
            if at < 0:
                return
            held = held[at:]
        yield held
        yield from inside
        held = b""
        for chunk in itertools.chain(outside, (chunk for _, chunk in found)):
            held += chunk
            at = held.find(self.mark)
            if at >= 0:
                yield held[: at + shift]
                return
            cut = max(0, len(held) - kept)
            yield held[:cut]
            held = held[cut:]
        yield held


class ChunkStream(io.RawIOBase):
    """Chunks of bytes as a stream."""

    def __init__(self, found: Iterator[bytes]) -> None:
        self.found, self.ready = found, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            chunk = next(self.found, None)
            if chunk is None:
                return 0
            self.ready = memoryview(chunk)
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self.ready))
        view[:count], self.ready = self.ready[:count], self.ready[count:]
        return count


def opens_value(line: bytes) -> bool:
    """Whether the first line of a file that is not blank, which is no JSON by itself, begins a value over several."""
    return line.lstrip().startswith(b"[") or line.strip() == b"{"


def head_of(raw: BufferedReader, mark: bytes) -> bytes:
    """The text at the start of a file, at least up to the first mark, or up to a damage."""
    stream: Any = decompressed(raw)
    found, most = bytearray(), HEAD_BYTES
    with suppress(*BROKEN):
        while len(found) < most and (chunk := stream.read1(most - len(found))):
            found += chunk
            if len(found) >= most and mark not in found:
                most = min(4 * most, MOST_HEAD_BYTES)
    return bytes(found)


def chunks(raw: BufferedReader, place: FileRange) -> Generator[tuple[bool, bytes]]:
    """The text from the start of a range to the end of the file, and for each chunk whether it begins in the range."""
    start = raw.peek(6)[:6]
    if members := members_of(start):
        yield from member_chunks(raw, place, members)
    elif start.startswith(BZIP2):
        yield from block_chunks(raw, place)
    else:
        raw.seek(place.start)
        at = place.start
        while chunk := raw.read(min(READ_BYTES, place.end - at) if at < place.end else READ_BYTES):
            yield at < place.end, chunk
            at += len(chunk)


@dataclass(frozen=True)
class Compression:
    """A compression whose files consist of members that can be decompressed each by itself."""

    new: Callable[[], Any]
    """Makes what decompresses one member."""
    error: type[Exception]
    """What it raises where a member is damaged."""
    mark: bytes
    """The bytes that begin a member."""
    begins: Callable[[BufferedReader, int], bool]
    """Whether a member does begin at a place where these bytes stand."""
    at_once: int
    """Bytes that are decompressed at once."""


def members_of(start: bytes) -> Compression | None:
    """How the members of a file are found that begins with these bytes; None where it is of another kind."""
    if start.startswith(GZIP):
        return Compression(lambda: zlib.decompressobj(16 + zlib.MAX_WBITS), zlib.error, GZIP, is_gzip, READ_BYTES)
    if start.startswith(ZSTD) or SKIPPABLE.match(start):
        return Compression(*zstd_frames(), ZSTD, is_frame, READ_ZSTD_BYTES)
    return None


def member_chunks(raw: BufferedReader, place: FileRange, members: Compression) -> Iterator[tuple[bool, bytes]]:
    """The text of the members from a place on."""
    raw.seek(place.start)
    packed = b""
    while packed := packed.lstrip(b"\0") or raw.read(members.at_once).lstrip(b"\0"):  # zeros may fill a tape's block
        began = raw.tell() - len(packed)
        member = members.new()
        yield began < place.end, b""
        while True:
            try:
                chunk = member.decompress(packed)
            except members.error as error:
                raise OSError(f"a member is damaged: {error}") from None
            yield began < place.end, chunk
            packed = member.unused_data if member.eof else raw.read(members.at_once)
            if member.eof:
                break
            if not packed:
                raise EOFError("the last member is truncated")


def first_member(raw: BufferedReader, place: FileRange, members: Compression) -> int | None:
    """The place of the first member that begins in a range."""
    for at in range(place.start, place.end, WINDOW_BYTES):
        raw.seek(at)
        window = raw.read(min(WINDOW_BYTES, place.end - at) + len(members.mark) - 1)
        for found in re.finditer(re.escape(members.mark), window):
            if members.begins(raw, at + found.start()):
                return at + found.start()
    return None


def is_gzip(raw: BufferedReader, at: int) -> bool:
    """Whether a gzip member begins at a place: it is decompressed to its end, where its checksum stands (RFC 1952)."""
    return unpacks(raw, at, zlib.decompressobj(16 + zlib.MAX_WBITS), zlib.error)


def unpacks(raw: BufferedReader, at: int, member: Any, error: type[Exception]) -> bool:
    """Whether what begins at a place can be decompressed to its end, or to that of the file."""
    raw.seek(at)
    try:
        while not member.eof and (packed := raw.read(READ_ZSTD_BYTES)):
            member.decompress(packed)
    except error:
        return False
    return True


def is_frame(raw: BufferedReader, at: int) -> bool:
    """Whether a Zstandard frame begins at a place: its blocks lead to the next frame, or to the end of the file (RFC
    8878, section 3.1.1), or to something else and can be decompressed."""
    start = at
    raw.seek(at + len(ZSTD))
    (descriptor,) = raw.read(1) or b"\0"
    single = descriptor >> 5 & 1
    if descriptor & 8:  # a bit that is reserved
        return False
    at += len(ZSTD) + 1 + (not single) + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6]
    last = 0
    while not last:
        raw.seek(at)
        header = raw.read(3)
        if len(header) < 3:
            return True  # the file ends within it
        value = int.from_bytes(header, "little")
        last, kind, size = value & 1, value >> 1 & 3, value >> 3
        if kind == 3 or size > MAX_FRAME_BLOCK:
            return False
        at += 3 + (1 if kind == 1 else size)
    raw.seek(at + 4 * (descriptor >> 2 & 1))
    following = raw.read(4)
    if not following or following == ZSTD or SKIPPABLE.match(following):
        return True
    new, error = zstd_frames()
    return unpacks(raw, start, new(), error)


def block_chunks(raw: BufferedReader, place: FileRange) -> Iterator[tuple[bool, bytes]]:
    """The text of the blocks of bzip2 from a place on."""
    began: int | None = None
    for bit, is_end in block_bits(raw, place.start):
        if began is not None:
            yield began < 8 * place.end, b""  # who needs nothing that begins behind the range does not unpack it
            yield began < 8 * place.end, unpacked_block(raw, began, bit)
        began = None if is_end else bit
    if began is not None:
        raise EOFError("the last block is truncated")


def block_bits(raw: BufferedReader, start: int) -> Iterator[tuple[int, bool]]:
    """The bits at which blocks and ends of streams begin, from a byte on, and which of the two it is.

    Of a mark at one of eight places within a byte, the five bytes in the middle are known.
    """
    marks = [(mark << 8 - shift, shift, mark == END) for mark in (BLOCK, END) for shift in range(8)]
    patterns = [(value.to_bytes(7, "big")[1:6], value, shift, is_end) for value, shift, is_end in marks]
    for at in itertools.count(start, WINDOW_BYTES):
        raw.seek(at)
        window = raw.read(WINDOW_BYTES + 6) + b"\0"
        if len(window) < 7:
            return
        found = []
        for middle, value, shift, is_end in patterns:
            mask = (1 << 48) - 1 << 8 - shift
            place = window.find(middle, 1)
            while 0 <= place <= WINDOW_BYTES:
                if int.from_bytes(window[place - 1 : place + 6], "big") & mask == value:
                    found.append((8 * (at + place - 1) + shift, is_end))
                place = window.find(middle, place + 1)
        yield from sorted(found)


def unpacked_block(raw: BufferedReader, start: int, end: int) -> bytes:
    """The text of a block between two bits: made a stream of its own, whose checksum is that of the block."""
    raw.seek(start // 8)
    bits, size = int.from_bytes(raw.read(-(-end // 8) - start // 8), "big") >> -end % 8, end - start
    bits &= (1 << size) - 1
    checksum = bits >> size - 80 & 0xFFFFFFFF
    stream = (bits << 80 | END << 32 | checksum) << -(size + 80) % 8
    try:
        return bz2.decompress(b"BZh9" + stream.to_bytes(-(-(size + 80) // 8), "big"))
    except (OSError, ValueError) as error:
        raise OSError(f"a broken block of bzip2: {error}") from None
