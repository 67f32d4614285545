"""`bluejay index` and `bluejay trace` on the command line."""

import io
import json
import sys

import pytest

from bluejay.cli import main
from bluejay.trace import Index
from tests.trace.conftest import ANSWER

TEXT = "number 7 sat on the mat 49 times"


def printed(capsys, *arguments: object) -> dict:
    """What a verb prints with --json."""
    main([*map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_model_is_traced_with_what_it_found_unlikely_and_what_is_around(moved, capsys):
    found = printed(capsys, "trace", moved / "runs" / "tuned" / "model", f"{ANSWER} {TEXT}", "--snippets", 6)
    assert {"start", "end", "start_char", "end_char", "count", "documents"} <= set(found["spans"][0])
    documents = [document for span in found["spans"] for document in span["documents"]]
    keys = {"id", "source", "licence", "component", "offset", "steps", "url", "split", "snippet"}
    assert all(keys <= set(document) for document in documents)
    assert {"source 7", "pairs.jsonl"} <= {document["source"] for document in documents}
    assert all(row["logprob"] < 0 for row in found["infinigram"]) and found["notes"] == []


def test_in_the_terminal_each_span_has_its_documents(moved, capsys):
    main(["trace", str(moved / "runs" / "base"), TEXT, "--snippets", "6"])
    text = capsys.readouterr().out
    assert "quoted" in text and "source 7 · all · licence MIT · train · https://example.org/7" in text
    assert "cut between sequences, read in parts at step" in text and "the cat [number 7" in text
    main(["trace", str(moved / "data" / "c"), TEXT])
    assert "read at" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["dumb", "xterm"])
def test_only_a_terminal_that_can_underline_is_sent_the_codes(name, moved, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", name)
    main(["trace", str(moved / "data" / "c"), TEXT])
    assert ("\x1b" in capsys.readouterr().out) is (name == "xterm")


def test_how_often_and_what_follows(moved, capsys):
    model = moved / "runs" / "base"
    for text in ("number 7 sat", "number 7\a sat"):  # normalised as the texts of a corpus are
        found = printed(capsys, "trace", model, text, "--count")
        assert (found["count"], found["count_after_space"]) == (3, 3)
    found = printed(capsys, "trace", model, "he cat number 7", "--count")  # in the corpus always within a word
    assert (found["count"], found["count_after_space"]) == (0, 0)
    found = printed(capsys, "trace", model, "number 7 sat on the ", "--next")
    assert found["corpus"][0] == {"token": found["corpus"][0]["token"], "text": "'m'", "count": 3}
    assert len(found["model"]) == 10 and 0 < found["model"][0]["probability"] < 1
    long = printed(capsys, "trace", model, "x" * 5000 + " number 7 sat on the ", "--next")  # longer than the context
    assert long["corpus"] == found["corpus"] and len(long["model"]) == 10


@pytest.mark.parametrize(
    "options, message",
    [
        (["x", "--min-tokens", "0"], "--min-tokens: it is 0"),
        (["x", "--documents", "99"], "documents is 99; it must be from 1 to 32"),
        (["x", "--snippets", "-1"], "--snippets: it is -1"),
        ([""], "the text is empty"),
        (["x", "--count", "--without-model"], "--without-model does not go with --count"),
        (["x", "--count", "--min-tokens", "3"], "--min-tokens does not go with --count"),
        (["x", "--next", "--snippets", "6"], "--snippets does not go with --next"),
    ],
)
def test_a_users_mistake_is_one_line(moved, capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        main(["trace", str(moved / "data" / "c"), *options])
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["trace", "data", "x"], "data is neither a model or its run, nor a corpus"),
        (["trace", "", "x"], "the empty name is neither"),
        (["trace", "runs/base", "the cat", "--corpus", "nowhere"], "nowhere is not a corpus"),
        (["index", "nowhere", "--check"], "nowhere is not a corpus"),
        (["trace", "data/c", "-"], "standard input is not UTF-8 text: invalid start byte at byte 4"),
        (["trace", "influence", "runs/base", "-"], "standard input is not UTF-8 text"),
    ],
    ids=["folder", "empty", "corpus", "check", "stdin", "influence"],
)
def test_what_is_not_there_or_no_text_is_one_line(moved, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(moved)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"the \xff cat"), encoding="utf-8"))
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_a_text_of_which_nothing_occurs_is_followed_by_what_is_frequent(moved, capsys):
    main(["trace", str(moved / "data" / "c"), "%%%", "--next"])
    assert "no end of the text occurs; of all tokens these are the most frequent" in capsys.readouterr().out


def test_the_whole_index_can_be_checked(moved, capsys):
    assert printed(capsys, "index", moved / "data" / "c", "--check")["tokens"] == 5058
    with pytest.raises(SystemExit, match="2"):
        main(["index", str(moved / "data" / "c"), "--shard-tokens", "0"])
    assert "--shard-tokens: it is 0" in capsys.readouterr().err


RECIPE = """
name = "tiny"
output = "{path}/corpus"
tokenizer = {{ train = {{ vocab_size = 300, sample = "1 MB" }} }}
{index}

[[component]]
name = "Notes"
licence = "MIT"
source = [{{ kind = "tree", path = "{path}/notes", include = ["*.txt"] }}]
"""


def test_a_recipe_may_ask_for_the_index_and_a_new_build_keeps_it(tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    for number in range(30):
        (tmp_path / "notes" / f"{number}.txt").write_text(f"note {number} says {number**5} and no more\n" * 9)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(path=tmp_path, index=""))
    main(["pile", "build", str(recipe)])
    assert not (tmp_path / "corpus" / "index").exists()
    recipe.write_text(RECIPE.format(path=tmp_path, index="index = true"))
    assert printed(capsys, "pile", "build", recipe)["fresh"] is False
    assert Index(tmp_path / "corpus").count(" says 243 and") == 9
    before = {path.name: path.stat().st_ino for path in (tmp_path / "corpus" / "index").glob("*.suffixes")}
    assert printed(capsys, "pile", "build", recipe, "--jsonl", "true")["fresh"] is True
    after = {path.name: path.stat().st_ino for path in (tmp_path / "corpus" / "index").glob("*.suffixes")}
    assert before == after and Index(tmp_path / "corpus").count(" says 243 and") == 9
    recipe.write_text(RECIPE.format(path=tmp_path, index="").replace("MIT", "CC0-1.0"))
    main(["pile", "build", str(recipe)])
    with pytest.raises(ValueError, match="half built; run bluejay index"):
        Index(tmp_path / "corpus")  # the licences that it knew are not those of the documents
    assert printed(capsys, "index", tmp_path / "corpus")["built"] == 0
    assert Index(tmp_path / "corpus").documents.read("train", [0])[0].licence == "CC0-1.0"
