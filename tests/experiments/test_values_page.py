"""The page of the claim about values says no more than its lines and both intervals allow, and what was not run."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import study
import toxic
import values
import values_page
from values_measures import rows, split, table

BEGINNINGS, QUESTIONS, PASSAGES = 30, 100, 40


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch) -> Path:
    """Folders of their own for results and pages."""
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    for module in (study, values):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


def line(run: values.Run, effect: float) -> dict:
    """A made-up run, whose good answers are likelier by `effect` nats per 100 characters on the mean; questions and
    seeds scatter."""
    questions, seeds = np.random.default_rng(0), np.random.default_rng(1 + run.seed)
    good = questions.normal(-0.8, 0.1, len(split()[1])) + seeds.normal(0, 2e-4) + effect / 100
    bits = questions.normal(400, 50, PASSAGES) + seeds.normal(0, 0.1)
    names = [f"health/{number}" for number in range(BEGINNINGS)]
    return {
        "run": run.name,
        "seed": run.seed,
        "rate": getattr(run, "rate", None),
        "nats_per_token": 3.0,
        "good": [round(float(one), 5) for one in good],
        "bad": [round(float(one), 5) for one in questions.normal(-0.8, 0.1, len(good))],
        "offensive": {name: [0.01, 0.02] for name in names},
        "agreement": [3, 1, 2, 94],
        "descriptors": [
            {"group": "man", "word": "tall", "low": 1.2, "high": 9.0},
            {"group": "man", "word": "kind", "low": 0.8, "high": 4.0},
        ],
        "right": {"piqa": "1" * 60 + "0" * 40, "sciq": "1" * 70 + "0" * 30},
        "passages": [[round(float(one), 1), 350] for one in bits],
        "minutes": 5.0,
        "processor": "a",
    }


def record(effects: dict[str, float]) -> str:
    """The page of made-up runs with an effect for each arm."""
    for run in values.RUNS:
        arm = run.name.rpartition("-")[2]
        if run.name.startswith(values.LARGER) and arm in effects:
            study.record(values.STUDY, line(run, effects[arm]))
    return values.page()


def test_without_runs_nothing_is_concluded_and_the_page_says_what_lists_them():
    page = values.page()
    assert page.count("nothing is concluded") == 2 and f"experiments/{values.STUDY}.py --list" in page


def test_an_effect_is_claimed_where_questions_and_seeds_show_it(results):
    page = record({"base": 0.0, "control": 0.1, "target": 5.0})
    assert "the target texts raise the margin of good answers against base; 100 %" in page
    assert "the target texts raise the margin of good answers against control; 100 %" in page
    assert "more than half of the runs, control: man (tall)." in page
    assert f"{values.NANO}: not all of base, control and target were run" in page
    assert f"{values.NANO}-base (seed 0)" in page
    values.picture()
    assert (results / "docs" / "claims" / values_page.PICTURE).stat().st_size > 10_000


def test_what_seeds_explain_is_not_claimed():
    page = record({"base": 0.0, "control": 0.0, "target": 0.0})
    assert page.count("are not shown to change the margin") == 2
    assert "raise the margin" not in page and "is better |" not in page


def test_a_base_that_was_measured_twice_counts_once():
    base = next(run for run in values.RUNS if run.name.endswith("base"))
    for seed in (0, 100):
        study.record(values.STUDY, line(base, 0.0) | {"seed": seed})
    assert len(values_page.runs_of(values.LARGER, "base")) == 1


def test_the_rate_is_chosen_by_the_loss_once_the_sweep_is_complete():
    sweep = [run for run in values.RUNS if run.name.startswith(f"{values.LARGER}-rate")]
    for run, loss in zip(sweep, (3.2, 2.9, 3.0), strict=True):
        assert values.best_rate(values.LARGER, 0) is None
        study.record(values.STUDY, line(run, 0.0) | {"nats_per_token": loss})
    assert values.best_rate(values.LARGER, 0) == sweep[1].rate
    assert values.best_rate(values.LARGER, 100) is None  # a second person's sweep is his own


def test_two_of_ten_questions_are_for_validation():
    validation, test = split()
    for part, n in ((validation, 2), (test, 8)):
        names = [row["category"] for row in part]
        assert {names.count(name) for name in names} == {n}
    assert len(validation) + len(test) == len(rows("held-out")) == 80


def test_kappa_is_cohens():
    assert values_page.kappa([20, 5, 10, 15]) == pytest.approx(0.4)  # the example in Wikipedia's article
    assert values_page.kappa([0, 0, 0, 9]) is None
    assert table(np.array([[0.9, 0.9], [0.9, 0.1], [0.1, 0.9], [0.1, 0.1], [0.5, 0.4]])) == [1, 2, 1, 1]


def test_the_second_classifier_is_that_of_the_package():
    """The examples in its description, computed by its authors with Keras."""
    published = {
        "I hate you so much!": 0.1395, "This is wonderful news.": 0.0013, "You're disgusting!": 0.3110,
        "Absolutely love your energy!": 0.0088, "You're the worst person ever!": 0.0937, "Have a nice day :)": 0.0115,
    }  # fmt: skip
    means = toxic.probabilities(list(published)).mean(1).tolist()
    assert means == pytest.approx(list(published.values()), abs=5e-5)
    (one,) = toxic.probabilities(["You are so dumb and stupid!"]).tolist()
    assert one == pytest.approx(
        [0.9889402985572815, 0.07256772369146347, 0.620429277420044, 0.01934845559298992, 0.8664075136184692,
         0.04072948172688484], abs=1e-5,
    )  # fmt: skip
    judged = toxic.probabilities(["You are so dumb and stupid!", "Have a nice day :)", ""])[:, 0] >= toxic.THRESHOLD
    assert judged.tolist() == [True, False, False]
