"""The simulation of large corpora counts the files that a real build opens, and its figures grow as the size."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from bluejay.pile.pipeline.executor import Executor
from bluejay.pile.pipeline.graph import Pipeline
from bluejay.pile.pipeline.runner import Runner
from bluejay.pile.pipeline.task import Task
from bluejay.pile.report.counts import Report
from bluejay.pile.steps.merge import listed

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def pile_scale() -> Iterator[ModuleType]:
    """The benchmark as a module."""
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("pile_scale")
    sys.path.remove(str(BENCHMARKS))


WATCHED: list[set[str]] = []
"""The files that the running task has opened so far."""


def watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and WATCHED and isinstance(arguments[0], (str, os.PathLike)):
        WATCHED[-1].add(os.fspath(arguments[0]))


@contextmanager
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[Task, int]]:
    """Counts the files that each task opens from Python."""
    counts: dict[Task, int] = {}
    run = Task.run

    def counted(task: Task) -> None:
        WATCHED.append(set())
        run(task)
        counts[task] = len({path for path in WATCHED.pop() if str(task.stages) in path})

    sys.addaudithook(watch)
    with monkeypatch.context() as patch:
        patch.setattr(Task, "run", counted)
        yield counts


@pytest.mark.slow
def test_files_are_counted_as_a_build_opens_them(
    pile_scale: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bluejay.pile.pipeline.runner.MOST_OUTPUTS", 2)
    monkeypatch.setattr("bluejay.pile.steps.read.PART_BYTES", 20_000)
    monkeypatch.setattr("bluejay.pile.steps.passages.BUCKET_PASSAGES", 5_000)
    (tmp_path / "text").mkdir()
    pile_scale.write_text(tmp_path / "text", 60_000, 20_000)
    recipe = pile_scale.recipe(str(tmp_path / "text"), str(tmp_path / "out"), {"bands": 2})
    with opened(monkeypatch) as counts:
        Pipeline(recipe, Runner(Executor(), tmp_path / "stages"), Report("scale", "")).run()
    seen = set()
    for task, number in counts.items():
        step, name = task.step, task.step.name
        if name in ("exact", "near", "repeats", "merge", "merge-encoded", "shuffle"):
            listing = {path: len(listed(path)) for path in vars(step).values() if isinstance(path, Path)}
            # Where no lines are exported, their files are empty and not opened.
            empty = sum(listing.values()) if name == "merge-encoded" else 0
            assert number - 1 <= pile_scale.files_of(step, listing) - empty <= number + 1, task.title
            seen.add(name)
    assert len(seen) == 6


def test_ten_times_the_text_costs_ten_times_as_much(pile_scale: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bluejay.pile.pipeline.runner.MOST_OUTPUTS", 8)
    small, large = (pile_scale.simulate(parts * 64e6) for parts in (100, 1000))
    for found in (lambda runner: runner.pickled, lambda runner: sum(runner.tasks.values())):
        assert found(large) < 11 * found(small)
    assert sum(large.opened.values()) < 13 * sum(small.opened.values())  # one more merge
    assert large.largest < 2 * small.largest
