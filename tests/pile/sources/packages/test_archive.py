"""Archives of the user's own, and archives within archives."""

import io
import json
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from bluejay.pile.documents import Document, Skipped
from bluejay.pile.sources.formats.tables import CSV, JSONLines
from bluejay.pile.sources.packages.archive import Archive
from bluejay.pile.sources.packages.pypi import PyPI


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip archive."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def test_what_lm_dataformat_packs_is_read(tmp_path: Path) -> None:
    lines = b"".join(
        json.dumps({"text": f"{n}", "meta": {"pile_set_name": "Github"}}).encode() + b"\n" for n in range(3)
    )
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        entry = tarfile.TarInfo("data_0.jsonl")
        entry.size = len(lines)
        archive.addfile(entry, io.BytesIO(lines))
    formats = (JSONLines(kind="jsonl", path="*.jsonl"),)
    source = Archive(kind="archive", path=f"{tmp_path}/*.tar", formats=formats, licence="MIT")
    (unit,) = source.units()
    documents = list(source.read(unit))
    assert [(d.text, d.licence, d.url) for d in documents if isinstance(d, Document)] == [
        (f"{n}", "MIT", f"{unit}#data_0.jsonl#{n + 1}") for n in range(3)
    ]


def test_an_archive_within_a_package(tmp_path: Path) -> None:
    inner = zipped({"de.csv": "text,id\nGröße,1\nMaß,2\n".encode(), "notes.txt": b"not read"})
    files = {"w/speeches.zip": inner, "w/broken.zip": inner[:-40], "w-1.dist-info/METADATA": b"Name: w\nVersion: 1\n"}
    (tmp_path / "w-1-py3-none-any.whl").write_bytes(zipped(files))
    within = Archive(kind="archive", path="*.zip", formats=(CSV(kind="csv", path="*.csv"),))
    source = PyPI(kind="pypi", path=f"{tmp_path}/w-1-py3-none-any.whl", formats=(within,), licence="CC0-1.0")
    found = [found for unit in source.units() for found in source.read(unit)]
    documents = [(d.text, d.source, d.licence, d.url) for d in found if isinstance(d, Document)]
    assert documents == [
        ("Größe", "w-1", "CC0-1.0", "pkg:pypi/w@1#w/speeches.zip#de.csv#1"),
        ("Maß", "w-1", "CC0-1.0", "pkg:pypi/w@1#w/speeches.zip#de.csv#2"),
    ]
    assert [f.name for f in found if isinstance(f, Skipped)] == ["w-1/w/broken.zip"]


def test_links_are_counted_where_they_are_wanted(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("link.txt", "link.so"):
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, "/etc/hostname")
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        for name, kind in (("link.txt", tarfile.SYMTYPE), ("hard.txt", tarfile.LNKTYPE), ("link.so", tarfile.SYMTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "other"
            archive.addfile(entry)
    source = Archive(kind="archive", path=f"{tmp_path}/*", include=("*.txt",))
    found = [found for unit in source.units() for found in source.read(unit)]
    names = ("a.zip/link.txt", "b.tar/link.txt", "b.tar/hard.txt")
    assert found == [Skipped(f"{tmp_path}/{name}", "a link") for name in names]


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("nothing of the kind")
    with pytest.raises(ValueError, match="not a tar, zip or Debian archive"):
        list(Archive(kind="archive", path="x", include=("*",)).read(f"{tmp_path}/a.tar"))
    with pytest.raises(ValueError, match="no file matches"):
        Archive(kind="archive", path=f"{tmp_path}/*.zip", include=("*",)).units()


@pytest.mark.parametrize(("files", "has"), [({"a/b.md": b"x"}, "a/b.md"), ({"a/": b""}, "none"), ({}, "none")])
def test_an_archive_without_what_is_wanted_is_said(tmp_path: Path, files: dict[str, bytes], has: str) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(files))
    source = Archive(kind="archive", path=f"{tmp_path}/a.zip", include=("*.txt",))
    assert list(source.read(source.path)) == [Skipped(source.path, f"no member matches *.txt: it has {has}")]
