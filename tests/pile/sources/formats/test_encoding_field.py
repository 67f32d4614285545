"""`encoding` in a recipe: files in an encoding that nothing in them declares."""

from pathlib import Path
from typing import Any

import pytest

from bluejay import recipe as recipes
from bluejay.pile.documents import Document
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.sources.formats.subtitles import Subtitles
from bluejay.pile.sources.formats.tables import CSV
from bluejay.pile.sources.formats.text import Text

POLISH, JAPANESE = "Zażółć gęślą jaźń", "一覧表"  # in cp932, the last byte is that of a backslash


def texts(source: Any) -> list[str]:
    """The texts of a source's documents."""
    found = [found for unit in source.units() for found in source.read(unit)]
    return [one.text for one in found if isinstance(one, Document)]


@pytest.mark.parametrize(("encoding", "text"), [("windows-1250", POLISH), ("Shift_JIS", JAPANESE)])
def test_texts_tables_and_subtitles_are_read_in_it(tmp_path: Path, encoding: str, text: str) -> None:
    python = {"Shift_JIS": "cp932"}.get(encoding, encoding)
    (tmp_path / "a.txt").write_bytes(f"{text}\n".encode(python) * 3000)
    (tmp_path / "a.csv").write_bytes(f'name,text\r\n"{text}","{text}"\r\n'.encode(python))
    (tmp_path / "a.srt").write_bytes(f"1\n00:00:01,000 --> 00:00:02,000\n{text}\n".encode(python))
    assert texts(Text("text", str(tmp_path / "a.txt"), encoding=encoding)) == [f"{text}\n" * 3000]
    assert texts(CSV(kind="csv", path=str(tmp_path / "a.csv"), encoding=encoding)) == [text]
    assert texts(Subtitles(path=str(tmp_path / "a.srt"), encoding=encoding)) == [text]


def test_files_in_utf8_among_them_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(POLISH * 3000)
    (tmp_path / "b.txt").write_text(POLISH, encoding="utf-16")
    assert texts(Text("text", str(tmp_path / "*.txt"), encoding="windows-1250")) == [POLISH * 3000, POLISH]


def test_a_name_that_means_no_encoding_is_refused() -> None:
    source = {"kind": "text", "path": "a.txt", "encoding": "klingon"}
    values = {"name": "x", "tokenizer": {"path": "gpt2"}, "component": [{"name": "a", "source": [source]}]}
    with pytest.raises(ValueError, match="klingon is no encoding; it must be one such as"):
        recipes.check(PileRecipe, values, "a recipe")
