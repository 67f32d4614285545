"""A parser that hangs, crashes or eats memory costs one document, and says so."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bluejay.decompress import MachineFault
from bluejay.pile.documents import Document, Skipped
from bluejay.pile.sources.formats.html import Html
from bluejay.pile.sources.io.sandbox import MAX_DATA_BYTES, idle_children, sandboxed, take_child
from tests.waiting import PATIENCE, eventually

HOSTILE = """
import ctypes, errno, os, sqlite3, time
from dataclasses import dataclass
from bluejay.pile.documents import Document
from bluejay.pile.sources.io.records import RecordFiles

def forever():
    while True:
        pass

@dataclass(frozen=True, kw_only=True)
class Hostile(RecordFiles):
    kind: str = "hostile"

    def records(self, name, stream):
        for number, line in enumerate(stream.read().decode().split()):
            if line == "cut":
                raise EOFError("cut")
            if line == "full-while-splitting":
                raise OSError(errno.ENOSPC, "No space left on device")
            if line == "crash-while-splitting":
                os.abort()
            yield line

    def document(self, name, record):
        match record:
            case "loop": forever()
            case "sleep": time.sleep(1000)
            case "segfault": ctypes.string_at(0)
            case "memory": bytearray(8 << 30)
            case "recursion": f = lambda: f(); f()
            case "print": print("noise", flush=True); os.write(1, b"noise"); os.write(2, b"noise")
            case "full": raise OSError(errno.ENOSPC, "No space left on device")
            case "database": sqlite3.connect("").executescript("PRAGMA max_page_count=1; CREATE TABLE a (b)")
            case "import": import a_parser_that_nobody_has
        return Document(record, "s", "MIT", name, {"surrogate": "\\ud800"})
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory):
    """A format whose parser does whatever its input says."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "hostile_format.py").write_text(HOSTILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))))
        patch.syspath_prepend(str(folder))
        idle_children(os.getpid()).clear()  # those of other tests do not know this folder
        from hostile_format import Hostile

        yield Hostile(path="x")
        del sys.modules["hostile_format"]


def run(source, words: str, seconds: float = 0.3) -> list[str]:
    """Texts of documents and reasons of what was set aside, in order."""
    found = sandboxed(source, "f", words.encode(), seconds)
    return [f.text if isinstance(f, Document) else f"{f.name}: {f.reason}" for f in found]


def test_only_the_document_is_lost(hostile) -> None:
    assert run(hostile, "one loop two segfault three memory four recursion five") == [
        "one",
        "f#1: took too long to parse",
        "two",
        "f#3: crashed the parser: SIGSEGV",
        "three",
        "f#5: takes too much memory to parse",
        "four",
        "f#7: it is nested too deeply",
        "five",
    ]


def test_waiting_is_cut_off_too_and_a_first_record_is_named_as_its_file(hostile) -> None:
    assert run(hostile, "sleep two", seconds=0.03) == ["f: took too long to parse", "two"]


def test_what_splits_the_file_may_crash(hostile) -> None:
    aside = "f#2: crashed the parser: SIGABRT"
    assert run(hostile, "one two crash-while-splitting four") == [
        "one",
        "two",
        aside,
        "f#3: crashed the parser: SIGABRT; the rest was not read",
    ]


def test_a_cut_file_gives_what_is_whole(hostile) -> None:
    assert run(hostile, "one two cut") == ["one", "two", "f: nothing more can be read after record 1: EOFError: cut"]
    with pytest.raises(ValueError, match="cut"):
        run(hostile, "cut")


def test_what_a_parser_prints_is_no_reply(hostile, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(hostile, "one print three") == ["one", "print", "three"]
    assert capfd.readouterr().out == ""


def test_text_and_metadata_come_through_unchanged(hostile) -> None:
    (found,) = sandboxed(hostile, "näme", "a\x01é\U0001f600b".encode())
    assert found == Document("a\x01é\U0001f600b", "s", "MIT", "näme", {"surrogate": "\ud800"})


@pytest.mark.parametrize("word", ["full", "full-while-splitting", "database", "import"])
def test_a_fault_of_the_machine_is_not_that_of_a_file(hostile, word: str) -> None:
    for words in (word, f"one {word} two"):
        with pytest.raises(MachineFault):
            run(hostile, words)
    assert run(hostile, "one") == ["one"]


def test_a_low_limit_of_the_user_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>Text.")
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (900 << 20, 900 << 20))\n"
        "from bluejay.pile.sources.formats.html import Html\n"
        f"print(next(Html(path='x').read('{tmp_path}/a.html')).text)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"Text.\n"


def test_a_missing_parser_is_named(hostile) -> None:
    with pytest.raises(ValueError, match=r"reading hostile needs a_parser_that_nobody_has: .*pip install .*corpus"):
        run(hostile, "one import")


def test_one_child_serves_many_files_and_one_that_is_left_alone_ends() -> None:
    page = b"<p>Some text that stays."
    list(Html(path="x").read_stream("a.html", page))
    children = list(idle_children(os.getpid()))
    for _ in range(3):
        assert next(Html(path="x").read_stream("a.html", page)).text == "Some text that stays."
    assert len(list(Html(path="x").read_stream("a.html", page))) == 1
    assert idle_children(os.getpid())[:1] != [] and len(idle_children(os.getpid())) <= max(1, len(children))
    child = take_child()
    first = sandboxed(Html(path="x"), "a.html", page)
    assert isinstance(next(first), Document)
    child.stop()
    assert child.process.poll() == -signal.SIGKILL


def test_readers_may_take_turns() -> None:
    """Two files read at the same time do not mix."""
    pages = [f"<p>Page {number} of a book.".encode() for number in range(2)]
    readers = [Html(path="x").read_stream(f"{number}.html", page) for number, page in enumerate(pages)]
    assert [next(reader).text for reader in readers] == [f"Page {number} of a book." for number in range(2)]
    assert [list(reader) for reader in readers] == [[]] * 2


def test_no_child_outlives_a_killed_parent(hostile) -> None:
    # The parent reads one result and then waits, so that its child has to wait, too: replies fill the pipe.
    program = (
        "import sys; from bluejay.pile.sources.io.sandbox import sandboxed; from hostile_format import Hostile\n"
        f"found = sandboxed(Hostile(path='x'), 'f', ('word ' * 20_000).encode(), {PATIENCE})\n"
        "next(found); print(flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout and parent.stdout.readline()
            children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        finally:
            parent.kill()
    assert children
    assert eventually(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def test_files_are_opened_by_the_child(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>Text.")
    source = Html(path=f"{tmp_path}/*.html")
    (unit,) = source.units()
    assert [found.text for found in source.read(unit) if isinstance(found, Document)] == ["Text."]
    with pytest.raises(ValueError, match="cannot be read"):
        list(source.read(f"{tmp_path}/missing.html"))
    assert not any(isinstance(found, Skipped) for found in source.read(unit))
    assert MAX_DATA_BYTES == 1 << 30
