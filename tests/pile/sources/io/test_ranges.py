"""Ranges of a file together are the file, wherever it is cut and however it is compressed."""

import bz2
import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from bluejay.decompress import BROKEN
from bluejay.pile.documents import read_until_damaged
from bluejay.pile.sources.formats.mediawiki import MediaWiki
from bluejay.pile.sources.formats.tables import JSONLines
from bluejay.pile.sources.formats.warc import Warc
from bluejay.pile.sources.io import ranges as reading
from bluejay.pile.sources.io.ranges import FileRange, Records

LINES, PAGES = Records(b"\n"), Records(b"<page>", header=True)


def text(lines: int, seed: int = 0) -> bytes:
    """Lines of up to 200 bytes that hardly compress, some of them empty; the last one has no end."""
    chance = random.Random(seed)
    return b"\n".join(chance.randbytes(chance.choice((0, 20, 100))).hex().encode() for _ in range(lines))


def skippable(content: bytes) -> bytes:
    """A frame of Zstandard that holds no text."""
    return b"\x53\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


def cut(data: bytes, n: int) -> list[bytes]:
    """Data in `n` slices, which end anywhere."""
    return [data[len(data) * at // n : len(data) * (at + 1) // n] for at in range(n)]


def frames(data: bytes) -> bytes:
    """Zstandard frames with and without a checksum and a size, and frames between them that hold nothing."""
    kinds = [zstandard.ZstdCompressor(write_checksum=at % 2 == 0, write_content_size=at % 3 == 0) for at in range(6)]
    packed = [kind.compress(piece) for kind, piece in zip(kinds * 2, cut(data, 12), strict=True)]
    return skippable(b"first").join([b"", *packed[:6]]) + b"".join(packed[6:]) + skippable(b"")


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": lambda data: b"".join(gzip.compress(piece) for piece in cut(data, 9)) + bytes(600),
    "one member": gzip.compress,
    "zstd": frames,
    "zstd and zeros": lambda data: b"".join(zstandard.compress(piece) + bytes(300) for piece in cut(data, 9)),
    "one frame": zstandard.compress,
    "bzip2": lambda data: bz2.compress(data, 1),
    "bzip2 streams": lambda data: b"".join(bz2.compress(piece, 1) for piece in cut(data, 3)),
}


def ranges(records: Records, path: Path, n: int) -> list[FileRange]:
    """The ranges of a file of which each begins where it can be decompressed, and goes up to the next."""
    size = path.stat().st_size
    places = [FileRange(size * at // n, size * (at + 1) // n) for at in range(n)]
    starts = [records.start_of(str(path), place) for place in places]
    begun = [start for start in starts if start is not None]
    return [FileRange(start, end) for start, end in zip(begun, [*begun[1:], size], strict=True)]


@pytest.mark.parametrize("packer", PACKERS)
def test_every_line_is_in_one_range(tmp_path: Path, packer: str) -> None:
    data, path = text(4000), tmp_path / "file"
    path.write_bytes(PACKERS[packer](data))
    assert LINES.has_ranges(str(path))
    most = 1
    for n in (1, 2, 7, 40):
        read = [LINES.open(str(path), place).read() for place in ranges(LINES, path, n)]
        assert b"".join(read) == data
        assert all(piece.endswith(b"\n") for piece in read[:-1] if piece)
        most = max(most, sum(map(bool, read)))
    assert most >= {"one member": 1, "one frame": 1, "bzip2": 4, "bzip2 streams": 5}.get(packer, 7)


@pytest.mark.parametrize("packer", ["plain", "gzip"])
def test_the_first_line_may_be_long(tmp_path: Path, packer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "HEAD_BYTES", 100)
    monkeypatch.setattr(reading, "MOST_HEAD_BYTES", 5000)
    for longest, whether in ((4000, True), (6000, False)):
        (tmp_path / "file").write_bytes(PACKERS[packer](b"{" + longest * b" " + b"}\n" + text(40)))
        assert LINES.has_ranges(str(tmp_path / "file")) is whether


@pytest.mark.parametrize("packer", ["plain", "bzip2"])
def test_every_page_is_in_one_range_with_the_header(tmp_path: Path, packer: str) -> None:
    header, path = b"<wiki>\n<siteinfo/>\n", tmp_path / "file"
    pages = [b"<page>" + line + b"\n</page>\n" for line in text(3000).split(b"\n")]
    path.write_bytes(PACKERS[packer](header + b"".join(pages) + b"</wiki>"))
    for n in (3, 20):
        read = [PAGES.open(str(path), place).read() for place in ranges(PAGES, path, n)]
        assert all(piece.startswith(header + b"<page>") for piece in read if piece != header)
        assert b"".join(piece.removeprefix(header) for piece in read) == b"".join(pages) + b"</wiki>"


@pytest.mark.parametrize("cut_at", range(1, 12))
def test_a_mark_may_end_behind_its_range(tmp_path: Path, cut_at: int) -> None:
    (tmp_path / "file").write_bytes(b"<a><page>1<page>2")
    read = [PAGES.open(str(tmp_path / "file"), FileRange(*place)).read() for place in ((0, cut_at), (cut_at, 17))]
    assert read[0].removeprefix(b"<a>") + read[1].removeprefix(b"<a>") == b"<page>1<page>2"


@pytest.mark.parametrize("packer", ["gzip", "zstd", "bzip2"])
def test_what_is_damaged_is_said_and_the_next_range_is_read(tmp_path: Path, packer: str) -> None:
    """The range that the damage is in ends with an error, and so does one whose last record goes on in it."""
    data, path = text(4000), tmp_path / "file"
    packed = bytearray(PACKERS[packer](data))
    if packer == "bzip2":
        place = len(packed) // 2
    else:
        starts = ranges(LINES, tmp_path / "file", 40) if path.write_bytes(packed) else []
        place = starts[4].start + 40
    packed[place : place + 40] = bytes(40)
    path.write_bytes(packed)
    broken, found = 0, []
    for place in ranges(LINES, path, 40):
        stream = LINES.open(str(path), place)
        try:
            while line := stream.readline():
                found.append(line)
        except BROKEN:
            broken += 1
    lines = data.splitlines(keepends=True)
    assert broken in (1, 2)
    assert found[0] == lines[0] and found[-1] == lines[-1]
    assert len(lines) // 2 < len(found) < len(lines)


@pytest.mark.parametrize("packer", ["gzip", "zstd"])
@pytest.mark.parametrize("n", [1, 13, 40])
def test_what_stands_behind_the_last_member_is_said_and_costs_no_line(tmp_path: Path, packer: str, n: int) -> None:
    data, path = text(4000), tmp_path / "file"
    path.write_bytes(PACKERS[packer](data) + b"garbage and more of it")
    read, broken = b"", 0
    for place in ranges(LINES, path, n):
        content, damage = read_until_damaged(LINES.open(str(path), place))
        read, broken = read + content, broken + (damage is not None)
    assert read == data and broken == 1


def test_files_that_must_be_read_from_their_start(tmp_path: Path) -> None:
    lines = b'{"text": "a"}\n' * 10
    for name, data in {
        "utf-16": lines.decode().encode("utf-16"),
        "one value": b"[\n" + lines,
        "an array with a record on its first line": b"\n[" + lines.replace(b"}", b"},"),
        "one line": b'{"text": "a"}',
        "empty": b"",
        "cut": gzip.compress(lines)[:12],
    }.items():
        (tmp_path / name).write_bytes(data)
        assert not LINES.has_ranges(str(tmp_path / name)), name
    assert not LINES.has_ranges(str(tmp_path / "missing"))
    warc = Warc(path="x").RECORDS
    (tmp_path / "plain.warc").write_bytes(b"WARC/1.0\r\n" * 9)
    (tmp_path / "packed.warc").write_bytes(gzip.compress(b"WARC/1.0\r\n" * 9))
    assert not warc.has_ranges(str(tmp_path / "plain.warc"))  # a page may hold a WARC file
    assert warc.has_ranges(str(tmp_path / "packed.warc"))
    assert JSONLines.RECORDS == LINES and MediaWiki.RECORDS == PAGES
