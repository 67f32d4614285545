"""Messages to people never end the work that they tell of."""

import os
import subprocess
import sys

import pytest

from bluejay import cli, progress
from bluejay.infer.samples import Chunk
from bluejay.progress import Bar, format_bytes, say, unfailing_messages

SCRIPT = """
import os, sys
from bluejay.progress import say, unfailing_messages
with unfailing_messages():
    say("one"); say("two")
    os.write(1, b"worked")
print("after it", file=sys.stderr)
sys.exit(130)
"""


@pytest.mark.parametrize("to", ["nobody", "full disk"])
def test_messages_that_cannot_be_written_change_neither_the_work_nor_how_it_ends(to):
    if to == "nobody":
        read, target = os.pipe()
        os.close(read)
    else:
        target = os.open("/dev/full", os.O_WRONLY)
    done = subprocess.run([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=target, check=False)
    os.close(target)
    assert (done.stdout, done.returncode) == (b"worked", 130)


def test_messages_that_can_be_written_are(capsys):
    with unfailing_messages():
        say("one")
        print("two", file=sys.stderr)
    say("three")
    assert capsys.readouterr().err == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0.00 KiB"), (3 << 10, "3.00 KiB"), (300 << 10, "0.29 MiB"), (3 << 29, "1.50 GiB"), (None, "?")],
)
def test_a_number_of_bytes_has_a_unit_that_shows_it(size, shown):
    assert format_bytes(size) == shown


@pytest.mark.parametrize("notebook", [False, True])
def test_where_the_total_is_not_known_no_share_and_no_time_is_made_up(notebook, capsys, monkeypatch):
    for name in ("SECONDS_BETWEEN_LINES", "SECONDS_BETWEEN_UPDATES", "SECONDS_BEFORE_BAR"):
        monkeypatch.setattr(progress, name, -1.0)
    bar = Bar("fetch x", 0, "B", 0, None, notebook)
    bar.advance(50_000_000, "note")
    said = capsys.readouterr().err
    assert "fetch x 50,000,000 B · " in said and " B/s · note" in said and "%" not in said and "left" not in said
    bar.total = 100_000_000
    bar.done = 0
    bar.advance(0)
    assert "left" not in capsys.readouterr().err
    bar.advance(50_000_000)
    said = capsys.readouterr().err
    assert "fetch x  50% · " in said and " s left" in said and ("█" in said) is notebook


def test_a_terminal_that_cannot_move_the_cursor_gets_lines(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)
    monkeypatch.setenv("TERM", "dumb")
    with progress.progress("fetch x", 100, "B") as bar:
        bar.advance(50)
    said = capsys.readouterr().err
    assert "fetch x  50% · " in said and "\x1b" not in said


def test_a_terminal_does_not_obey_what_a_model_is_asked_or_writes(monkeypatch, tiny_model, capsys):
    monkeypatch.setattr("bluejay.infer.model.load", lambda *_, **__: tiny_model)
    monkeypatch.setattr(tiny_model, "stream", lambda *_: [Chunk(0, "\x9b2J\r\n", 1)])
    command = ["generate", "a-model", "a\tb\x1b]0;title\a"]
    cli.main(command)
    assert capsys.readouterr().out == "a\tb\x1b]0;title\a\x9b2J\r\n\n"  # a file gets it as it is
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    cli.main(command)
    assert capsys.readouterr().out == "a\tb\\x1b]0;title\\x07\\x9b2J\\r\n\n"
