"""A task that fails is run again, and one that takes long is named. `test_graph.py` has workers that are killed."""

import errno
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bluejay.pile.pipeline import executor, stragglers
from bluejay.pile.pipeline.executor import Executor
from bluejay.pile.pipeline.runner import Runner


def tried(task: tuple[Path, int]) -> int:
    """How often a task has been begun, this time included."""
    folder, number = task
    with (folder / str(number)).open("a") as file:
        file.write(".")
    return (folder / str(number)).stat().st_size


def fails_twice(task: tuple[Path, int]) -> int:
    """Tasks 2 and 5 fail at their first two attempts."""
    if tried(task) < 3 and task[1] in (2, 5):
        raise OSError(errno.EIO, "Input/output error", "disk")
    return task[1] * 10


def always_fails(task: tuple[Path, int]) -> int:
    """Task 1 fails at every attempt."""
    tried(task)
    if task[1] == 1:
        raise OSError(errno.EIO, "Input/output error", "disk")
    return task[1]


def disk_is_full(task: tuple[Path, int]) -> int:
    """Task 1 finds no room."""
    tried(task)
    if task[1] == 1:
        raise OSError(errno.ENOSPC, "No space left on device", "disk")
    return task[1]


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, int]]:
    """Eight tasks, without a pause between their attempts."""
    monkeypatch.setattr(executor, "PAUSE_SECONDS", 0.0)
    return [(tmp_path, number) for number in range(8)]


def test_a_task_that_fails_twice_is_run_again(
    tasks: list[tuple[Path, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dict(Executor().run(fails_twice, tasks)) == {number: number * 10 for number in range(8)}
    assert [(tasks[0][0] / str(number)).stat().st_size for number in range(8)] == [1, 1, 3, 1, 1, 3, 1, 1]
    assert "2 of 8 tasks are run again: [Errno 5] Input/output error" in capsys.readouterr().err


@pytest.mark.parametrize(("function", "attempts", "others"), [(always_fails, 3, 7), (disk_is_full, 1, 1)])
def test_a_task_that_always_fails_ends_the_build_after_the_others(
    tasks: list[tuple[Path, int]], function: Any, attempts: int, others: int
) -> None:
    with pytest.raises(OSError, match=r"Input/output|No space"):
        list(Executor().run(function, tasks))
    assert (tasks[0][0] / "1").stat().st_size == attempts
    assert len(list(tasks[0][0].iterdir())) - 1 == others


@dataclass(frozen=True)
class Slow:
    """A step of a few milliseconds, or of a second."""

    name: ClassVar[str] = "slow"
    number: int

    def key(self) -> list[Any]:
        return [self.number]

    def run(self, out: Path) -> dict[str, Any]:
        time.sleep(1.0 if self.number == 3 else 0.01)
        return {}


@dataclass(frozen=True)
class Noted:
    """A step that notes that it has begun."""

    name: ClassVar[str] = "noted"
    number: int
    began: list[int]

    def key(self) -> list[Any]:
        return [self.number]

    def run(self, out: Path) -> dict[str, Any]:
        self.began.append(self.number)
        return {}


def test_a_task_without_others_is_said_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is only one file to read, the bar stays where it is. It is named in all steps of the chain."""
    monkeypatch.setattr(stragglers, "CHECK_SECONDS", 0.02)
    monkeypatch.setattr(stragglers, "LEAST_SECONDS", 0.1)
    runner = Runner(Executor(), tmp_path)
    runner.run("waiting", [[runner.task(Slow(number)) for number in (0, 3)]], [1])
    first, *_ = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"waiting: slow \(number 0\) has run for \d s; it wrote [\d.]+ KiB", first)


def test_the_longest_tasks_are_begun_first(tmp_path: Path) -> None:
    began: list[int] = []
    steps = [Noted(number, began) for number in range(5)]
    Runner(Executor(), tmp_path).finish("sorted", steps, [20, 30, 10, 30, 20])
    assert began == [1, 3, 0, 4, 2]


def test_a_straggler_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stragglers, "CHECK_SECONDS", 0.02)
    monkeypatch.setattr(stragglers, "LEAST_SECONDS", 0.3)
    killed = tmp_path / "slow" / "0123.4567.partial"  # of a build that was killed
    killed.mkdir(parents=True)
    tasks = Runner(Executor(), tmp_path).finish("waiting", [Slow(number) for number in range(5)], [1] * 5)
    assert all(task.done for task in tasks)
    said = [line for line in capsys.readouterr().err.splitlines() if "has run for" in line]
    assert said
    assert all(line.startswith("waiting: slow (number 3) has run for ") for line in said)
