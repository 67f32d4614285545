"""Predictions for published runs match the published figures, and docs/planning.md says how well."""

from collections import Counter

import pytest

from bluejay.gpt.presets import PRESETS
from bluejay.plan.plan import SPREAD, plan
from bluejay.plan.search import best
from bluejay.recipe import load
from bluejay.train.recipe import TrainRecipe
from tests.plan.published import PAGE, ROOT, Run, documented, origins, runs

HELD_OUT = [run for run in runs() if run.role == "held out"]


def is_close(run: Run) -> bool:
    return run.ratio == pytest.approx(1.0, abs=0.2)


def test_the_page_says_what_the_code_predicts():
    assert PAGE.read_text() == documented()


def test_a_published_run_is_planned_with_the_vocabulary_of_its_model():
    recipe = load(TrainRecipe, ROOT / "recipes/train/gpt-j-6b.toml")
    [gpt_j] = [run for run in runs() if run.name == "GPT-J-6B, TPU v3-256"]
    assert gpt_j.planned.seconds.total == plan(recipe, gpt_j.machine).seconds.total  # the page shows both
    for run in runs():
        if run.init is None and "vocab_size" not in run.model:
            assert run.recipe.model["vocab_size"] == PRESETS[run.model["preset"]].vocab_size


def test_runs_that_fitted_a_constant_are_met():
    assert all(run.ratio == pytest.approx(1.0, abs=0.01) for run in runs() if run.role == "fit")


def test_most_runs_that_fitted_nothing_are_within_a_fifth_and_the_others_say_why():
    close = sum(map(is_close, HELD_OUT))
    assert len(HELD_OUT) >= 15 and close >= max(12, 0.7 * len(HELD_OUT))
    assert all(is_close(run) or run.reason for run in HELD_OUT)
    assert f"{close} of the {len(HELD_OUT)}" in PAGE.read_text()


def test_no_source_has_more_than_a_third_of_the_runs():
    assert max(Counter(origins().values()).values()) <= len(HELD_OUT) / 3


def test_what_a_plan_says_of_published_runs_holds_for_all_of_them():
    assert all(SPREAD[0] < 1 / run.ratio < SPREAD[1] for run in HELD_OUT)


@pytest.mark.slow
def test_meshes_that_no_source_states_are_the_best():
    for run in runs():
        if run.best:
            assert best(run.recipe, run.machine, [run.recompute]) == run.planned
