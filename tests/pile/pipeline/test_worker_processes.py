"""Worker processes: one that dies costs no task, and none is left when the build ends. `test_graph.py` has a build."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bluejay.pile.pipeline import executor
from bluejay.pile.pipeline.answer import WorkerDied
from bluejay.pile.pipeline.executor import Executor


def dies(task: tuple[Path, int]) -> int:
    """Task 3 kills its worker."""
    folder, number = task
    if number == 3:
        (folder / f"{time.monotonic_ns()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 10


def waits(folder: Path) -> None:
    """Say which process this is, and wait."""
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def test_a_task_whose_worker_always_dies_ends_the_build_after_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(executor, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(executor, "ATTEMPTS", 2)
    done: dict[int, int] = {}
    with pytest.raises(WorkerDied, match="a worker process ended before its task; if memory ran out, use fewer"):
        done.update(Executor(workers=2).run(dies, [(tmp_path, number) for number in range(6)]))
    assert done == {number: number * 10 for number in range(6) if number != 3}
    assert len(list(tmp_path.iterdir())) == 2
    assert "of 6 tasks are run again: a worker process ended before its task" in capsys.readouterr().err


def test_workers_of_a_build_that_was_killed_end(tmp_path: Path) -> None:
    program = "from pathlib import Path; from tests.pile.pipeline.test_worker_processes import *; "
    program += f"list(Executor(workers=2).run(waits, [Path({str(tmp_path)!r})] * 2))"
    build = subprocess.Popen([sys.executable, "-c", program])
    while len(workers := [int(path.name) for path in tmp_path.iterdir()]) < 2:
        assert build.poll() is None
        time.sleep(0.05)
    build.kill()
    build.wait()
    until = time.monotonic() + 60
    while any(runs(worker) for worker in workers):
        assert time.monotonic() < until, "a worker outlived its build"
        time.sleep(0.05)


def runs(process: int) -> bool:
    """Whether a process is there and not a corpse that waits for its parent."""
    try:
        os.kill(process, 0)
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
