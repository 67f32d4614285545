"""The guard refuses what is no number, and by policy what is far outside the usual."""

import dataclasses
import math
import os
import random
import signal
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bluejay.cli import main
from bluejay.train import loop
from bluejay.train.checkpoint.state import State
from bluejay.train.data.batches import document_starts
from bluejay.train.distributed.parallel import World
from bluejay.train.loop import Run, train
from bluejay.train.recipe import Guard
from bluejay.train.report.metrics import read_metrics
from bluejay.train.step import SPIKE_WINDOW, Gradient, advance, spike_reason
from tests.waiting import PATIENCE

START = State(0, {}, "", "float32", 0.0)


def history(count: int, guard: Guard) -> State:
    """A state after `count` steps of a loss about 3 and a norm about 1."""
    draw, state = random.Random(0), START
    for _ in range(count):
        state = advance(state, Gradient(3 + draw.gauss(0, 0.1), 1 + draw.gauss(0, 0.05)), None, guard)
    return state


@pytest.mark.parametrize("policy", ["keep", "skip", "back"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused_by_every_policy(policy, number):
    guard = Guard(spike=policy)
    assert "loss is" in str(spike_reason(Gradient(number, 1.0), START, guard))
    assert "gradient norm is" in str(spike_reason(Gradient(3.0, number), START, guard))
    assert spike_reason(Gradient(3.0, 1.0), START, guard) is None


def test_a_spike_is_what_numpy_finds_far_above_the_window():
    guard = Guard(spike="skip", sigma=4.0)
    state = history(200, guard)
    losses, norms = np.array(state.recent[-SPIKE_WINDOW:]).T
    assert len(losses) == SPIKE_WINDOW
    for values, make in ((losses, lambda x: Gradient(x, 1.0)), (norms, lambda x: Gradient(3.0, x))):
        limit = float(values.mean() + 4 * values.std())
        assert spike_reason(make(limit - 1e-6), state, guard) is None
        assert "that of recent steps" in str(spike_reason(make(limit + 1e-6), state, guard))
    assert spike_reason(Gradient(0.1, 0.01), state, guard) is None


def test_no_judgement_without_history_and_none_where_it_is_not_wanted():
    spike = Gradient(100.0, 100.0)
    assert spike_reason(spike, history(SPIKE_WINDOW // 2 - 1, Guard(spike="skip")), Guard(spike="skip")) is None
    assert spike_reason(spike, history(SPIKE_WINDOW // 2, Guard(spike="skip")), Guard(spike="skip")) is not None
    assert spike_reason(spike, history(SPIKE_WINDOW, Guard()), Guard()) is None


def test_skipped_steps_are_counted_and_forgotten_by_what_is_usual():
    guard = Guard(spike="skip")
    state = history(100, guard)
    worse = advance(advance(state, Gradient(math.nan, 1.0), "nan", guard), Gradient(9.0, 1.0), "spike", guard)
    assert (worse.step, worse.skipped, worse.consecutive_skips, worse.recent) == (102, 2, 2, state.recent)
    assert dataclasses.replace(advance(worse, Gradient(3.0, 1.0), None, guard), recent=()).consecutive_skips == 0


@pytest.mark.parametrize(("precision", "products"), [("float32", "highest"), ("tf32", "high")])
def test_products_are_rounded_to_tf32_only_where_the_recipe_says_so(recipe_file, load_recipe, precision, products):
    try:
        train(load_recipe(recipe_file, "--train.precision", precision, "--train.tokens", "128"))
        assert torch.get_float32_matmul_precision() == products
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_masked_document_takes_its_own_tokens_from_the_gradient_and_changes_nothing_else(recipe_file, load_recipe):
    recipe = load_recipe(recipe_file, "--train.clip", "1e9", "--train.precision", "float32")
    part = dataclasses.replace(recipe.data.train[0], masked=(3, 17, 18, 19, *range(30, 50)))
    less = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, train=(part,)))
    whole, masked = (Run(one, World(torch.device("cpu"))) for one in (recipe, less))
    batch, same = (run.batches.batch(5, (0, 1)) for run in (whole, masked))
    assert torch.equal(batch.inputs, same.inputs) and torch.equal(batch.targets, same.targets)
    kept = same.weights
    assert kept is not None and 0 < kept.sum() < kept.numel()
    model = whole.model
    starts = document_starts(batch.inputs, whole.tokenizer.eot)
    nats = F.cross_entropy(model(batch.inputs, document_start=starts).transpose(1, 2), batch.targets, reduction="none")
    ((nats * kept).sum() / whole.recipe.train.batch_tokens).backward()
    expected = {name: weight.grad for name, weight in model.named_parameters()}
    masked.stepper.gradient(same)
    for name, weight in masked.model.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_a_batch_of_which_nothing_is_to_be_learnt_has_no_loss_and_no_gradient(recipe_file, load_recipe, tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 2)
    sets = f'[{{shards = "{tmp_path}/tokens/train"}}, {{shards = "{tmp_path}/pairs.jsonl", weight = 1e-3}}]'
    run = Run(load_recipe(recipe_file, "--data.train", sets), World(torch.device("cpu")))
    batch = run.batches.batch(0, (0, 1))
    gradient = run.stepper.gradient(dataclasses.replace(batch, weights=torch.zeros(batch.targets.shape)))
    assert (gradient.loss, gradient.norm) == (0.0, 0.0)
    assert not any(weight.grad.any() for weight in run.model.parameters())


def losses_and_skips(directory: Path) -> list[tuple[int, float, str | None]]:
    rows = read_metrics(directory / "metrics.jsonl")
    return [(row["step"], row["loss"], row.get("skipped")) for row in rows if "loss" in row]


def train_reading_late(*arguments: str) -> None:
    """Train as on a GPU, which decides itself which steps are skipped."""
    with mock.patch.object(loop, "reads_late", lambda device: True):
        main(["train", *arguments])


SPIKES = ("--guard.spike", "skip", "--guard.sigma", "1", "--train.tokens", "25600", "--train.precision", "float32")
SPIKES += ("--checkpoint.every_steps", "100", "--evaluate.every_steps", "100")
"""Many steps are skipped once half of the window is full."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_what_is_read_a_step_later_changes_nothing(recipe_file, load_recipe, weights, tmp_path, monkeypatch, kind):
    settings = (*SPIKES, "--train.optimizer.kind", kind)
    train(load_recipe(recipe_file, *settings))
    there = losses_and_skips(tmp_path / "run")
    assert 3 < sum(skipped is not None for *_, skipped in there) < 30
    late = (*settings, "--output", str(tmp_path / "late"))
    rate = loop.learning_rate

    def interrupt(step, *others):
        if step == 170:
            os.kill(os.getpid(), signal.SIGINT)
        return rate(step, *others)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(loop, "learning_rate", interrupt)
        train_reading_late(str(recipe_file), *late)
    assert not (tmp_path / "late" / "model").exists()
    train_reading_late(str(recipe_file), *late)
    assert losses_and_skips(tmp_path / "late") == there
    assert weights(tmp_path / "late") == weights(tmp_path / "run")


@pytest.mark.parametrize(
    "guard", [(), ("--guard.spike", "back"), ("--guard.patience", "1", "--checkpoint.every_steps", "2")]
)
def test_a_run_that_diverges_stops_or_goes_back_when_read_late(recipe_file, load_recipe, tmp_path, capsys, guard):
    bad = ("--train.lr", "1e30", *guard)
    with pytest.raises(SystemExit):
        train_reading_late(str(recipe_file), *bad, "--output", str(tmp_path / "late"))
    said = capsys.readouterr().err
    with pytest.raises(ValueError, match=r"skipped in a row: .* its (loss|gradient)|that are not finite") as raised:
        train(load_recipe(recipe_file, *bad))
    assert f"error: {raised.value}" in said


@pytest.mark.slow
def test_so_it_is_in_several_processes(processes, recipe_file, load_recipe, tmp_path):
    train(load_recipe(recipe_file, *SPIKES))
    mesh = (*SPIKES, "--mesh.shard", "2", "--output", str(tmp_path / "two"))
    for process in processes(train_reading_late, str(recipe_file), *mesh, count=2):
        process.join(4 * PATIENCE)
        assert process.exitcode == 0, (tmp_path / "stderr-0").read_text()
    alone, two = (losses_and_skips(tmp_path / name) for name in ("run", "two"))
    assert [loss for _, loss, _ in two] == pytest.approx([loss for _, loss, _ in alone], rel=1e-3)
    assert [bool(skipped) for *_, skipped in two] == [bool(skipped) for *_, skipped in alone]
