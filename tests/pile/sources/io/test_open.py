"""Streams are unpacked whole, and what stands before a damage is not lost."""

import bz2
import errno
import gzip
import io
import lzma
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard

from bluejay.pile.documents import read_until_damaged
from bluejay.pile.sources.io.decode import read_text
from bluejay.pile.sources.io.open import BROKEN, decompressed, matches, matching, open_bytes

LINES = [f"line {number} ".encode() * 50 + b"\n" for number in range(2000)]
HALF = b"".join(LINES[:1000]), b"".join(LINES[1000:])


def by_arrow(data: bytes) -> bytes:
    """A Zstandard frame by another library than the one that reads it."""
    return pa.compress(data, codec="zstd", asbytes=True)


PACKERS: list[Callable[[bytes], bytes]] = [gzip.compress, bz2.compress, lzma.compress, by_arrow]


@pytest.mark.parametrize("pack", PACKERS)
def test_all_parts_are_read(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = tmp_path / "packed"
    file.write_bytes(pack(HALF[0]) + pack(b"") + pack(HALF[1]))
    with open_bytes(str(file)) as stream:
        assert stream.readlines() == LINES


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("damage", [lambda raw: raw[:-20], lambda raw: raw[: len(raw) // 2]])
def test_what_stands_before_a_cut_is_kept(pack: Callable[[bytes], bytes], damage: Callable[[bytes], bytes]) -> None:
    packed = pack(HALF[0]) + damage(pack(HALF[1]))
    stream, read = decompressed(io.BytesIO(packed)), []
    with pytest.raises(BROKEN):
        while line := stream.readline():
            read.append(line)
    assert read[:1000] == LINES[:1000]
    assert read == LINES[: len(read)]


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("zeros", [4, 512, 1 << 18])
def test_zeros_may_stand_between_members_and_behind_them(pack: Callable[[bytes], bytes], zeros: int) -> None:
    packed = pack(HALF[0]) + bytes(zeros) + pack(HALF[1]) + bytes(zeros)
    assert decompressed(io.BytesIO(packed)).read() == b"".join(LINES)


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("garbage", [b"g", b"garbage and more of it"])
def test_what_follows_a_member_and_begins_none_is_told(pack: Callable[[bytes], bytes], garbage: bytes) -> None:
    for rest in (garbage, garbage + pack(HALF[1])):
        content, damage = read_until_damaged(decompressed(io.BytesIO(pack(HALF[0]) + rest)))
        assert content == HALF[0] and isinstance(damage, BROKEN)


def test_skippable_frames_and_large_windows() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd"
    settings = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    packed = packer.compress(HALF[1]) + packer.flush()
    assert decompressed(io.BytesIO(skippable + by_arrow(HALF[0]) + packed)).read() == b"".join(LINES)


def test_a_small_compressed_file_takes_little_memory() -> None:
    packed = zstandard.ZstdCompressor().compress(bytes(200_000_000))
    tracemalloc.start()
    assert decompressed(io.BytesIO(packed)).read(1) == b"\0"
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(packed) < 50_000 and most < 80_000_000


@pytest.mark.parametrize("data", [b"", b"x", b"plain text\n", b"BZ is no bzip2", b"\x1f"])
def test_anything_else_is_left_as_it_is(data: bytes) -> None:
    assert decompressed(io.BytesIO(data)).read() == data


@pytest.mark.parametrize("pack", [bytes, *PACKERS])
def test_a_tar_archive_is_no_text(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        header = tarfile.TarInfo("a.txt")
        header.size = len(HALF[0])
        archive.addfile(header, io.BytesIO(HALF[0]))
    (tmp_path / "a").write_bytes(pack(packed.getvalue()))
    with pytest.raises(ValueError, match='a tar archive, which kind = "archive" reads'):
        read_text(tmp_path / "a")


def test_files_by_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.md", "a.md", "deep/er/c.md", ".git/d.md", "e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    assert matching("**/*.md") == ["a.md", "b.md", "deep/er/c.md"]
    for kind, ending in (("text", "*.txt"), ("jsonl", "*.jsonl"), ("mail", "*.mbox"), ("mediawiki", "*"), ("", "*")):
        with pytest.raises(ValueError) as refused:
            matching("deep", kind)
        assert str(refused.value) == f"no file matches deep; it is a folder, write deep/**/{ending}"
    with pytest.raises(ValueError, match="there is no such home folder"):
        matching("~nobody-of-this-name/*.txt")
    with pytest.raises(ValueError, match="cannot be read"), open_bytes("missing"):
        pass


def test_patterns_of_members() -> None:
    assert matches("docs/guide/a.txt", ["*.py", "docs/*.txt"])
    assert not matches("docs/a.TXT", ["docs/*.txt"])
    assert not matches("a.txt", [])


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("**/*.md", {"a.md", "docs/b.md", "docs/old/c.md"}),
        ("docs/**/*.md", {"docs/b.md", "docs/old/c.md"}),
        ("**/docs/**/c.md", {"docs/old/c.md"}),
        ("docs", {"docs/b.md", "docs/old/c.md"}),
        ("docs/", {"docs/b.md", "docs/old/c.md"}),
        ("**/old", {"docs/old/c.md"}),
        ("old/", set()),
        ("a.md", {"a.md"}),
        ("doc", set()),
    ],
)
def test_patterns_with_two_stars_and_of_folders(pattern: str, found: set[str]) -> None:
    assert {name for name in ("a.md", "docs/b.md", "docs/old/c.md") if matches(name, [pattern])} == found


def names(pattern: Path) -> list[str]:
    """The names of the files that a pattern matches."""
    return [Path(path).name for path in matching(str(pattern))]


def test_links_to_folders_are_not_followed_without_end(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one.txt").touch()
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "b" / "again").symlink_to("../b")
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "linked").symlink_to("a/b")
    (tmp_path / "a" / "gone.txt").symlink_to("nowhere")
    assert names(tmp_path / "**" / "one.txt") == ["one.txt"]
    assert names(tmp_path / "**" / "*.txt") == ["one.txt", "gone.txt"]
    assert names(tmp_path / "linked" / "*.txt") == ["one.txt"]
    with pytest.raises(ValueError, match="cannot be read: No such file"), open_bytes(str(tmp_path / "a" / "gone.txt")):
        pass


def forbid(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let a folder be one that this process may not list, also where it may list any."""
    allowed = os.scandir

    def scandir(path: str | Path) -> object:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return allowed(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_a_folder_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/one.txt", "b/two.txt", ".c/three.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    forbid(monkeypatch, tmp_path / ".c")
    assert names(tmp_path / "**" / "*.txt") == ["one.txt", "two.txt"]
    forbid(monkeypatch, tmp_path / "b")
    for pattern in ("**/*.txt", "*/*.txt", "b/*"):
        with pytest.raises(ValueError, match=f"{tmp_path}/b cannot be read: Permission denied"):
            matching(f"{tmp_path}/{pattern}")
    assert names(tmp_path / "a" / "*") == ["one.txt"]


def test_patterns(tmp_path: Path) -> None:
    for name in ("a.txt", "b/c.txt", "b/d/e.txt", "b/d/f.md", ".g/h.txt", "b/.i.txt", "x[1].txt", "Docs [2023]/j.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path / "**" / "*.txt") == ["a.txt", "c.txt", "e.txt", "x[1].txt"]
    assert names(tmp_path / "b" / "**") == ["c.txt", "e.txt", "f.md"]
    assert names(tmp_path / "*" / "[cd].txt") == ["c.txt"]
    assert names(tmp_path / "b" / ".*.txt") == [".i.txt"]
    assert names(tmp_path / ".g" / "*") == ["h.txt"]
    assert names(tmp_path / "x[1].txt") == ["x[1].txt"]
    assert names(tmp_path / "Docs [2023]" / "*.md") == ["j.md"]
    with pytest.raises(ValueError, match="no file matches"):
        matching(str(tmp_path / "b" / "*.pdf"))


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("https://github.com/o/r/blob/main/a.txt", "https://github.com/o/r/raw/main/a.txt"),
        (
            "https://huggingface.co/datasets/o/r/blob/main/a.txt",
            "https://huggingface.co/datasets/o/r/resolve/main/a.txt",
        ),
        ("https://gitlab.com/g/o/r/-/blob/main/blob/a.txt", "https://gitlab.com/g/o/r/-/raw/main/blob/a.txt"),
    ],
)
def test_a_page_about_a_file_is_not_taken_for_it(page: str, file: str) -> None:
    with pytest.raises(ValueError, match=f"is a page about a file; the file itself is at {file}$"):
        matching(page, "text")
    assert matching(file, "text") == [file] and matching(page, "html") == [page]


@pytest.mark.parametrize(
    ("path", "hint"), [("ftp://a.org/b.txt", ""), ("file:///a/b.txt", ", or the path alone, /a/b.txt")]
)
def test_an_address_of_another_kind_is_refused_with_those_that_are_read(path: str, hint: str) -> None:
    with pytest.raises(ValueError, match="which is not read") as refused:
        matching(path)
    assert str(refused.value).endswith(f"write http(s)://, s3:// or hf://{hint}")
