"""The schedule is GPT-3's: linear warm-up, cosine, floor."""

import math

import pytest
import torch

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.train.optimizer import adamw, learning_rate, make_optimizer
from bluejay.train.recipe import Optimizer, Schedule


def test_gpt_js_schedule_at_its_own_steps():
    # GPT-J: warm-up 3,000, cosine over 300,000, then 1.2e-5 flat, of 350,000 steps at a peak of 1.2e-4.
    schedule = Schedule(warmup=3000 / 350_000, decay=303_000 / 350_000, final=0.1)

    def rate(step):
        return learning_rate(step, 350_000, 1.2e-4, schedule)

    assert rate(1500) == pytest.approx(0.6e-4, rel=1e-3)
    assert rate(3000) == pytest.approx(1.2e-4)
    for step in (50_000, 153_000, 250_000):
        cosine = 1.2e-4 - (1.2e-4 - 1.2e-5) * (1 - math.cos(math.pi * (step - 3000) / 300_000)) / 2
        assert rate(step) == pytest.approx(cosine)
    assert rate(303_000) == rate(349_999) == pytest.approx(1.2e-5)


def test_a_short_run_rises_then_falls_and_never_stands_still():
    rates = [learning_rate(step, 100, 1.0, Schedule(warmup=0.1, final=0.0)) for step in range(100)]
    assert rates[0] > 0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == 1.0


def test_decay_shrinks_matrices_and_spares_biases_and_norms():
    model = new_model(GPTConfig(n_layer=1, d_model=16, n_head=1, vocab_size=20, n_ctx=8), 0)
    optimizer = adamw(model, Optimizer(weight_decay=0.5))
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(p) for name, p in model.named_parameters() if p.ndim == 2}


def test_muon_turns_the_matrices_of_the_blocks_and_leaves_the_rest_to_adamw():
    # Its updates are orthogonal up to a factor of 0.5 to 1.5 and as long as AdamW's: 0.2 a weight (root mean square).
    model, other = (new_model(GPTConfig(n_layer=1, d_model=32, n_head=1, vocab_size=50, n_ctx=8), 0) for _ in range(2))
    muon = make_optimizer(model, Optimizer(kind="muon", weight_decay=0.0))
    adam = torch.optim.AdamW(other.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    torch.manual_seed(0)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        mine.grad = torch.randn_like(mine)
        theirs.grad = mine.grad.clone()
    for group in muon.param_groups:
        group["lr"] = 0.01
    muon.step()
    adam.step()
    after = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        if name.startswith("blocks.") and parameter.ndim == 2:
            sizes = torch.linalg.svdvals(before[name] - parameter.detach()) / (0.01 * 0.2 * max(parameter.shape) ** 0.5)
            assert 0.4 < sizes.min() < sizes.max() < 1.6
            assert set(muon.state[parameter]) == {"momentum_buffer"}
        else:
            torch.testing.assert_close(parameter, after[name])
            assert {"exp_avg", "exp_avg_sq"} < set(muon.state[parameter])
    muon.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_is_frozen_is_not_in_the_optimizer():
    model = new_model(GPTConfig(n_layer=1, d_model=16, n_head=1, vocab_size=20, n_ctx=8), 0)
    model.embed.requires_grad_(False)
    for kind in ("adamw", "muon"):
        optimizer = make_optimizer(model, Optimizer(kind=kind))
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_constant_rate_stays_at_the_peak_after_the_warm_up():
    rates = [learning_rate(step, 100, 2.0, Schedule("constant", warmup=0.1)) for step in range(100)]
    assert rates[:10] == sorted(rates[:10]) and rates[0] > 0 and set(rates[10:]) == {2.0}


@pytest.mark.parametrize("steps", [5, 97, 100, 1000])
def test_wsd_stays_at_the_peak_and_falls_along_one_minus_the_root(steps):
    # Haegele et al. 2024, equation 1 with f(n) = 1 - sqrt((n - n_stable) / n_decay); it ends at its floor.
    schedule = Schedule("wsd", warmup=0.1, cooldown=0.2, final=0.05)
    stable = schedule.cooldown_step(steps)
    rates = [learning_rate(step, steps, 1.0, schedule) for step in range(steps)]
    assert set(rates[math.ceil(0.1 * steps) : stable]) == {1.0}
    falls = [0.05 + 0.95 * (1 - math.sqrt(done / (steps - stable))) for done in range(1, steps - stable + 1)]
    assert rates[stable:] == pytest.approx(falls) and rates[-1] == pytest.approx(0.05)


@pytest.mark.parametrize("wrong", [{"cooldown": 0.0}, {"cooldown": 1.1}, {"warmup": 0.5, "cooldown": 0.6}])
def test_a_cooldown_that_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match="cooldown above 0 and at most 1 - warmup"):
        Schedule("wsd", **wrong)
