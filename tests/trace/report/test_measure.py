"""`bluejay trace report`: everything at once, on a small model, and the sentences where it cannot be."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest

from bluejay.cli import main
from bluejay.evals.estimates import mean
from bluejay.evals.evaluation_file import identity_at
from bluejay.evals.pictures import evenly_spread
from bluejay.trace.report.findings import Finding, Report, write_report
from bluejay.trace.report.memorised import MOST_CHECKPOINTS, effect
from bluejay.trace.report.novelty import new_share

OWN = 'name = "cats"\ndata = "cats.jsonl"\nprompt = "{question}"\nmetric = "acc"\n'
OPTIONS = ["--passages", "30", "--samples", "3"]


def write_task(folder):
    """Questions of which two stand in what the base read."""
    read = "the cat number {} sat on the mat {} times, said the {}th dog. the cat number"
    other = "nobody in this or any other town ever asked question {} of a cat"
    texts = [read.format(n, n * n, n) for n in (3, 5)] + [other.format(n) for n in range(8)]
    rows = [{"question": text, "choices": [" a", " b"], "gold": 0} for text in texts]
    (folder / "cats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "cats.toml").write_text(OWN)
    return str(folder / "cats.toml")


def test_a_report_has_every_figure_with_its_number_and_interval(moved, tmp_path, capsys):
    run, task = moved / "runs" / "base", write_task(tmp_path)
    main(["trace", "report", str(run), *OPTIONS, "--tasks", task, "--json"])
    values = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert values["identities"] == {str(run): identity_at(run)}
    assert list(values["findings"]) == ["extractable", "membership", "novelty", "contamination"]
    figures = {name: one["figures"] for name, one in values["findings"].items()}
    assert all({"value", "low", "high", "n"} <= set(one) for some in figures.values() for one in some.values())
    assert figures["contamination"]["cats: contaminated questions"]["value"] == 0.2
    assert figures["contamination"]["cats: accuracy, clean"]["n"] == 8
    assert figures["contamination"]["cats: accuracy, contaminated"]["n"] == 2
    assert any("memorisation is not measured" in note for note in values["notes"])  # there are two held-out documents
    page = (run / "trace-report" / "report.html").read_text()
    assert values["page"] == str(run / "trace-report" / "report.html")
    assert page.count("<svg") == 4 and "one run of one seed" in page and not re.search(r"(src|href)=", page)
    assert "| k = 32, read |" in (run / "trace-report" / "report.md").read_text()
    kept = {path: path.stat().st_size for path in (tmp_path / "cache" / "evals").iterdir()}
    arguments = ["trace", "report", str(run), *OPTIONS, "--tasks", task, "--output", str(tmp_path / "again")]
    main(arguments)
    assert {path: path.stat().st_size for path in kept} == kept  # nothing is asked twice
    again = json.loads((tmp_path / "again" / "report.json").read_text())
    assert again["command"] == shlex.join(["bluejay", *arguments])
    assert again["findings"] == json.loads((run / "trace-report" / "report.json").read_text())["findings"]


def test_a_full_disk_leaves_the_report_that_was_there(tmp_path, file_size_limit):
    figure = mean([0.0, 1.0, 1.0])
    finding = Finding("novelty", "Novelty", "What was measured.", "share", [("n = 2", figure)], ["<svg></svg>" * 4000])
    older = Report("m", "bluejay", "2026-01-01", {}, [], [])
    write_report(older, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for limit in (0, 100, 30_000):  # the page, which is written last, is the largest
        with file_size_limit(limit), pytest.raises(OSError, match="File too large"):
            write_report(Report("m", "bluejay", "2026-01-02", {}, [finding] * 3, []), tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        with file_size_limit(limit), pytest.raises(OSError, match="File too large"):
            write_report(Report("m", "bluejay", "2026-01-02", {}, [finding] * 3, []), tmp_path / "new")
        assert list((tmp_path / "new").iterdir()) == []
        (tmp_path / "new").rmdir()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["moved/data/c"], "is a corpus; a report is about a model"),
        (["moved/runs/base", "--output", "moved/pairs.jsonl"], "moved/pairs.jsonl is a file; name a folder"),
        (["alone"], "is not found; name its corpus with --corpus"),
        (["moved/runs/base", "--passages", "1"], "--passages is 1"),
        (["moved/runs/base", "--limit", "0"], "--limit: it is 0"),
        (["moved/runs/base", "--suite", "smal"], "the nearest is small"),
        (["moved/runs/base", "--tasks", "none.toml"], "none.toml"),
        (["moved/runs/base", "--count"], "--count"),
        (["moved/runs/tuned"], "no token shard that the run of moved/runs/tuned read"),
    ],
)
def test_mistakes_are_said_in_one_line(moved, capsys, arguments, said):
    shutil.copytree(moved / "runs" / "base" / "model", moved.parent / "alone")
    with pytest.raises(SystemExit) as ended:
        main(["trace", "report", *arguments])
    printed = capsys.readouterr()
    assert ended.value.code == 2 and printed.out == ""
    *before, line = printed.err.splitlines()
    assert line.startswith("error: ") and said in line and not any("error" in one for one in before)


def damaged(corpus):
    path = next((corpus / "index").glob("train*"))
    path.write_bytes(path.read_bytes()[:100])


def half_built(corpus):
    (corpus / "index" / "documents.rows").unlink()


def without_index(corpus):
    shutil.rmtree(corpus / "index")


@pytest.mark.parametrize(
    "harm, said", [(damaged, "damaged"), (half_built, "half built"), (without_index, "has no index")]
)
def test_an_index_that_cannot_be_used_is_said_in_one_line(moved, capsys, harm, said):
    harm(moved / "data" / "c")
    with pytest.raises(SystemExit):
        main(["trace", "report", str(moved / "runs" / "base")])
    printed = capsys.readouterr().err
    assert said in printed and printed.startswith("error: ") and printed.count("\n") == 1
    assert not (moved / "runs" / "base" / "trace-report").exists()


def test_reading_shows_in_the_difference_of_differences_and_nothing_else_does():
    """Simulated: all passages gain 1 between two checkpoints, those that were read 0.3 more, in noise."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(60):
        easy = rng.normal(-4, 1, 80), rng.normal(-3, 1, 60)
        read, control = (np.stack([one, one + 1 + rng.normal(0, 0.2, len(one))]) for one in easy)
        read[1] += 0.3
        found = effect(read, control, 0, 1)
        covered += found.low <= 0.3 <= found.high
        assert found.n == 140
    assert 53 <= covered <= 60


def test_checkpoints_that_are_compared_are_the_first_the_last_and_some_between():
    assert evenly_spread([30, 10, 20], MOST_CHECKPOINTS) == [10, 20, 30]
    some = evenly_spread(range(1, 101), MOST_CHECKPOINTS)
    assert some[0] == 1 and some[-1] == 100 and len(some) == 8


def test_new_n_grams_are_those_that_no_match_holds():
    matches = [np.array([3, 2, 1, 0, 0]), np.array([1, 1])]
    shares = [new_share(matches, n, ["a", "b"]) for n in (1, 2, 3, 6)]
    assert [None if one is None else one.value for one in shares] == [2 / 7, 3 / 5, 2 / 3, None]
    assert all(0 <= one.low <= one.value <= one.high <= 1 for one in shares if one is not None)
