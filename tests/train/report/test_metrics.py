"""The rows of a run are on disk as they were given, for us, for TensorBoard and as pictures."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bluejay.train.report.metrics import Metrics, draw_learning_rate, draw_loss, read_metrics


def test_rows_are_read_back_and_what_came_after_the_checkpoint_is_not(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path, 0)
    for step in (1, 2, 3):
        metrics.add(step=step, loss=1.0 / step)
    metrics.close()
    again = Metrics(path, 2)
    again.add(step=3, loss=0.5, valid_bits_per_byte_of={"Github": 0.7})
    again.close()
    assert [row["loss"] for row in read_metrics(path)] == [1.0, 0.5, 0.5]


def test_tensorboard_shows_the_same_numbers_and_each_step_once(tmp_path):
    for first, loss in ((1, 4.0), (3, 2.0)):
        metrics = Metrics(tmp_path / "metrics.jsonl", first - 1)
        for step in range(first, first + 4):
            metrics.add(step=step, tokens=100 * step, loss=loss, valid_bits_per_byte_of={"Github": 0.5})
        metrics.close()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [(event.step, event.value) for event in board.Scalars("loss")]
    assert losses == [(1, 4.0), (2, 4.0), (3, 2.0), (4, 2.0), (5, 2.0), (6, 2.0)]
    assert board.Scalars("valid_bits_per_byte_of/Github")[-1].value == 0.5


def test_a_loss_that_is_not_a_number_leaves_the_file_readable_by_others(tmp_path):
    metrics = Metrics(tmp_path / "metrics.jsonl", 0)
    metrics.add(step=1, tokens=10, loss=float("nan"), lr=0.1)
    metrics.add(step=2, tokens=20, loss=1.0, lr=0.1, valid_loss=2.0)
    metrics.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0], parse_constant=pytest.fail)["loss"] is None
    for draw, name in ((draw_loss, "loss.png"), (draw_learning_rate, "learning_rate.png")):
        draw(read_metrics(tmp_path / "metrics.jsonl"), "a run", tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("samples", [{}, {"abc": 100 * "d"}])
def test_a_full_disk_is_an_error_and_no_endless_wait(samples, tmp_path, file_size_limit):
    """Also where only TensorBoard's file, which is the larger one without samples, finds no room."""
    metrics = Metrics(tmp_path / "metrics.jsonl", 0)
    with file_size_limit(12_000), pytest.raises(OSError, match="File too large"):
        for step in range(1, 1000):
            metrics.add(step=step, loss=1.0, samples=samples)
    metrics.close()


def test_a_line_that_a_crash_cut_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1}]


def test_a_damaged_line_costs_that_line_and_is_said(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    other = b'{"step": 1, "tokens": "8k"}\n{"step": 1, "valid_loss": []}\n{"step": 1, "lr": 1e999}\n'
    path.write_bytes(b'{"step": 1}\n42\n\0\0\n{"loss": 1}\n' + other + b'\xff{"step"\n{"step": 2}\n{"step": 3}\n')
    Metrics(path, 2).close()
    assert f"{path} has lines that are no rows of a run, and left out: 7, first line 2" in capsys.readouterr().err
    assert read_metrics(path) == [{"step": 1}, {"step": 2}] and capsys.readouterr().err == ""
