"""AdamW decays matrices alone; Muon turns the matrices of the blocks."""

import pytest
import torch

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.train.optimizer import adamw, make_optimizer, refuse, uses_muon
from bluejay.train.recipe import Optimizer


def step_with_equal_gradients(optimizer, model, other):
    """Give both models the same random gradients, and take a step of the first one's optimizer at a rate of 0.01."""
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        mine.grad = torch.randn_like(mine)
        theirs.grad = mine.grad.clone()
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    optimizer.step()


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
    step_with_equal_gradients(muon, model, other)
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


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_refused_step_changes_nothing_and_another_is_as_ever(kind):
    models = [new_model(GPTConfig(n_layer=1, d_model=32, n_head=1, vocab_size=50, n_ctx=8), 0) for _ in range(2)]
    plain, guarded = (make_optimizer(model, Optimizer(kind=kind, weight_decay=0.1)) for model in models)
    torch.manual_seed(0)
    for number in range(4):
        for mine, theirs in zip(*(model.parameters() for model in models), strict=True):
            mine.grad = torch.randn_like(mine)
            theirs.grad = mine.grad.clone() if number != 2 else torch.full_like(mine, torch.nan)
        for optimizer in (plain, guarded):
            for group in optimizer.param_groups:
                group["lr"] = 0.01
        refuse(guarded, torch.tensor(float(number == 2)))
        guarded.step()
        if number != 2:
            plain.step()
    for mine, theirs in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(mine, theirs)
        for name, value in plain.state[mine].items():
            assert torch.equal(value, guarded.state[theirs][name]), name


def test_muon_is_that_of_torch_to_the_bit():
    models = [new_model(GPTConfig(n_layer=1, d_model=32, n_head=1, vocab_size=50, n_ctx=8), 0) for _ in range(2)]
    ours = make_optimizer(models[0], Optimizer(kind="muon", weight_decay=0.1))
    matrices = [p for name, p in models[1].named_parameters() if uses_muon(name, p)]
    theirs = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    torch.manual_seed(0)
    for _ in range(3):
        step_with_equal_gradients(ours, *models)
        theirs.step()
    after = dict(models[0].named_parameters())
    assert all(torch.equal(after[name], p) for name, p in models[1].named_parameters() if uses_muon(name, p))
