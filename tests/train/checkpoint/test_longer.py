"""A finished run continues with more tokens, and what it had made is kept."""

import math

import pytest

import bluejay
from bluejay.train.loop import export, train
from bluejay.train.recipe import Checkpoint
from bluejay.train.report.metrics import read_metrics

SHORT = ("--train.tokens", "1280", "--train.schedule.warmup", "0")
CONSTANT = ("--train.schedule.kind", "constant")
WSD = ("--train.schedule.kind", "wsd", "--train.schedule.cooldown", "0.25")


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [pytest.param(CONSTANT, id="constant"), pytest.param(WSD, id="wsd")])
def test_more_tokens_give_the_weights_of_the_longer_run(schedule, recipe_file, load_recipe, weights, tmp_path, capsys):
    train(load_recipe(recipe_file, *schedule, "--train.schedule.warmup", "0"))
    shorter = weights(tmp_path / "run")
    longer = (*schedule, "--train.schedule.warmup", "0", "--train.tokens", "7680")
    train(load_recipe(recipe_file, *longer))
    step = {CONSTANT: 40, WSD: 30}[schedule]
    assert f"the run of 40 steps continues to 60 from step {step}" in capsys.readouterr().err
    train(load_recipe(recipe_file, *longer, "--output", f"{tmp_path}/whole"))
    assert weights(tmp_path / "run") == weights(tmp_path / "whole") != shorter
    assert (tmp_path / "run/model-step-40/model.safetensors").read_bytes() == shorter
    assert bluejay.load(tmp_path / "run/model-step-40").generate("abc", bluejay.SamplingParams(max_tokens=1))
    rows = [
        [row for row in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in row] for name in ("run", "whole")
    ]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]


@pytest.mark.slow
def test_a_cosine_that_is_extended_says_that_its_rate_rises_again(recipe_file, load_recipe, capsys):
    train(load_recipe(recipe_file))
    train(load_recipe(recipe_file, "--train.tokens", "10240"))
    said = capsys.readouterr().err
    assert "continues to 80 from step 40; the learning rate was 1.0" in said and "e-03 there and is 5." in said


def test_a_mixture_that_changes_and_fewer_tokens_are_refused(recipe_file, load_recipe, tmp_path):
    changing = f'[{{shards = "{tmp_path}/tokens/train", changes = [[0.5, 2.0]]}}]'
    train(load_recipe(recipe_file, "--data.train", changing, "--train.tokens", "512"))
    with pytest.raises(ValueError, match="changes at fractions of its 512 tokens, so it cannot continue with more"):
        train(load_recipe(recipe_file, "--data.train", changing, "--train.tokens", "1024"))
    with pytest.raises(ValueError, match="a run of 4 steps, which may get more, but not fewer, such as 2; "):
        train(load_recipe(recipe_file, "--data.train", changing, "--train.tokens", "256"))


def test_models_are_kept_at_shares_of_a_run(recipe_file, load_recipe, tmp_path):
    train(load_recipe(recipe_file, "--checkpoint.at", "[0.01, 0.1, 0.75]"))
    assert sorted(path.name for path in (tmp_path / "run").glob("model*")) == [
        "model", "model-step-1", "model-step-30", "model-step-4",
    ]  # fmt: skip
    losses = [
        bluejay.load(path).score("abcdefgh").bits_per_byte for path in sorted((tmp_path / "run").glob("model-step-*"))
    ]
    assert all(map(math.isfinite, losses)) and losses[0] > losses[2] > losses[1]


def test_what_a_finished_run_made_is_kept_where_the_longer_run_keeps_a_model(
    recipe_file, load_recipe, weights, tmp_path, capsys
):
    run = tmp_path / "run"
    train(load_recipe(recipe_file, *WSD, *SHORT))
    cooled, longer = weights(run), (*WSD, *SHORT[2:], "--train.tokens", "2560", "--checkpoint.at", "[0.5]")
    train(load_recipe(recipe_file, *longer))
    assert (run / "model-step-10.other" / "model.safetensors").read_bytes() == cooled
    assert "model-step-10 is not as this run writes it; renamed to model-step-10.other" in capsys.readouterr().err
    kept = (run / "model-step-10" / "model.safetensors").read_bytes()
    assert kept != cooled
    (run / "model-step-20").mkdir()
    train(load_recipe(recipe_file, *longer[:-4], "--train.tokens", "5120"))
    assert (run / "model-step-20.other").is_dir() and (run / "model-step-20" / "model.safetensors").is_file()


def test_a_model_that_was_asked_for_too_late_is_named_with_what_writes_it(recipe_file, load_recipe, tmp_path, capsys):
    late = load_recipe(recipe_file, *SHORT, "--checkpoint.at", "[0.7]")
    train(load_recipe(recipe_file, *SHORT))
    for _ in range(2):
        train(late)
        said = capsys.readouterr().err
        assert "no model was kept after step 7, which the run is past; --export N" in said and "of step 7, 10" in said
    export(late, 7)
    (tmp_path / "run" / "model-step-7" / "mine.txt").touch()
    export(late, 7)
    capsys.readouterr()
    train(late)
    assert "checkpoint.at" not in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "run").glob("model-*")) == ["model-step-7"]


def test_the_model_of_a_shorter_run_is_one_that_the_longer_run_was_asked_for(
    recipe_file, load_recipe, tmp_path, capsys
):
    at = (*CONSTANT, *SHORT[2:], "--checkpoint.at", "[0.5]", "--train.tokens")
    for tokens in ("1280", "2560", "2560"):
        train(load_recipe(recipe_file, *at, tokens))
        assert "WARNING" not in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "run").glob("model-*")) == ["model-step-10", "model-step-5"]


def test_more_tokens_within_the_same_steps_are_no_longer_run(recipe_file, load_recipe, weights, tmp_path, capsys):
    tokens = (*SHORT[2:], "--train.tokens")
    train(load_recipe(recipe_file, *WSD, *tokens, "1250"))
    before = weights(tmp_path / "run")
    for same in ("1280", "1160"):
        train(load_recipe(recipe_file, *WSD, *tokens, same))
    assert "continues" not in capsys.readouterr().err and weights(tmp_path / "run") == before
    assert not list((tmp_path / "run").glob("model?*"))
    with pytest.raises(ValueError, match=r'train\.schedule\.kind "wsd", not "constant"'):
        train(load_recipe(recipe_file, *CONSTANT, *tokens, "1280"))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, math.nan])
def test_a_share_outside_the_run_is_refused(share):
    with pytest.raises(ValueError, match=r"checkpoint\.at has"):
        Checkpoint(at=(0.5, share))
