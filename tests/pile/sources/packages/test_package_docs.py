"""The documentation of installed packages."""

import json
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path
from types import SimpleNamespace

import pytest

from bluejay.pile.documents import Document, Skipped
from bluejay.pile.recipe import Component
from bluejay.pile.sources.packages.package_docs import PackageDocs
from bluejay.pile.steps.read import parts_of


def read() -> list[Document | Skipped]:
    """All that the source gives."""
    source = PackageDocs("package-docs")
    return [found for unit in source.units() for found in source.read(unit)]


def test_the_documentation_of_installed_packages() -> None:
    found = read()
    numpy = [entry for entry in found if isinstance(entry, Document) and entry.source.startswith("numpy-")]
    assert "fundamental package for scientific computing" in numpy[0].text
    assert numpy[0].licence.startswith("BSD-3-Clause")
    assert numpy[0].url == f"pkg:pypi/numpy@{numpy[0].source.removeprefix('numpy-')}"
    assert found == read()


def test_a_broken_package_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    (tmp_path / "good" / "latin.rst").write_bytes(bytes(range(1, 256)))
    (tmp_path / "good-1.dist-info" / "LICENSE.md").write_text("A licence.")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    found = read()
    documents = [(d.source, d.licence, d.url, d.text.strip()) for d in found if isinstance(d, Document)]
    assert documents == [
        ("good-one-1", "MIT", "pkg:pypi/good-one@1", "Hello."),
        ("good-one-1", "MIT", "pkg:pypi/good-one@1#good/guide.md", "A guide."),
    ]
    aside = [entry.name for entry in found if isinstance(entry, Skipped)]
    assert len(aside) == 2
    assert aside[1] == "good-one-1/good/latin.rst"


def test_packages_found_by_another_finder_than_the_standard_library_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backport importlib_metadata puts its own finder, with its own classes, in the place of the standard one."""

    class Backport:
        """A distribution that is no `importlib.metadata.Distribution`."""

        def __init__(self, found: Distribution) -> None:
            self.metadata, self.files, self.locate_file = found.metadata, found.files, found.locate_file

    entries, meta_path = [], sys.meta_path
    packages = [distribution(name) for name in ("numpy", "pydantic", "rich")]
    monkeypatch.setattr(sys, "path", [])
    for found in (packages, [Backport(package) for package in packages]):
        finder = SimpleNamespace(find_distributions=lambda context, found=found: found)
        monkeypatch.setattr(sys, "meta_path", [finder, *meta_path])
        entries.append(read())
    assert entries[0] == entries[1] and len(entries[0]) >= len(packages)


def test_packages_are_read_again_when_others_are_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    component, keys = Component("A", source=(PackageDocs("package-docs"),)), []
    for metadata in (b"", b"Name: good\nVersion: 1\n", b"Name: good\nVersion: 2\n", b"Name: \xff\xfe"):
        (tmp_path / "good.dist-info").mkdir(exist_ok=True)
        (tmp_path / "good.dist-info" / "METADATA").write_bytes(metadata)
        keys += [json.dumps(part.key()) for _ in range(2) for part in parts_of(component)[0]]
    assert keys[::2] == keys[1::2]
    assert len(set(keys[2:6])) == 2
