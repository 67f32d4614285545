"""What the sources find, and what they pass over."""

from pathlib import Path

import pytest

from bluejay.pile.document import Document, SetAside, read_text
from bluejay.pile.gather import component_documents, split_of
from bluejay.pile.recipe import Component, Split
from bluejay.pile.report import Report
from bluejay.pile.sources.package_docs import PackageDocs
from bluejay.pile.sources.stdlib import Stdlib
from bluejay.pile.sources.text import Text


def test_the_standard_library_without_its_tests() -> None:
    documents = [found for found in Stdlib("stdlib").documents() if isinstance(found, Document)]
    names = [document.meta["path"] for document in documents]
    assert names == sorted(names, key=lambda name: name.split("/"))
    assert {"Lib/abc.py", "Lib/json/decoder.py"} <= set(names)
    assert not [name for name in names if {"test", "tests", "site-packages", "__pycache__"} & set(name.split("/"))]
    assert sum(len(document.text) for document in documents) > 5_000_000
    for document in documents:
        assert document.licence == "PSF-2.0"
        assert str(Path.home()) not in document.url + document.source


def test_the_documentation_of_installed_packages() -> None:
    found = list(PackageDocs("package-docs").documents())
    numpy = [entry for entry in found if isinstance(entry, Document) and entry.source.startswith("numpy-")]
    assert "fundamental package for scientific computing" in numpy[0].text
    assert numpy[0].licence.startswith("BSD-3-Clause")
    assert numpy[0].url == f"pkg:pypi/numpy@{numpy[0].source.removeprefix('numpy-')}"
    assert [entry.url for entry in found if isinstance(entry, Document)] == [
        entry.url for entry in PackageDocs("package-docs").documents() if isinstance(entry, Document)
    ]


def test_a_broken_package_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, metadata in (
        ("good", b"Name: Good_One\nVersion: 1\nLicense: MIT\n\nHello.\n"),
        ("bad", b"Name: \xff\xfe"),
    ):
        (tmp_path / f"{name}-1.dist-info").mkdir()
        (tmp_path / f"{name}-1.dist-info" / "METADATA").write_bytes(metadata)
    (tmp_path / "good-1.dist-info" / "RECORD").write_text(
        "good/guide.md,,\ngood/latin.rst,,\ngood/code.py,,\ngood-1.dist-info/LICENSE.md,,\n"
    )
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "guide.md").write_text("A guide.")
    (tmp_path / "good" / "latin.rst").write_bytes(b"caf\xe9")
    (tmp_path / "good-1.dist-info" / "LICENSE.md").write_text("A licence.")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    found = list(PackageDocs("package-docs").documents())
    documents = [(d.source, d.licence, d.url, d.text.strip()) for d in found if isinstance(d, Document)]
    assert documents == [
        ("good-one-1", "MIT", "pkg:pypi/good-one@1", "Hello."),
        ("good-one-1", "MIT", "pkg:pypi/good-one@1#good/guide.md", "A guide."),
    ]
    aside = [entry.name for entry in found if isinstance(entry, SetAside)]
    assert len(aside) == 2
    assert aside[1] == "good-one-1/good/latin.rst"


def test_text_by_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.md", "a.md", "deep/er/c.md", ".git/d.md", "e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    found = list(Text("text", "**/*.md").documents())
    assert [entry.text for entry in found if isinstance(entry, Document)] == ["a.md", "b.md", "deep/er/c.md"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(list(Text("text", "~/e.txt").documents())) == 1


@pytest.mark.parametrize(
    ("name", "raw", "text"),
    [
        ("a.py", "# coding: latin-1\n'café'\n".encode("latin-1"), "# coding: latin-1\n'café'\n"),
        ("a.py", b"\xef\xbb\xbfx = 1\r\n", "x = 1\r\n"),
        ("a.txt", b"\xef\xbb\xbfcaf\xc3\xa9\r\n\x00", "café\r\n\x00"),
        ("a.txt", b"", ""),
    ],
)
def test_files_are_read_as_they_are_meant(tmp_path: Path, name: str, raw: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(raw)
    assert read_text(tmp_path / name) == text


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.py", b"# coding: klingon\n"),
        ("a.py", b"# coding: ascii\n\xff"),
        ("a.py", b"# coding: rot13\n"),
        ("a.txt", b"\xff\xfea\x00"),
        ("a.txt", b"\xed\xa0\x80"),
    ],
)
def test_what_is_not_text_is_refused(tmp_path: Path, name: str, raw: bytes) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(ValueError, match="not text"):
        read_text(tmp_path / name)
    with pytest.raises(ValueError, match="cannot be read"):
        read_text(tmp_path / "missing")


def test_a_lone_surrogate_does_not_stop_a_build(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"# coding: raw_unicode_escape\n'\\ud800'\n")
    component = Component("X", (Text("text", f"{tmp_path}/a.py"),))
    (document,) = component_documents(component, Report("x", ""))
    assert document.text == "# coding: raw_unicode_escape\n'\ufffd'\n"


def test_the_split_has_the_shares_asked_for() -> None:
    parts = [split_of(f"{number}", Split(valid=0.1, test=0.2), seed=1) for number in range(20_000)]
    assert abs(parts.count("valid") / 20_000 - 0.1) < 0.01
    assert abs(parts.count("test") / 20_000 - 0.2) < 0.01
