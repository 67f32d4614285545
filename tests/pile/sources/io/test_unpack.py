"""Members of archives: all that is whole, nothing believed."""

import gzip
import io
import lzma
import shutil
import struct
import subprocess
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from bluejay.pile.documents import Skipped
from bluejay.pile.sources.io.unpack import content, members

RANDOM = Random(0)
FILES = {f"root/folder {at}/file-{at}.txt": RANDOM.randbytes(600 + 40 * at).hex().encode() for at in range(60)}


def read(data: bytes) -> tuple[dict[str, bytes], list[Skipped]]:
    """The members that can be read, and what cannot."""
    whole, aside = {}, []
    for found in members(io.BytesIO(data), "archive"):
        if isinstance(found, Skipped):
            aside.append(found)
            continue
        try:
            whole[found[0]] = content(found[1])
        except ValueError as error:
            aside.append(Skipped(found[0], str(error)))
    return whole, aside


def tar(files: dict[str, bytes] = FILES) -> bytes:
    """A tar archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def zipped(files: dict[str, bytes] = FILES) -> bytes:
    """A zip archive."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def debian(data: bytes, name: str = "data.tar") -> bytes:
    """A Debian package, as deb(5) describes it."""
    parts = [("debian-binary", b"2.0\n"), ("control.tar.xz", lzma.compress(tar({}))), (name, data)]
    packed = b"!<arch>\n"
    for part, body in parts:
        packed += (
            f"{part:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(body):<10}`\n".encode() + body + b"\n" * (len(body) % 2)
        )
    return packed


@pytest.mark.parametrize(
    "data",
    [
        tar(),
        gzip.compress(tar()),
        pa.compress(tar(), codec="zstd", asbytes=True),
        zipped(),
        debian(lzma.compress(tar()), "data.tar.xz"),
        debian(pa.compress(tar(), codec="zstd", asbytes=True), "data.tar.zst"),
    ],
    ids=["tar", "tar.gz", "tar.zst", "zip", "deb with xz", "deb with zst"],
)
def test_every_member_of_every_kind(data: bytes) -> None:
    assert read(data) == (FILES, [])


def test_an_archive_of_many_members_takes_no_memory_for_each() -> None:
    data = tar({f"{number}": b"" for number in range(2000)})
    tracemalloc.start()
    assert sum(1 for _ in members(io.BytesIO(data), "archive")) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
@pytest.mark.parametrize("packing", ["gzip", "xz", "zstd", "none"])
def test_packages_that_dpkg_makes(packing: str, tmp_path: Path) -> None:
    (tmp_path / "tree/DEBIAN").mkdir(parents=True)
    (tmp_path / "tree/DEBIAN/control").write_text(
        "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: M <m@m>\nDescription: d\n"
    )
    (tmp_path / "tree/usr").mkdir()
    (tmp_path / "tree/usr/text").write_text("hello")
    (tmp_path / "tree/usr/link").symlink_to("text")
    made = subprocess.run(
        ["dpkg-deb", "--root-owner-group", f"-Z{packing}", "-b", "tree", "a.deb"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    if b"unknown compression type" in made.stderr:
        pytest.skip(f"this dpkg-deb does not know {packing}")
    assert made.returncode == 0, made.stderr
    assert read((tmp_path / "a.deb").read_bytes()) == ({"./usr/text": b"hello"}, [Skipped("./usr/link", "a link")])


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda raw: pa.compress(raw, codec="zstd", asbytes=True)])
@pytest.mark.parametrize("wrap", [bytes, debian])
def test_a_cut_archive_keeps_what_stands_before(pack: Callable[[bytes], bytes], wrap: Callable[[bytes], bytes]) -> None:
    whole, counts = wrap(pack(tar())), []
    for end in range(len(whole) // 2, len(whole) * 19 // 20, len(whole) // 25):
        found, aside = read(whole[:end])
        assert aside, "a cut archive must be told"
        assert all(FILES[name] == data for name, data in found.items())
        counts.append(len(found))
    assert counts == sorted(counts)
    assert 0 < counts[0] < 50
    assert counts[-1] > 50


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("padding", [b"", bytes(100)])
def test_archives_that_stand_behind_each_other_are_read(pack: Callable[[bytes], bytes], padding: bytes) -> None:
    one, other = {"a": b"one"}, {"b": b"other"}
    assert read(pack(tar(one)) + pack(tar(other)) + padding) == (one | other, [])
    found, aside = read(pack(tar(one)) + pack(b"something else".ljust(512)) + padding)
    assert found == one and "broken off" in aside[0].reason


def test_a_tar_cut_between_members_is_told() -> None:
    whole = tar({"a": b"x" * 512, "b": b"y" * 512})
    found, aside = read(whole[:1024])
    assert list(found) == ["a"]
    assert "broken off" in aside[0].reason


def test_a_broken_member_loses_no_other() -> None:
    data = bytearray(zipped())
    at = data.index(b"file-30.txt") + 60
    data[at : at + 8] = b"\xff" * 8
    found, aside = read(bytes(data))
    assert len(found) == 59
    assert aside[0].name == "root/folder 30/file-30.txt"


def test_a_name_that_is_not_utf_8_loses_no_other_member() -> None:
    data = zipped({"a": b"one", "é": b"two", "c": b"three"}).replace("é".encode(), b"\xff\xff", 1)
    found, (aside,) = read(data)
    assert (found, aside.name) == ({"a": b"one", "c": b"three"}, "archive/é")


def test_a_zip_archive_whose_end_is_damaged_is_told() -> None:
    data = zipped(dict.fromkeys("abc", b"text"))
    end = len(data) - 22
    last = data.rindex(b"PK\x01\x02")
    lying = data[: end + 12] + struct.pack("<II", end - last, last) + data[-2:]
    found, (aside,) = read(lying)
    assert found == {"c": b"text"}
    assert aside.reason == "the archive is broken: it states 3 members and lists 1"
    newer = bytearray(data)
    newer[last + 6] = 255
    with pytest.raises(ValueError, match=r"not a whole zip archive: zip file version 25\.5"):
        read(bytes(newer))


def test_sizes_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bluejay.pile.documents.MAX_DOCUMENT_BYTES", 1_000_000)
    bomb = {"bomb": bytes(50_000_000), "good": b"text"}
    for data in (zipped(bomb), gzip.compress(tar(bomb))):
        found, aside = read(data)
        assert found == {"good": b"text"}
        assert aside == [Skipped("bomb", "larger than 1 MB")]
    lying = bytearray(zipped({"liar": b"a" * 5000}))
    central = lying.index(b"PK\x01\x02")
    lying[central + 24 : central + 28] = struct.pack("<I", 2**31)
    assert read(bytes(lying))[0] in ({}, {"liar": b"a" * 5000})


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_long_name_is_not_believed(kind: bytes) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("good"))
        hostile = tarfile.TarInfo("hostile")
        hostile.type, hostile.size = kind, 2_000_000
        archive.addfile(hostile, io.BytesIO(bytes(2_000_000)))
        archive.addfile(tarfile.TarInfo("behind"))
    found, (aside,) = read(packed.getvalue())
    assert found == {"good": b""}
    assert aside.reason == "the archive is broken off: a name or other facts of a member have 2,000,000 bytes"


def test_a_debian_package_of_negative_size_is_refused() -> None:
    data = tar({"a": b"text"})
    lying = debian(data).replace(f"{len(data):<10}".encode(), f"{-1:<10}".encode())
    with pytest.raises(ValueError, match="not a whole Debian package"):
        read(lying)


def test_names_lead_nowhere_and_links_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("../../outside", "/etc/outside"):
            entry = tarfile.TarInfo(name)
            entry.size = 4
            archive.addfile(entry, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    files = {"../../outside": b"evil", "/etc/outside": b"evil"}
    assert read(packed.getvalue()) == (files, [Skipped("link", "a link")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "data", [b"", b"no archive at all" * 100, b"PK\x03\x04 but no zip", b"!<arch>\nbut no package", zipped()[:-30]]
)
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a"):
        read(data)
