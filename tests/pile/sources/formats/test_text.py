"""Text files, one document each."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from bluejay.pile.documents import Document, Skipped
from bluejay.pile.sources.formats.text import Text


def test_files_by_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.md", "a.md", "deep/er/c.md", ".git/d.md", "e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    source = Text("text", "**/*.md", licence="CC0-1.0")
    found = [found for unit in source.units() for found in source.read(unit)]
    assert [entry.text for entry in found if isinstance(entry, Document)] == ["a.md", "b.md", "deep/er/c.md"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Text("text", "~/e.txt").units() == [f"{tmp_path}/e.txt"]


def test_compressed_files_and_those_in_other_encodings(tmp_path: Path) -> None:
    for name, raw in (
        ("a.txt.gz", gzip.compress(b"one")),
        ("b.zip.txt", lzma.compress(b"two")),
        ("c.txt", b"caf\xe9"),
        ("d.txt.bz2", bz2.compress(b"cut")[:20]),
    ):
        (tmp_path / name).write_bytes(raw)
    source = Text("text", f"{tmp_path}/*")
    read = {Path(unit).name: source.read(unit) for unit in source.units()}
    with pytest.raises(ValueError, match="broken: "):
        list(read.pop("d.txt.bz2"))
    assert [entry.text for found in read.values() for entry in found if isinstance(entry, Document)] == [
        "one",
        "two",
        "café",
    ]


CUT = "broken off, what stands before is kept: "


@pytest.mark.parametrize("behind", [b"", b"bytes behind the end", b"\0\0"])
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_bytes_behind_the_end_cost_no_text(tmp_path: Path, pack: Callable[[bytes], bytes], behind: bytes) -> None:
    (tmp_path / "a").write_bytes(pack(b"one") + behind)
    document, *aside = Text("text", str(tmp_path / "a")).read(str(tmp_path / "a"))
    assert isinstance(document, Document) and document.text == "one"
    assert all(isinstance(entry, Skipped) and entry.reason.startswith(CUT) for entry in aside)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_what_stands_before_a_cut_is_a_document(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    whole = "".join(f"{number} " for number in range(300_000))
    (tmp_path / "a").write_bytes(pack(whole.encode())[:-8])
    document, aside = Text("text", str(tmp_path / "a")).read(str(tmp_path / "a"))
    assert isinstance(document, Document) and len(document.text) > 100_000 and whole.startswith(document.text)
    assert isinstance(aside, Skipped) and aside.reason.startswith(CUT)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(bytes(range(1, 256)))
    with pytest.raises(ValueError, match="not text"):
        list(Text("text", "x").read(f"{tmp_path}/a.txt"))
