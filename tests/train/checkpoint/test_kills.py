"""A run that is killed at any moments and started again ends with the bits of one that is left alone."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from bluejay.cli import main
from bluejay.train.report.metrics import read_metrics
from tests.waiting import PATIENCE

LONGER = ("--evaluate.every_steps", "50", "--checkpoint.every_steps", "4")


def rows(run: Path) -> int:
    """Lines of the metrics."""
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def saving(run: Path) -> bool:
    """Whether a checkpoint is begun and not finished."""
    return any(not (path / "state.json").exists() for path in (run / "checkpoints").glob("step-*"))


def until(condition, started) -> None:
    """Wait for a condition, or the end of the processes."""
    while not condition() and any(process.is_alive() for process in started):
        time.sleep(0.0005)


def finished(started) -> list[int]:
    for process in started:
        process.join(4 * PATIENCE)
    return [process.exitcode for process in started]


@pytest.mark.parametrize(
    ("count", "kills"),
    [
        (1, 2),
        pytest.param(1, 20, marks=pytest.mark.slow),
        pytest.param(2, 20, marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_moments_it_ends_with_the_same_bits(processes, recipe_file, weights, tmp_path, count, kills):
    run, reference = tmp_path / "run", tmp_path / "reference"
    steps = 40 + 4 * kills
    command = ["train", str(recipe_file), *LONGER, "--train.tokens", str(128 * steps)]
    assert finished(processes(main, [*command, "--output", str(reference)], count=count)) == [0] * count
    draw, in_a_save = random.Random(count), 0
    for number in range(kills):
        started, before = processes(main, command, count=count), rows(run)
        if number % 2:
            until(lambda begun=before: rows(run) > begun and saving(run), started)
        else:
            wanted = draw.randint(1, 10)
            until(lambda begun=before, wanted=wanted: rows(run) >= begun + wanted, started)
            time.sleep(draw.uniform(0.0, 0.01))
        for process in draw.sample(started, count):
            process.kill()
        finished(started)
        in_a_save += saving(run)
        assert not (run / "model").exists(), "it ended before it was killed often enough"
    assert in_a_save
    assert finished(processes(main, command, count=count)) == [0] * count
    assert weights(run) == weights(reference)
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl") if "loss" in row] == list(range(1, steps + 1))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_asked_to_stop_it_saves_and_leaves_as_if_the_signal_had_ended_it(processes, recipe_file, tmp_path, number):
    run, command = tmp_path / "run", ["train", str(recipe_file), "--checkpoint.every_steps", "1000"]
    started = processes(main, command)
    until(lambda: rows(run) >= 3, started)
    os.kill(started[0].pid, number)
    assert finished(started) == [128 + number]
    [saved] = (run / "checkpoints").iterdir()
    assert saved.name == f"step-{rows(run)}"
    assert "run the same command to resume" in (tmp_path / "stderr-0").read_text()
    assert finished(processes(main, command)) == [0]
