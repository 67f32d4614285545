"""What a run shows: a panel on a terminal, plain lines elsewhere, and either costs next to nothing."""

import io
import re
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from rich.console import Console
from rich.live import Live

from bluejay.progress import format_duration
from bluejay.train.report import view as module
from bluejay.train.report.view import View, view

ROW = {
    "tokens": 4096,
    "loss": 2.345,
    "bits_per_byte": 1.234,
    "tokens_per_second": 12345.0,
    "share_of_peak": 0.71,
    "mfu": 0.34,
    "memory": 3.14,
    "lr": 1e-3,
    "grad_norm": 0.5,
}
WORDS = ("2.345 nats", "1.234 bits per byte", "12,345 tokens/s", "71% of the matmul peak", "34% MFU", "3.14 GB")


def test_without_a_terminal_it_is_plain_lines_a_few_seconds_apart(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with view("a run", 10, 100) as shown:
        for step in range(11, 31):
            shown.show({"step": step, **ROW})
            now[0] += module.SECONDS_BETWEEN_LINES / 5
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 6
    assert all(word in lines[-1] for word in WORDS)
    assert re.search(r"step \d\d of 100 .* left$", lines[-1]) and "\x1b" not in lines[-1]


def test_a_terminal_that_cannot_move_the_cursor_gets_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    with view("a run", 10, 100) as shown:
        shown.shown = 0.0
        shown.show({"step": 11, **ROW})
    assert "step 11 of 100" in capsys.readouterr().err


def test_a_quiet_view_says_nothing(capsys):
    with view("a run", 0, 10, quiet=True) as shown:
        shown.show({"step": 1, **ROW, "samples": {"a": "b"}})
    assert capsys.readouterr() == ("", "")


def test_samples_are_said_where_there_is_no_terminal(capsys):
    with view("a run", 0, 10) as shown:
        shown.show({"step": 1, "samples": {"Once": " upon\ta\x1btime"}})
    assert capsys.readouterr().err == "sample: Once upon a time\n"


@contextmanager
def terminal() -> Generator[tuple[io.StringIO, View]]:
    out = io.StringIO()
    with Live(console=Console(file=out, force_terminal=True, width=110), auto_refresh=False) as live:
        yield out, View("a run", 0, 1000, live)


def test_on_a_terminal_it_is_one_panel_with_all_figures():
    with terminal() as (out, shown):
        shown.shown = 0.0
        said = {"Once": " upon\x1b[2J\na time"}
        shown.show({"step": 1, **ROW, "valid_bits_per_byte_of": {"Github": 0.711, "ArXiv": 1.5}, "samples": said})
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    wanted = (*WORDS, "step 1 of 1,000", "Github 0.711", "a run", "Once upon [2J a time")
    assert [word for word in wanted if word not in text] == []


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_skipped_step_whose_loss_is_no_number_does_not_end_the_run(loss):
    with terminal() as (out, shown):
        for step, value in enumerate((loss, 2.0, loss, 3.0)):
            shown.shown = 0.0
            shown.show({"step": step, **ROW, "loss": value, "skipped_steps": 1})
    assert "1 steps skipped" in out.getvalue() and "▁▇" in out.getvalue()


def test_showing_a_step_costs_less_than_a_thousandth_of_a_short_one():
    with terminal() as (_, shown):
        began = time.process_time()  # which others on the machine do not lengthen
        for step in range(2000):
            shown.show({"step": step, **ROW})
        each = (time.process_time() - began) / 2000
    assert each < 50e-6  # quickstart's steps take 0.1 s


def test_time_left_follows_the_speed_of_the_last_steps():
    shown = View("a run", 0, 1000, None)
    for step in range(1, 101):
        shown.show({"step": step, **ROW})
        shown.ends[-1] = 100.0 + 2 * step
    shown.ends[0] = shown.ends[1] - 2
    assert shown.seconds_left == 2.0 * 900
    assert [format_duration(s) for s in (90.0, 600.0, 7300.0, 400_000.0)] == ["90 s", "10 min", "2.0 h", "4.6 days"]
