"""AdamW decays matrices alone; Muon turns the matrices of the blocks."""

import torch

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.train.optimizer import adamw, make_optimizer
from bluejay.train.recipe import Optimizer


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
