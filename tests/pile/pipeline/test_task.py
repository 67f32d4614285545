"""The outputs of a build are in object storage as they are on a disk, and tasks need nothing else in common."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from bluejay.pile.build import build
from bluejay.pile.pipeline import runner
from bluejay.pile.pipeline.executor import Executor
from bluejay.pile.pipeline.runner import run_chain
from bluejay.pile.pipeline.task import COUNTS, Task
from bluejay.pile.steps import dedup, passages
from bluejay.storage import Storage
from tests.object_storage import ObjectServer
from tests.pile.pipeline.test_graph import folder, recipe, sentence, sums

__all__ = ["folder"]
ALL_STEPS = {"dedup": {"near": {}, "substring": {"length": 100}}, "split": {"valid": 0.1, "test": 0.1, "least": "2 kB"}}


def run_elsewhere(chain: Sequence[Task]) -> float:
    """Run a chain of tasks on a host of its own, whose disk has no output."""
    stages = chain[0].stages
    away = stages.rename(stages.with_name("away"))
    try:
        return run_chain(chain)
    finally:
        shutil.rmtree(stages)
        away.rename(stages)


@pytest.mark.slow
def test_tasks_without_a_common_disk_write_the_same(
    objects: ObjectServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = folder / "tests.txt"
    tests.write_text(sentence(105, 60))
    settings = ALL_STEPS | {"decontaminate": {"against": [str(tests)]}}
    for module, constant, value in ((runner, "MOST_OUTPUTS", 2), (dedup, "BUCKET_DOCUMENTS", 60)):
        monkeypatch.setattr(module, constant, value)
    monkeypatch.setattr(passages, "BUCKET_PASSAGES", 1000)
    one = build(recipe(folder, output=str(folder / "one"), **settings))
    monkeypatch.setattr(runner, "run_chain", run_elsewhere)
    many = build(recipe(folder, storage="s3://bucket/pile", **settings))
    assert sums(many.directory) == sums(one.directory)
    assert not [path for path in (folder / "built.stages").glob("*/*") if path.parent.name in ("read", "encode")]
    Storage("s3://bucket/pile").get_directory("corpus", folder / "fetched")
    assert sums(folder / "fetched") == sums(one.directory)


def test_a_build_goes_on_from_object_storage(
    objects: ObjectServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"dedup": {}, "storage": "s3://bucket/pile"}
    settings["component"] = [{"name": "Lines", "source": [{"kind": "jsonl", "path": f"{folder}/0.jsonl"}]}]
    objects.refuses = "stages/decide"
    with pytest.raises(PermissionError, match=r"s3://.*/stages/decide/\w+/0.npz cannot be written: the server"):
        build(recipe(folder, **settings))
    objects.refuses = ""
    objects.objects[f"bucket/pile/stages/read/{24 * '0'}/documents.parquet"] = b"of a killed task"
    objects.objects["bucket/pile/stages/of/somebody/else.txt"] = b"kept"
    shutil.rmtree(folder / "built.stages")  # another machine goes on
    ran: list[str] = []
    fill = Task.fill

    def fill_and_note(task: Task) -> None:
        ran.append(task.step.name)
        fill(task)

    monkeypatch.setattr(Task, "fill", fill_and_note)
    first = sums(build(recipe(folder, **settings)).directory)
    assert not {"read", "clean", "exact"} & set(ran)
    assert {"decide", "encode"} <= set(ran)
    # Of what earlier steps wrote, only those files are copied that a step reads.
    copied = [line for line in objects.requests if line.startswith("GET") and line.endswith(".npy")]
    assert copied and not [line for line in copied if "exact.npy" in line]
    stages = Storage("s3://bucket/pile/stages").files()
    assert stages.pop("of/somebody/else.txt")
    assert {name.split("/")[1] for name in stages} == {
        name.split("/")[1] for name in stages if name.endswith(f"/{COUNTS}")
    }
    ran.clear()
    shutil.rmtree(folder / "built.stages")
    shutil.rmtree(folder / "built")
    assert sums(build(recipe(folder, **settings), Executor(workers=2)).directory) == first
    assert not ran
    # A corpus that is there already is copied to a place that lacks it.
    assert not build(recipe(folder, **settings | {"storage": "s3://bucket/other"})).fresh
    assert Storage("s3://bucket/other/corpus").read("SHA256SUMS").decode() == first


@pytest.mark.parametrize("name", ["mine.txt", "documents/mine.txt"])
def test_files_of_somebody_else_in_object_storage_stay(objects: ObjectServer, folder: Path, name: str) -> None:
    objects.objects[f"bucket/pile/corpus/{name}"] = b"text"
    with pytest.raises(ValueError, match=rf"s3://bucket/pile/corpus holds {name.partition('/')[0]}, .* part of|but no"):
        build(recipe(folder, storage="s3://bucket/pile"), force=True)
    assert objects.objects == {f"bucket/pile/corpus/{name}": b"text"}
    assert not (folder / "built").exists()


def test_a_copy_of_a_corpus_that_was_interrupted_is_completed(objects: ObjectServer, folder: Path) -> None:
    values = {"dedup": {}, "storage": "s3://bucket/pile"}
    values["component"] = [{"name": "Lines", "source": [{"kind": "jsonl", "path": f"{folder}/0.jsonl"}]}]
    objects.refuses = "corpus/tokens"
    with pytest.raises(PermissionError):
        build(recipe(folder, **values))
    objects.refuses = ""
    built = build(recipe(folder, **values))
    assert Storage("s3://bucket/pile/corpus").read("SHA256SUMS").decode() == sums(built.directory)


def test_a_corpus_of_other_sources_in_object_storage_is_replaced_only_by_force(
    objects: ObjectServer, folder: Path
) -> None:
    def built_of(number: int, force: bool = False) -> str:
        component = [{"name": f"Lines {number}", "source": [{"kind": "jsonl", "path": f"{folder}/{number}.jsonl"}]}]
        output = str(folder / f"built {number}")
        values = {"dedup": {}, "component": component, "output": output, "storage": "s3://bucket/pile"}
        return sums(build(recipe(folder, **values), force=force).directory)

    first = built_of(0)
    with pytest.raises(ValueError, match=r"s3://bucket/pile/corpus holds a corpus of other sources \(Lines 0\); set "):
        built_of(1)
    assert Storage("s3://bucket/pile/corpus").read("SHA256SUMS").decode() == first == built_of(0)
    second = built_of(1, force=True)
    assert Storage("s3://bucket/pile/corpus").read("SHA256SUMS").decode() == second != first
