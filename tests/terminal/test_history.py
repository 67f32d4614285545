"""The file of the history: what it keeps, and what of it cannot be read."""

import json
import threading

import pytest

from bluejay.terminal.history import History, HistoryEntry, state_directory
from bluejay.terminal.menu import history_menu
from tests.waiting import PATIENCE

GOOD = {"text": "the cat sat", "spans": [[3, 7], [7, 11]], "settings": "top_k=5", "note": "4 tokens", "when": 1.0}


@pytest.mark.parametrize(
    "broken",
    [
        {"spans": None},
        {"spans": [[1]]},
        {"spans": [[0, 5.5]]},
        {"spans": [[3, 7], [5, 99]]},
        {"text": 5},
        {"note": None},
        {"settings": None},
        {"when": "x"},
        {"when": None},
        {"when": 1e30},
        {"when": float("nan")},
        {"samples": 5},
        {"samples": ["ab"]},
        {"samples": [["ab", [[0, 3]]]]},
        {"from_a_newer_version": 1},
    ],
)
def test_a_broken_entry_of_the_history_costs_itself_alone_and_stays_in_the_file(tmp_path, broken):
    history = History(tmp_path / "history.json")
    history.path.write_text(json.dumps([GOOD | broken, GOOD, 5]))
    assert history.entries == [HistoryEntry(**GOOD)]
    assert [choice.annotated.text for choice in history_menu(history.entries).choices] == ["the cat sat"]
    history.add(HistoryEntry("new", [], "", ""))
    assert [entry.text for entry in history.entries] == ["new", "the cat sat"]
    assert json.dumps(json.loads(history.path.read_text())[1:]) == json.dumps([GOOD | broken, GOOD, 5])


@pytest.mark.parametrize("text", ["not ours", "{}", "[" * 100_000])
def test_a_history_of_another_format_is_put_aside(tmp_path, text):
    history = History(tmp_path / "history.json")
    history.path.write_text(text)
    assert history.entries == []
    history.add(HistoryEntry("new", [], "", ""))
    assert (tmp_path / "history.json.unreadable").read_text() == text
    assert [entry.text for entry in history.entries] == ["new"]


def test_two_terminals_that_are_left_at_once_both_keep_their_text(tmp_path):
    one, other = History(tmp_path / "history.json"), History(tmp_path / "history.json")
    read = one._values
    beside = threading.Thread(target=lambda: other.add(HistoryEntry("other", [], "", "")))

    def read_while_another_adds():
        values = read()
        beside.start()
        beside.join(0.1)
        return values

    one._values = read_while_another_adds
    one.add(HistoryEntry("one", [], "", ""))
    beside.join(PATIENCE)
    assert [entry.text for entry in other.entries] == ["other", "one"]


def test_a_user_without_a_home_has_a_history(monkeypatch, tmp_path):
    for name in ("XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path))
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}[0])
    assert state_directory() == tmp_path / "state"
