"""A build runs only the missing steps, however it was interrupted, with any number of workers."""

import bz2
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import zstandard

from bluejay.pile.build import build
from bluejay.pile.pipeline import graph, runner, task
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.steps import dedup, encode, passages, read, shuffle
from bluejay.pile.text import document_table, sorted_records
from bluejay.recipe import check, save

WORDS = [f"{start}{end}" for start in ("tre", "ho", "bar", "wi", "cloud") for end in ("e", "me", "n", "ld")]


def sentence(seed: int, n: int) -> str:
    """`n` words of a document that depends on the seed."""
    chance = random.Random(seed)
    return " ".join(f"{chance.choice(WORDS)}{chance.randrange(40)}" for _ in range(n))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four files of 40 documents, each with a near-copy from the file before; and prose in another component."""
    for file in range(4):
        rows = [sentence(100 * file + row, 60) for row in range(40)]
        rows.append(sentence(100 * max(file - 1, 0) + 7, 60) + f" end {file}")
        (tmp_path / f"{file}.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    (tmp_path / "prose.txt").write_text(sentence(1, 500))
    return tmp_path


def recipe(folder: Path, **fields: object) -> PileRecipe:
    """A recipe with near-copies, epochs and an export."""
    component = [
        {
            "name": "Lines",
            "epochs": 1.5,
            "source": [{"kind": "jsonl", "path": f"{folder}/{file}.jsonl"} for file in range(4)],
        },
        {"name": "Prose", "source": [{"kind": "text", "path": f"{folder}/prose.txt"}]},
    ]
    values = {
        "name": "notes",
        "output": str(folder / "built"),
        "tokenizer": {"train": {"vocab_size": 300}},
        "split": {"valid": 0.1, "test": 0.1, "least": "0 kB"},
        "dedup": {"near": {}},
        "jsonl": True,
        "component": component,
    }
    return check(PileRecipe, values | fields, "the test")


def sums(directory: Path) -> str:
    """The checksums of a corpus."""
    return (directory / "SHA256SUMS").read_text()


def stamps(folder: Path) -> dict[str, int]:
    """The inode of each output of a step."""
    return {f"{path.parent.name}/{path.name}": path.stat().st_ino for path in folder.glob("built.stages/*/*")}


def remade(folder: Path, before: dict[str, int]) -> dict[str, int]:
    """How many tasks of each step have run since. Listings are not counted: they have no work."""
    counts: dict[str, int] = {}
    for name, inode in stamps(folder).items():
        if before.get(name) != inode and not name.startswith("outputs/"):
            counts[name.split("/")[0]] = counts.get(name.split("/")[0], 0) + 1
    return counts


def test_a_changed_recipe_repeats_only_the_affected_steps(folder: Path) -> None:
    build(recipe(folder))
    before = stamps(folder)
    build(recipe(folder, jsonl=False))
    assert set(remade(folder, before)) == {"encode", "shuffle"}
    before = stamps(folder)
    build(recipe(folder, jsonl=False, dedup={"near": {"threshold": 0.8}}))
    assert set(remade(folder, before)) == {"near", "decide"}
    (folder / "2.jsonl").write_text(json.dumps({"text": "other words altogether"}) + "\n")
    before = stamps(folder)
    build(recipe(folder, jsonl=False, dedup={"near": {"threshold": 0.8}}, seed=42, name="again"))
    done = remade(folder, before)
    assert [done[name] for name in ("read", "clean", "sign")] == [1, 1, 1]


def test_buckets_of_any_size_give_the_same_shards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = build(recipe(folder, output=str(folder / "one"), jsonl=False))
    monkeypatch.setattr(shuffle, "BUCKET_TOKENS", 1000)
    many = build(recipe(folder, output=str(folder / "many"), jsonl=False))
    assert len(list((folder / "many.stages/shuffle").glob("*/*/tokens.bin"))) > 10
    for name in ("train.bin", "train.idx", "valid.bin"):
        assert (one.directory / "tokens" / name).read_bytes() == (many.directory / "tokens" / name).read_bytes()
    tables = [pq.read_table(built.directory / "tokens/documents.parquet") for built in (one, many)]
    assert tables[0].equals(tables[1])


@pytest.mark.slow
def test_merged_outputs_give_the_same_corpus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more outputs than a task may open are merged first, and each range of hashes is a task of its own."""
    copied = [sentence(row, 60) for row in (5, 105, 6)] + [f"{sentence(9, 40)} {sentence(201, 50)}"]
    (folder / "4.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in copied))
    source = [{"kind": "jsonl", "path": f"{folder}/{file}.jsonl"} for file in range(5)]
    prose = [{"kind": "text", "path": f"{folder}/prose.txt"}]
    component = [{"name": "Lines", "epochs": 1.5, "source": source}, {"name": "Prose", "source": prose}]
    fields = {"component": component, "dedup": {"near": {}, "substring": {"length": 100}}}
    whole = build(recipe(folder, output=str(folder / "whole"), **fields))
    for module, constant, value in (
        (runner, "MOST_OUTPUTS", 2),
        (graph, "PARTS_AT_ONCE", 2),
        (dedup, "BUCKET_DOCUMENTS", 30),
        (passages, "BUCKET_PASSAGES", 500),
        (shuffle, "BUCKET_TOKENS", 5000),
        (shuffle, "BUCKETS_AT_ONCE", 2),
        (sorted_records, "RECORDS_AT_ONCE", 100),
    ):
        monkeypatch.setattr(module, constant, value)
    cut = build(recipe(folder, **fields))
    stages = folder / "built.stages"
    for step, least in (("merge", 6), ("merge-encoded", 2), ("exact", 6), ("near", 84), ("repeats", 5), ("shuffle", 4)):
        assert len(list((stages / step).iterdir())) >= least, step
    assert cut.report.components["Lines"].dropped["exact copy"] == 3
    assert cut.report.near and cut.report.near["pairs"] and cut.report.passages and cut.report.passages["passages"]
    assert (cut.report.near, cut.report.passages) == (whole.report.near, whole.report.passages)
    # Buckets are files of the export, and row groups of the table of documents.
    kept = [re.sub(".* (jsonl|tokens/documents.parquet).*\n", "", sums(built.directory)) for built in (whole, cut)]
    assert kept[0] == kept[1]
    tables = [pq.read_table(built.directory / "tokens/documents.parquet") for built in (whole, cut)]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("kind", ["zst", pytest.param("text", marks=pytest.mark.slow)])
def test_a_large_file_is_many_tasks(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, byte_tokenizer_folder: str
) -> None:
    """Documents, tokens and held-out text are those of the file in one piece."""
    texts = [sentence(row, 60) for row in range(30)] + [sentence(3, 60)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    path = tmp_path / ("a.txt" if kind == "text" else "a.jsonl.zst")
    path.write_bytes("\n\n".join(texts).encode() if kind == "text" else zstandard.compress(lines))
    source = [{"kind": "text" if kind == "text" else "jsonl", "path": str(path)}]
    fields = {"component": [{"name": "Lines", "source": source}], "split": {"valid": 0.1, "least": "3 kB"}}
    fields |= {"dedup": {"near": {"bands": 2}, "substring": {}}, "tokenizer": {"path": byte_tokenizer_folder}}
    monkeypatch.setattr(document_table, "ROW_GROUP_BYTES", 1000)
    whole = build(recipe(tmp_path, output=str(tmp_path / "whole"), **fields))
    monkeypatch.setattr(read, "PIECE_CHARACTERS", 2000)
    cut = build(recipe(tmp_path, **fields))
    pieces = len(list((tmp_path / "built.stages/clean").iterdir()))
    assert pieces == 1 if kind == "text" else pieces > 5
    assert len(list((tmp_path / "built.stages/read").iterdir())) == 1
    assert whole.report.components == cut.report.components
    kept = [re.sub(".* documents/.*\n", "", sums(built.directory)) for built in (whole, cut)]
    assert kept[0] == kept[1]
    for split in ("train", "valid", "test", "dropped", "skipped"):
        tables = [pq.read_table(built.directory / "documents" / f"{split}.parquet") for built in (whole, cut)]
        assert tables[0].equals(tables[1])


def test_a_large_file_is_read_in_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The corpus is that of the file in one piece, blocks of bzip2 and lines of JSON alike."""
    texts = [sentence(row, 400) for row in range(120)] + [sentence(3, 400)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    (tmp_path / "a.jsonl.bz2").write_bytes(bz2.compress(lines[: len(lines) // 2 + 99], 1))
    (tmp_path / "b.jsonl").write_bytes(lines[len(lines) // 2 + 99 :])
    source = [{"kind": "jsonl", "path": f"{tmp_path}/*.jsonl*"}]
    fields = {
        "component": [{"name": "Lines", "source": source}],
        "dedup": {},
        "tokenizer": {"train": {"vocab_size": 300}},
    }
    whole = build(recipe(tmp_path, output=str(tmp_path / "whole"), **fields))
    monkeypatch.setattr(read, "PART_BYTES", 20_000)
    cut = build(recipe(tmp_path, **fields))
    assert len(list((tmp_path / "built.stages/read").iterdir())) >= 10
    assert whole.report.components == cut.report.components
    kept = [re.sub(".* documents/.*\n", "", sums(built.directory)) for built in (whole, cut)]
    assert kept[0] == kept[1]
    for split in ("train", "valid", "test", "dropped", "skipped"):
        tables = [pq.read_table(built.directory / "documents" / f"{split}.parquet") for built in (whole, cut)]
        assert tables[0].equals(tables[1])


def breaking(function: Callable[..., object], call: int) -> Callable[..., object]:
    """The function, interrupted at its `call`-th call."""
    calls = itertools.count(1)

    def breaks(*arguments: object) -> object:
        if next(calls) == call:
            raise KeyboardInterrupt
        return function(*arguments)

    return breaks


def test_an_interrupted_build_continues(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build(recipe(folder, output=str(folder / "whole")))
    for module, function in ((encode, "dropped_rows"), (shuffle.MappedFiles, "gather")):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, function, breaking(getattr(module, function), 3))
            build(recipe(folder))
        done = stamps(folder)
        assert not list(folder.rglob("*.partial"))
    build(recipe(folder))
    assert set(remade(folder, done)) == {"shuffle"}
    assert sums(whole.directory) == sums(folder / "built")


def test_two_builds_of_one_corpus_exclude_each_other(folder: Path) -> None:
    with task.locked(folder / "built.stages"), pytest.raises(ValueError, match="another build works in"):
        build(recipe(folder))


def test_near_copies_are_dropped_or_kept_in_one_split(folder: Path) -> None:
    dropped = build(recipe(folder)).report.components["Lines"]
    assert dropped.dropped == {"near-copy": 4}
    kept = build(
        recipe(folder, dedup={"near": {}, "remove": False}, split={"valid": 0.3, "test": 0.3, "least": "0 kB"})
    )
    assert kept.report.components["Lines"].dropped == {}
    split_of = {}
    for split in ("train", "valid", "test"):
        for row in pq.read_table(kept.directory / "documents" / f"{split}.parquet").to_pylist():
            split_of[row["text"]] = split
    for file in range(1, 4):
        original = sentence(100 * (file - 1) + 7, 60)
        assert split_of[original] == split_of[f"{original} end {file}"]


def test_repeated_passages_are_cut_out_of_all_but_the_first(folder: Path) -> None:
    notice = (
        "All rights reserved by the holders of them, whoever these may be, and wherever they may be found, for ever. "
    )
    assert len(notice) > 100
    rows = [notice + sentence(1, 30), sentence(2, 30) + " " + notice + sentence(3, 30), notice]
    (folder / "same.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    component = [{"name": "Lines", "source": [{"kind": "jsonl", "path": f"{folder}/same.jsonl"}]}]
    values = {"component": component, "dedup": {"substring": {"length": 60}}, "split": {"valid": 0, "test": 0}}
    built = build(recipe(folder, **values))
    documents = pq.read_table(built.directory / "documents/train.parquet").to_pylist()
    assert len(documents) == 2
    assert documents[0]["text"] == rows[0]
    assert "rights" not in documents[1]["text"]
    assert documents[1]["text"].startswith(sentence(2, 30))
    assert documents[1]["text"].endswith(sentence(3, 30))
    assert all(row["id"] == hashlib.sha256(row["text"].encode()).hexdigest() for row in documents)
    assert built.report.components["Lines"].dropped == {"repeated passages, nothing else": 1}


def test_documents_that_match_a_test_set_are_dropped(folder: Path) -> None:
    def matched(*names: str) -> dict[str, str]:
        """The texts that are dropped for test sets of these names, and why each is, in tables and report."""
        built = build(recipe(folder, decontaminate={"against": [f"{folder}/{name}" for name in names]}))
        rows = pq.read_table(built.directory / "documents/dropped.parquet").to_pylist()
        counts = built.report.components["Lines"].dropped
        return {row["text"]: row["reason"] for row in rows if ":" in row["reason"] and counts[row["reason"]] == 1}

    questions = [" ".join(sentence(seed, 60).split()[10:30]) for seed in (3, 104)]
    for name, question in zip(("one.jsonl", "other.jsonl"), questions, strict=True):
        (folder / name).write_text(json.dumps({"question": question}) + "\n")
    assert matched("one.jsonl") == {sentence(3, 60): "contaminated: one.jsonl"}
    (folder / "one.jsonl").rename(folder / "renamed.jsonl")
    both = {sentence(3, 60): "contaminated: renamed.jsonl", sentence(104, 60): "contaminated: other.jsonl"}
    assert matched("renamed.jsonl", "other.jsonl") == both


def test_damaged_records_cost_no_good_document(tmp_path: Path) -> None:
    """Concatenated Zstandard frames, records of other shapes, an empty file, broken bytes, a truncated archive."""
    good = [f"document {number}" for number in range(100)]
    frames = [json.dumps({"text": text}).encode() + b"\n" for text in good[:40]]
    (tmp_path / "frames.jsonl.zst").write_bytes(b"".join(zstandard.compress(frame) for frame in frames))
    mixed = [
        {"text": text, "meta": meta} for text, meta in zip(good[40:60], [None, 1, "x", {"a": []}] * 5, strict=True)
    ]
    lines = [json.dumps(row) for row in mixed] + ['{"text": 5}', "{", '{"other": "field"}']
    (tmp_path / "mixed.jsonl").write_text("\n".join(lines))
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "caf\xe9"}\n' + json.dumps({"text": good[60]}).encode())
    whole = zstandard.compress(b"".join(json.dumps({"text": text}).encode() + b"\n" for text in good[61:]))
    (tmp_path / "whole.jsonl.zst").write_bytes(whole)
    (tmp_path / "cut.jsonl.zst").write_bytes(whole[: len(whole) // 2])
    component = [{"name": "Lines", "source": [{"kind": "jsonl", "path": f"{tmp_path}/*.jsonl*"}]}]
    values = {"component": component, "split": {"valid": 0, "test": 0}, "dedup": {}, "jsonl": False}
    built = build(recipe(tmp_path, **values))
    assert sorted(pq.read_table(built.directory / "documents/train.parquet")["text"].to_pylist()) == sorted(
        [*good, "café"]
    )
    entry = built.report.components["Lines"]
    assert entry.found == entry.kept + sum(entry.dropped.values()) + sum(entry.skipped.values())
    assert sum(entry.skipped.values()) == 4


def test_the_export_is_read_as_the_piles_readers_do(folder: Path) -> None:
    """As lm_dataformat reads it: one frame per file, a JSON object with text and meta per line."""
    built = build(recipe(folder))
    order = pq.read_table(built.directory / "tokens/documents.parquet").to_pylist()
    documents = {}
    for split in ("train", "valid", "test"):
        table = pq.read_table(built.directory / "documents" / f"{split}.parquet").to_pylist()
        documents |= {row["id"]: row["text"] for row in table}
        rows = []
        for file in sorted((built.directory / "jsonl" / split).iterdir()):
            with file.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
                rows += [json.loads(line) for line in stream.read().decode().splitlines()]
        expected = [row for row in order if row["shard"] == split]
        assert [row["text"] for row in rows] == [documents[row["id"]] for row in expected]
        assert [row["meta"]["pile_set_name"] for row in rows] == [row["component"] for row in expected]


def run(path: Path, output: Path, *options: str, program: str = "", said: int = subprocess.DEVNULL) -> subprocess.Popen:
    """Start `bluejay pile build` in another process, after the statements of `program`; `said` gets standard error."""
    program = f"from bluejay.pile.pipeline import runner; runner.MIN_PARALLEL_BYTES = 0; {program}"
    program += "from bluejay.cli import main; main()"
    command = [sys.executable, "-c", program, "pile", "build", str(path), "--output", str(output), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, text=True)


def test_one_and_two_workers_write_the_same(folder: Path) -> None:
    one = build(recipe(folder, output=str(folder / "one"), dedup={}))
    save(recipe(folder, dedup={}), folder / "recipe.toml")
    assert run(folder / "recipe.toml", folder / "two", "--workers", "2").wait() == 0
    assert sums(one.directory) == sums(folder / "two")


FAULTS = """
from bluejay.pile.pipeline import executor; executor.PAUSE_SECONDS = 0.0
from tests.pile.pipeline import faults; runner.run_chain = faults.chain_with_faults
from bluejay.pile.pipeline import stragglers; stragglers.CHECK_SECONDS = stragglers.LEAST_SECONDS = 0.1; """


def test_a_killed_worker_a_failing_task_and_a_straggler_change_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(recipe(folder, output=str(folder / "whole")))
    save(recipe(folder), folder / "recipe.toml")
    monkeypatch.setenv("FAULTS", str(folder / "faults"))
    (folder / "faults").mkdir()
    options = ("--workers", "2")
    process = run(folder / "recipe.toml", folder / "built", *options, program=FAULTS, said=subprocess.PIPE)
    said = process.communicate()[1]
    assert process.returncode == 0, said
    assert sorted(path.name for path in (folder / "faults").iterdir()) == ["failed-0", "failed-1", "killed-0", "slow-0"]
    assert "tasks are run again: " in said and "a worker process ended before its task" in said
    assert "[Errno 5] Input/output error" in said
    assert "tokens: encode (component " in said
    assert sums(whole.directory) == sums(folder / "built")


@pytest.mark.slow
def test_ten_kills_change_nothing(folder: Path) -> None:
    path, cut = folder / "recipe.toml", folder / "cut"
    save(recipe(folder), path)
    whole = build(recipe(folder, output=str(folder / "whole")))
    began = time.monotonic()
    assert run(path, folder / "two", "--workers", "2").wait() == 0
    seconds, chance, kills, ends = time.monotonic() - began, random.Random(0), 0, 0
    while kills < 10 or not ends:
        process = run(path, cut, "--workers", "2")
        try:
            # After ten kills it may end.
            assert process.wait(chance.uniform(0.3, 1) * seconds if kills < 10 else None) == 0
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            time.sleep(0.2)
            continue
        ends += 1
        assert sums(whole.directory) == sums(cut)
        shutil.rmtree(cut)
        shutil.rmtree(f"{cut}.stages", ignore_errors=True)


@pytest.mark.slow
def test_ray_writes_the_same(folder: Path) -> None:
    pytest.importorskip("ray")
    pytest.importorskip("daft")
    path = folder / "recipe.toml"
    save(recipe(folder), path)
    whole = build(recipe(folder, output=str(folder / "whole")))
    assert run(path, folder / "ray", "--executor", "ray", "--workers", "2").wait() == 0
    assert sums(whole.directory) == sums(folder / "ray")
