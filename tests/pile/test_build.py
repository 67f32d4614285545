"""A corpus is reproducible and traceable, complete or absent; no document is lost silently."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bluejay.files import write_text
from bluejay.pile import build as building
from bluejay.pile.build import BuildResult, build
from bluejay.pile.recipe import PileRecipe
from bluejay.recipe import check, load
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import TokenShard

SPLITS = ("train", "valid", "test")


def recipe(folder: Path, **fields: object) -> PileRecipe:
    """A corpus of the `.txt` files in a folder, over the given fields."""
    values = {
        "name": "notes",
        "output": str(folder / "built"),
        "tokenizer": {"train": {"vocab_size": 300}},
        "split": {"valid": 0.1, "test": 0.1, "least": "0 kB"},
        "component": [{"name": "Notes", "licence": "CC0-1.0", "source": [{"kind": "text", "path": f"{folder}/*.txt"}]}],
    }
    return check(PileRecipe, values | fields, "the test")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Sixty different files, a copy, an empty one, one that is not text, one with an <|endoftext|> of its own."""
    for number in range(60):
        (tmp_path / f"{number:02}.txt").write_text(f"note {number}\r\n" * (number + 1), newline="")
    (tmp_path / "copy.txt").write_bytes((tmp_path / "07.txt").read_bytes())
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "binary.txt").write_bytes(bytes(range(1, 32)))
    (tmp_path / "marked.txt").write_text("one<|endoftext|>two")
    return tmp_path


def table(built: BuildResult) -> list[dict]:
    return pq.read_table(built.directory / "tokens" / "documents.parquet").to_pylist()


def texts(built: BuildResult) -> dict[str, dict]:
    """The documents of all splits by id, with their split."""
    rows = {}
    for split in SPLITS:
        for row in pq.read_table(built.directory / "documents" / f"{split}.parquet").to_pylist():
            rows[row["id"]] = row | {"split": split}
    return rows


def test_every_token_is_traced_to_its_document(notes: Path) -> None:
    built = build(recipe(notes))
    tokenizer = Tokenizer.load(built.directory)
    documents = texts(built)
    assert len(documents) == 61
    assert sorted(row["id"] for row in table(built)) == sorted(documents)
    for split in SPLITS:
        shard = TokenShard(built.directory / "tokens" / split)
        rows = [row for row in table(built) if row["shard"] == split]
        assert len(rows) == len(shard)
        assert sum(row["length"] for row in rows) == len(shard.tokens)
        for row in rows:
            ids = shard.tokens[row["offset"] : row["offset"] + row["length"]].tolist()
            document = documents[row["id"]]
            assert document["split"] == split
            assert ids == [*tokenizer.encode(document["text"]), tokenizer.eot]
            assert ids.count(tokenizer.eot) == 1
            assert Path(document["url"]).read_bytes() == document["text"].encode()
            assert row["id"] == hashlib.sha256(document["text"].encode()).hexdigest()
            assert row["bytes"] == len(document["text"].encode())
            assert (row["licence"], row["component"]) == ("CC0-1.0", "Notes")
            assert json.loads(document["meta"])["component"] == "Notes"


def test_no_document_is_lost_silently(notes: Path) -> None:
    directory = build(recipe(notes)).directory
    entry = json.loads((directory / "report.json").read_text())["components"]["Notes"]
    assert sum(part["documents"] for part in entry["splits"].values()) == 61
    assert entry["dropped"] == {"exact copy": 1}
    (copy,) = pq.read_table(directory / "documents" / "dropped.parquet").to_pylist()
    assert (copy["reason"], copy["of"]) == ("exact copy", copy["id"])
    skipped = pq.read_table(directory / "documents" / "skipped.parquet").to_pylist()
    reasons = {Path(row["name"]).name: row["reason"] for row in skipped}
    assert reasons["empty.txt"] == "empty"
    assert reasons["binary.txt"].startswith("not text")
    assert entry["skipped"] == {"empty": 1, "not text": 1}
    assert entry["found"] == len(list(notes.glob("*.txt"))) == 61 + 1 + len(reasons)
    for split, part in entry["splits"].items():
        assert part["tokens"] == len(TokenShard(notes / "built" / "tokens" / split).tokens)


def test_two_builds_are_equal_byte_for_byte(notes: Path) -> None:
    first, second = (build(recipe(notes, output=str(notes / name))) for name in ("a", "b"))
    for path in sorted(first.directory.rglob("*")):
        if path.is_file() and path.name not in ("recipe.toml", "report.json"):
            assert path.read_bytes() == (second.directory / path.relative_to(first.directory)).read_bytes(), path
    sums = subprocess.run(["sha256sum", "--quiet", "--check", "SHA256SUMS"], cwd=first.directory, check=False)
    assert sums.returncode == 0


def test_the_seed_decides_split_and_order(notes: Path) -> None:
    one, two = (build(recipe(notes, output=str(notes / str(seed)), seed=seed)) for seed in (1, 2))
    assert {id for id, row in texts(one).items() if row["split"] == "valid"} != {
        id for id, row in texts(two).items() if row["split"] == "valid"
    }
    order = [row["id"] for row in table(one) if row["shard"] == "train"]
    assert order != sorted(order)
    assert order != list(texts(one))[: len(order)]


def test_a_document_stays_in_its_split_when_the_corpus_grows(notes: Path) -> None:
    before = {id: row["split"] for id, row in texts(build(recipe(notes, output=str(notes / "a")))).items()}
    for number in range(100, 140):
        (notes / f"{number}.txt").write_text(f"more {number}")
    after = {id: row["split"] for id, row in texts(build(recipe(notes, output=str(notes / "b")))).items()}
    assert len(after) == len(before) + 40
    assert before.items() <= after.items()


def test_held_out_text_does_not_reach_the_tokenizer(notes: Path) -> None:
    built = build(recipe(notes))
    train = [row["text"] for row in texts(built).values() if row["split"] == "train"]
    assert Tokenizer.train(train, 300).sha256 == Tokenizer.load(built.directory).sha256 == built.report.tokenizer_sha256


def test_a_lone_surrogate_does_not_stop_a_build(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "Half \\ud800 of a pair."}\n')
    component = [{"name": "X", "source": [{"kind": "jsonl", "path": f"{tmp_path}/a.jsonl"}]}]
    built = build(recipe(tmp_path, component=component, split={"valid": 0, "test": 0}))
    assert [row["text"] for row in texts(built).values()] == ["Half \ufffd of a pair."]


def test_what_a_fault_of_the_machine_left_out_is_read_after_its_mend(
    notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (notes / "more.txt.zst").write_bytes(pa.compress(b"More of it.", codec="zstd", asbytes=True))
    component = [{"name": "N", "source": [{"kind": "text", "path": f"{notes}/*.txt*"}]}]
    with (
        monkeypatch.context() as patch,
        pytest.raises(ValueError, match=r"reading \.zst needs zstandard: .*pip install"),
    ):
        patch.setitem(sys.modules, "zstandard", None)
        build(recipe(notes, component=component))
    assert build(recipe(notes, component=component)).report.components["N"].kept == 62


@pytest.mark.parametrize("source", [{"kind": "text", "path": "{}/*.txt"}, {"kind": "tree", "path": "{}"}])
def test_a_file_that_may_not_be_read_is_skipped_until_it_may(
    notes: Path, monkeypatch: pytest.MonkeyPatch, source: dict[str, str]
) -> None:
    secret, opened, access = notes / "30.txt", Path.open, os.access
    component = [{"name": "N", "source": [source | {"path": source["path"].format(notes)}]}]

    def refuse(path: Path, *how: Any, **named: Any) -> IO[Any]:
        if path == secret:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *how, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        patch.setattr(os, "access", lambda path, mode: Path(path) != secret and access(path, mode))
        built = build(recipe(notes, component=component))
    assert built.report.components["N"].skipped["cannot be read"] == 1
    again = build(recipe(notes, component=component, seed=2))
    assert again.report.components["N"].kept == built.report.components["N"].kept + 1


@pytest.mark.parametrize("source", [{"kind": "tree", "path": "."}, {"kind": "text", "path": "**/*"}])
def test_a_corpus_is_not_read_into_itself(
    notes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: dict[str, str]
) -> None:
    monkeypatch.chdir(notes)
    values = {"component": [{"name": "N", "source": [source]}], "output": "data/built"}
    for seed in (1, 2):
        assert build(recipe(notes, seed=seed, **values)).report.components["N"].found == 64
    assert capsys.readouterr().err.count(f"the corpus in {notes}/data/built is left out of {source['path']}") == 1


def test_epochs_repeat_only_the_training_split(notes: Path) -> None:
    component = [{"name": "N", "epochs": 2.5, "source": [{"kind": "text", "path": f"{notes}/*.txt"}]}]
    built = build(recipe(notes, component=component))
    copies: dict[str, list[int]] = {}
    for row in table(built):
        copies.setdefault(row["shard"], []).append(row["id"])
    for split, ids in copies.items():
        times = {ids.count(id) for id in ids}
        assert times == ({2, 3} if split == "train" else {1})


def test_the_first_component_keeps_a_text_that_both_have(notes: Path) -> None:
    source = [{"kind": "text", "path": f"{notes}/0*.txt"}]
    more = [{"kind": "text", "path": f"{notes}/*.txt"}]
    built = build(recipe(notes, component=[{"name": "A", "source": source}, {"name": "B", "source": more}]))
    assert built.report.components["A"].kept == 10
    assert built.report.components["B"].dropped == {"exact copy": 11}
    with pytest.raises(ValueError, match="component B has no documents; 10 dropped as exact copy"):
        build(recipe(notes, component=[{"name": "A", "source": source}, {"name": "B", "source": source}]))


@pytest.mark.slow
def test_a_packaged_tokenizer_can_be_used(notes: Path) -> None:
    built = build(recipe(notes, tokenizer={"path": "gpt2"}))
    assert built.report.vocab_size == 50257
    assert Tokenizer.load(built.directory).sha256 == Tokenizer.load("gpt2").sha256


def test_building_again_does_nothing_and_says_so(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = build(recipe(notes))
    stamps = {path: path.stat().st_mtime_ns for path in first.directory.rglob("*")}
    again = build(recipe(notes))
    assert "built from this recipe already" in capsys.readouterr().err
    assert (first.fresh, again.fresh) == (True, False)
    assert again.summary() == first.summary()
    assert again.as_dict() == first.as_dict() | {"fresh": False}
    assert stamps == {path: path.stat().st_mtime_ns for path in first.directory.rglob("*")}
    assert build(recipe(notes, seed=7)).fresh
    assert load(PileRecipe, first.directory / "recipe.toml") == recipe(notes, seed=7)


def test_changed_files_are_read_again_by_force(notes: Path) -> None:
    first = build(recipe(notes)).report
    for note in notes.glob("*.txt"):
        note.write_text(note.read_text(encoding="utf-8") + " And more.", encoding="utf-8")
    assert build(recipe(notes)).report == first
    again = build(recipe(notes), force=True)
    assert again.fresh and again.report.components["Notes"].splits != first.components["Notes"].splits


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_build_leaves_what_was_there(notes: Path, monkeypatch: pytest.MonkeyPatch, error) -> None:
    def interrupted(*_: object) -> None:
        raise error

    for whole in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(building, "assemble", interrupted)
            with pytest.raises(error):
                build(recipe(notes, seed=2))
        assert sorted(path.name for path in notes.glob("built*")) == ["built"] * whole + ["built.stages"]
        assert build(recipe(notes)).fresh is not whole


def test_no_disk_left_leaves_nothing(notes: Path, file_size_limit) -> None:
    with pytest.raises(OSError, match="too large"), file_size_limit(2000):
        build(recipe(notes))
    assert not (notes / "built").exists()
    assert not list(notes.rglob("*.partial"))


def test_a_folder_with_other_files_is_not_replaced(notes: Path) -> None:
    with pytest.raises(ValueError, match=r"holds 00\.txt, which is not part of a corpus"):
        build(recipe(notes, output=str(notes)))
    with pytest.raises(ValueError, match="is a file"):
        build(recipe(notes, output=str(notes / "00.txt")))
    built = build(recipe(notes))
    for name in (".DS_Store", "._report.json", "Thumbs.db"):
        (built.directory / name).write_text("by the system")
    assert build(recipe(notes, seed=2)).fresh
    (built.directory / "mine.md").write_text("kept")
    with pytest.raises(ValueError, match=r"holds mine\.md"):
        build(recipe(notes, seed=3))


@pytest.mark.parametrize("own", ["jsonl/00.jsonl.zst", "documents/thesis.md", "recipe.toml", "report.json"])
def test_a_folder_of_the_user_with_names_of_a_corpus_is_not_replaced(notes: Path, own: str) -> None:
    for text in ("mine", "{}", "1"):
        write_text(notes / "built" / own, text)
        with pytest.raises(ValueError, match=rf"holds {own.partition('/')[0]}, but no report\.json of a corpus"):
            build(recipe(notes), force=True)
        assert [path.name for path in notes.glob("built*")] == ["built"]
        assert (notes / "built" / own).read_text() == text
    shutil.rmtree(notes / "built")
    (notes / "built").mkdir()
    report = build(recipe(notes)).directory / "report.json"
    report.write_text(json.dumps({"recipe_sha256": "of an older version"}))
    assert build(recipe(notes)).fresh


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("*.md", r"component Notes: no file matches .*\*\.md"),
        ("", r"component Notes: no file matches .* it is a folder, write .*/\*\*/\*\.txt"),
        ("binary.txt", "component Notes has no documents; 1 piece skipped as not text"),
    ],
)
def test_an_empty_corpus_names_the_component(notes: Path, path: str, says: str) -> None:
    component = [{"name": "Notes", "source": [{"kind": "text", "path": f"{notes}/{path}"}]}]
    with pytest.raises(ValueError, match=says):
        build(recipe(notes, component=component))
    assert not (notes / "built").exists()


def test_a_corpus_of_one_document(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    component = [{"name": "Notes", "source": [{"kind": "text", "path": f"{notes}/03.txt"}]}]
    built = build(recipe(notes, component=component, split={"valid": 0.0001, "test": 0, "least": "0 kB"}))
    said = capsys.readouterr().err
    assert "no document fell in the valid part" in said
    assert "the text gives only" in said
    assert len(TokenShard(built.directory / "tokens" / "valid")) == 0
    with pytest.raises(ValueError, match="no document fell in the training part"):
        build(recipe(notes, component=component, split={"valid": 0.9999, "test": 0, "least": "0 kB"}))


def test_a_corpus_of_other_sources_is_replaced_only_by_force(notes: Path) -> None:
    first = build(recipe(notes))
    before = (first.directory / "SHA256SUMS").read_bytes()

    def one(name: str, path: str, **more: str) -> list[dict[str, object]]:
        return [{"name": name, "licence": "MIT", "source": [{"kind": "text", "path": f"{notes}/{path}"} | more]}]

    for name, path in (("Others", "1*.txt"), ("Notes", "1*.txt")):
        with pytest.raises(ValueError, match=r"holds a corpus of other sources \(Notes\); set name or output"):
            build(recipe(notes, component=one(name, path)))
    assert (first.directory / "SHA256SUMS").read_bytes() == before
    assert build(recipe(notes, component=one("Renamed", "*.txt", licence="CC0-1.0"))).fresh
    assert build(recipe(notes, component=one("Others", "1*.txt")), force=True).report.components.keys() == {"Others"}
