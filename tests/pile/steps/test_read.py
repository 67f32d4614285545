"""What sources give becomes rows, whose metadata any reader of JSON reads."""

import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bluejay.files import write_text
from bluejay.pile.documents import Document, Skipped
from bluejay.pile.recipe import Component
from bluejay.pile.sources.code.tree import Tree
from bluejay.pile.sources.formats.tables import JSONLines
from bluejay.pile.sources.formats.text import Text
from bluejay.pile.sources.io import lines
from bluejay.pile.sources.mathematics import Mathematics
from bluejay.pile.steps import read
from bluejay.pile.steps.read import input_of, parts_of, read_unit, row_of
from bluejay.pile.text import document_table

COMPONENT = Component("A", source=(Mathematics(kind="mathematics", documents=1),))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        ([1.5, float("inf"), {"a": float("nan")}], [1.5, None, {"a": None}]),
        ("NaN", "NaN"),
        (10**40, 10**40),
        ("caf\udce9 😀 \\ud83d", "caf\ufffd 😀 \\ud83d"),
        ({"bytes": b"PNG", "path": "a.png"}, {"bytes": None, "path": "a.png"}),
    ],
)
def test_metadata_is_json(value: Any, written: Any) -> None:
    row = row_of(Document("text", "source", "MIT", "url", {"value": value}), COMPONENT)
    assert isinstance(row, dict)
    assert json.loads(row["meta"], parse_constant=pytest.fail) == {"component": "A", "value": written}


def test_the_component_in_the_metadata_is_that_of_the_recipe() -> None:
    row = row_of(Document("text", "source", "MIT", "url", {"component": "resistor"}), COMPONENT)
    assert isinstance(row, dict) and json.loads(row["meta"]) == {"component": "A"}


def test_metadata_that_cannot_be_written_costs_its_document() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    for value in (nested, {1: "a", "b": 2}):
        row = row_of(Document("text", "source", "MIT", "url", {"value": value}), COMPONENT)
        assert isinstance(row, Skipped)
        assert row.reason.startswith("its metadata cannot be written as JSON: ")


def test_a_part_is_read_again_when_a_file_that_it_needs_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "PART_BYTES", 0)
    for name in ("a.py", "LICENSE", "sub/b.py", "sub/deep/c.py", "sub/deep/COPYING", "sub/notes.txt"):
        write_text(tmp_path / name, "before")

    def keys() -> dict[str, str]:
        parts, _ = parts_of(Component("A", source=(Tree(kind="tree", path=str(tmp_path), include=("*.py",)),)))
        return {part.units[0]: json.dumps(part.key()) for part in parts}

    needed = {".": ["a.py", "LICENSE"], "sub": ["LICENSE", "sub/b.py", "sub/deep/c.py", "sub/deep/COPYING"]}
    for name in ("a.py", "LICENSE", "sub/b.py", "sub/deep/c.py", "sub/deep/COPYING", "sub/notes.txt"):
        before = keys()
        assert keys() == before
        write_text(tmp_path / name, f"after {name}")
        after = keys()
        assert {unit for unit in before if after[unit] != before[unit]} == {u for u in needed if name in needed[u]}


def test_a_part_has_many_small_folders_and_its_own_source_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So neither folders nor sources make more or larger tasks than the text in them."""
    for name, size in (("a/1.txt", 40), ("b/1.txt", 40), ("b/c/2.txt", 40), ("c/1.txt", 5), ("d/1.md", 500)):
        write_text(tmp_path / name, "x" * size)
    monkeypatch.setattr(read, "PART_BYTES", 100)
    tree = Tree(kind="tree", path=str(tmp_path), include=("*.txt",))
    for sources in ((tree,), (tree, *COMPONENT.source * 500)):
        parts = parts_of(Component("A", source=sources))[0][:2]
        assert [(part.units, part.size) for part in parts] == [(("a",), 40), (("b", "c"), 85)]
        assert all(len(pickle.dumps(part)) < 2000 for part in parts)
    monkeypatch.setattr(read, "MOST_UNITS", 3)
    texts = Component("A", source=(Text(kind="text", path=f"{tmp_path}/**/*.txt"),))
    assert [len(part.units) for part in parts_of(texts)[0]] == [2, 2]
    monkeypatch.setattr(read, "PART_BYTES", 1000)
    assert [len(part.units) for part in parts_of(texts)[0]] == [3, 1]


def test_only_units_that_are_files_are_taken_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "project" / "sub" / "a.py", "text")
    write_text(tmp_path / "notes.txt", "text")
    monkeypatch.chdir(tmp_path)
    tree, notes, mathematics = Tree(kind="tree", path="project"), Text("text", "*.txt"), COMPONENT.source[0]
    component = Component("A", source=(tree, mathematics))
    before = [part.key() for part in parts_of(component)[0]]
    for unit in ("sub", "0"):
        write_text(tmp_path / unit, "another file")
    assert [part.key() for part in parts_of(component)[0]] == before
    assert input_of(tree, "sub", None) == input_of(mathematics, "0", None) == []
    assert [entry["name"] for entry in input_of(notes, *notes.units(), None)] == ["notes.txt"]


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("One line.\nTwo.\n\n" * 40, "\n\n"),
        ("A line of verse.\n" * 40, "\n"),
        ("words without lines " * 40, " "),
        ("x" * 777, "x"),
        ("a\n\n" + "words and words " * 40, " "),
    ],
)
@pytest.mark.parametrize(("piece", "encoding"), [(10**6, "utf-8"), (500, "utf-8"), (500, "utf-16")])
def test_a_text_that_is_too_long_is_cut_where_it_pauses(
    text: str, ends: str, piece: int, encoding: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(read, "MAX_CHARACTERS", 100)
    monkeypatch.setattr(lines, "PIECE_BYTES", piece)
    (tmp_path / "a.txt").write_text(text, encoding=encoding)
    (tmp_path / "short.txt").write_text("short")
    whole = Text(kind="text", path=str(tmp_path / "a.txt"))
    tree = Tree(kind="tree", path=str(tmp_path), include=("a.txt",))
    for source in (whole, tree):
        (unit,) = source.units()
        parts = list(read_unit(source, unit))
        assert all(isinstance(part, Document) for part in parts)
        documents = [part for part in parts if isinstance(part, Document)]
        assert "".join(part.text for part in documents) == text
        assert all(50 <= len(part.text) <= 100 and part.text.endswith(ends) for part in documents[:-1])
        assert [part.meta["part"] for part in documents] == list(range(1, len(documents) + 1))
        assert len({(part.source, part.url, part.licence, part.meta["path"]) for part in documents}) == 1
    assert [found.meta for found in read_unit(whole, str(tmp_path / "short.txt")) if isinstance(found, Document)] == [
        {"path": str(tmp_path / "short.txt")}
    ]


def test_a_long_text_is_kept_up_to_where_it_is_none(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(read, "MAX_CHARACTERS", 100)
    monkeypatch.setattr(lines, "PIECE_BYTES", 500)
    (tmp_path / "a.txt").write_bytes(b"A line of verse.\n" * 40 + bytes(range(1, 32)) * 20)
    for source in (Text(kind="text", path=str(tmp_path / "a.txt")), Tree(kind="tree", path=str(tmp_path))):
        *documents, skipped = read_unit(source, *source.units())
        kept = "".join(part.text for part in documents if isinstance(part, Document))
        assert kept == "A line of verse.\n" * 29
        assert isinstance(skipped, Skipped) and skipped.reason.startswith("broken off, what stands before is kept: not")


def test_a_download_that_fails_is_no_property_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(address: str) -> Path:
        raise ValueError(f"{address} cannot be fetched: 503 Service Unavailable")

    monkeypatch.setattr("bluejay.pile.sources.io.open.fetch", fail)
    source = Text(kind="text", path="https://example.org/a.txt")
    with pytest.raises(ValueError, match=r"^https://example\.org/a\.txt cannot be fetched: 503"):
        list(read_unit(source, *source.units()))


def test_pieces_that_are_skipped_are_written_as_they_come(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(document_table, "ROW_GROUP_BYTES", 10_000)
    write_text(tmp_path / "a.jsonl", '{"content": "a name that the recipe does not know"}\n' * 1000 + '{"text": "a"}\n')
    write_text(tmp_path / "b.jsonl", "no JSON\n")
    (part,), _ = parts_of(Component("A", source=(JSONLines(kind="jsonl", path=f"{tmp_path}/*.jsonl"),)))
    counts = read.Read(part).run(tmp_path)
    assert counts["skipped"] == {"the record has no field text": 1000, "not JSON": 1}
    with pq.ParquetFile(tmp_path / "skipped.parquet") as skipped:
        assert (skipped.metadata.num_rows, skipped.num_row_groups > 5) == (1001, True)
        assert skipped.read()["name"][-1].as_py() == f"{tmp_path}/b.jsonl#1"
    assert [entry["name"] for entry in counts["inputs"]] == [f"{tmp_path}/a.jsonl"]


def test_a_record_that_is_too_long_is_skipped(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(read, "MAX_CHARACTERS", 100)
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "word " * 21}))
    source = JSONLines(kind="jsonl", path=str(tmp_path / "a.jsonl"))
    (found,) = read_unit(source, str(tmp_path / "a.jsonl"))
    assert isinstance(found, Skipped) and found.reason == "longer than 100 characters"
