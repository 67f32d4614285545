"""The report stands alone, shows every figure with its interval, and published rows with what sets them apart."""

import json
import re
from dataclasses import replace

import pytest

from bluejay.evals.estimates import Estimate, difference
from bluejay.evals.evaluate import Comparison, Evaluation, Result, Settings
from bluejay.evals.pictures import curves
from bluejay.evals.published import ROWS
from bluejay.evals.report import write_report


@pytest.fixture
def evaluation() -> Evaluation:
    figure = Estimate(0.25, 0.18, 0.33, 0.04, 120, 118)
    one = Result(
        "hellaswag", "<ours>", "acc_norm", {"acc_norm": figure}, 120, 10_042, 0, 0.25, 1.0, {"hellaswag": "MIT"},
        ("a note",), {}, [],
    )  # fmt: skip
    other = replace(one, model="another", figures={"acc_norm": replace(figure, value=0.3)})
    pair = Comparison("hellaswag", "acc_norm", "<ours>", "another", difference([0.0, 1.0, 1.0], [1.0, 1.0, 0.0]))
    verdict = {
        "suite": "human_eval",
        "problem": "HumanEval/0",
        "model": "<ours>",
        "article": True,
        "prompt": "def f():\n",
    }
    verdicts = [{**verdict, "completion": " pass", "passed": ok, "reason": "1 < 2"} for ok in (True, False, False)]
    extra = {"command": "bluejay eval x", "verdicts": verdicts}
    return Evaluation([one, other], [pair], Settings(), {"pile/Mail": "1.0 kB of text"}, extra)


def test_the_page_needs_nothing_beside_it_and_names_what_sets_rows_apart(evaluation, tmp_path):
    page = write_report(evaluation, tmp_path / "report").read_text(encoding="utf-8")
    assert "http" not in page and "src=" not in page and "<script" not in page
    assert "&lt;ours&gt;" in page and "<ours>" not in page
    for shown in (
        "120 of 10042 questions",
        "0.18 to 0.33",
        "GPT-J-6B",
        "before its versions",
        "a note",
        "data hellaswag",
    ):
        assert shown in page
    assert "correlation" in page and "pile/Mail: 1.0 kB of text" in page
    assert '<td class="n">1<td class="n">3<td class="n">0.33 (0.061 to 0.79)' in page and "failed: 1 &lt; 2" in page


def test_a_full_disk_leaves_the_report_that_was_there(evaluation, tmp_path, file_size_limit):
    write_report(evaluation, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with file_size_limit(len(before["report.json"]) + 500), pytest.raises(OSError, match="File too large"):
        write_report(replace(evaluation, settings=Settings(seed=7)), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_markdown_and_json_hold_the_same_figures(evaluation, tmp_path):
    write_report(evaluation, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| <ours> | 0.25 | 0.18 to 0.33 | 120 | this evaluation |" in text and "GPT-3-175B" in text
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["results"][0]["figures"]["acc_norm"]["high"] == 0.33 and values["command"] == "bluejay eval x"


def test_published_rows_have_a_source_and_a_caution():
    assert len(ROWS) > 15 and all(row.source and row.caution for row in ROWS)
    assert all(0 < figure < 1 for row in ROWS for figure in row.figures.values())
    (gpt_j,) = [row for row in ROWS if row.model == "GPT-J-6B" and "hellaswag" in row.figures]
    assert gpt_j.figures == {"lambada": 0.697, "winogrande": 0.653, "hellaswag": 0.661, "piqa": 0.765}


def test_checkpoints_become_a_curve_and_samples_one_of_pass_at_k(evaluation, tmp_path):
    result, _ = evaluation.results
    of_run = [
        replace(result, model=f"run@{step}", figures={"acc_norm": replace(result.main, value=value)})
        for step, value in ((100, 0.2), (200, 0.3))
    ]
    figures = {f"pass@{k}": replace(result.main, value=value) for k, value in ((1, 0.1), (10, 0.4))}
    code = replace(result, task="bluejay-code", metric="pass@1", figures=figures)
    page = write_report(replace(evaluation, results=[*of_run, code]), tmp_path).read_text(encoding="utf-8")
    assert 'aria-label="hellaswag over training"' in page and page.count("<polyline") == 2
    assert 'aria-label="bluejay-code: pass@k"' in page and "k samples of a problem" in page


def test_pictures_tell_models_of_long_paths_apart_and_leave_out_a_line_without_points(evaluation, tmp_path):
    result, _ = evaluation.results
    names = [f"experiments/of-last-week/runs/{name}" for name in ("wide", "deep")]
    results = [replace(result, model=name) for name in names]
    page = write_report(replace(evaluation, results=results), tmp_path).read_text(encoding="utf-8")
    assert all(re.search(f"<text [^>]*>…[^<]*runs/{name}</text>", page) for name in ("wide", "deep"))
    drawn = curves("new n-grams", "n", {"model": [], "text": [(1.0, result.main), (2.0, result.main)]})
    assert ">text</text>" in drawn and ">model</text>" not in drawn


def test_an_interval_that_is_not_a_number_leaves_the_picture_whole(evaluation, tmp_path):
    result, _ = evaluation.results
    nan = float("nan")
    unsure = replace(result.main, low=nan, high=nan)
    results = [replace(result, model=f"run@{step}", figures={"acc_norm": unsure}) for step in (1, 2)]
    page = write_report(replace(evaluation, results=results), tmp_path).read_text(encoding="utf-8")
    texts = [page, *((tmp_path / name).read_text(encoding="utf-8") for name in ("report.md", "report.json"))]
    assert not any(re.search(r"\bnan\b", text, re.IGNORECASE) for text in texts)  # which JSON does not know either
    assert (
        "| run@1 | 0.25 | - | 120 |" in texts[1]
        and json.loads(texts[2])["results"][0]["figures"]["acc_norm"]["low"] is None
    )
