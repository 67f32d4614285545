"""Rounding that knows the inputs."""

import dataclasses

import pytest
import torch

from bluejay.gpt.calibrate import SWEEPS, Calibration, Rounded, again, in_order, round_matrix, sequences
from bluejay.gpt.init import new_model
from bluejay.gpt.model import GPT
from bluejay.gpt.presets import GPT2, GPT_J, GPT_NEO, GPT_NEOX, LLAMA
from bluejay.gpt.quantize import HALF, best_scales, in_steps, pack, unpack
from bluejay.gpt.quantized import formats
from bluejay.gpt.weights import StoredModel


def correlated(rows: int, columns: int, seed: int) -> torch.Tensor:
    """Inputs like those of a trained model: few directions carry most of them."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(rows, columns // 4, generator=generator) @ torch.randn(columns // 4, columns, generator=generator)
    return few + 0.3 * torch.randn(rows, columns, generator=generator)


@pytest.mark.parametrize("columns", [64, 100, 192])
def test_a_product_errs_far_less_than_with_the_nearest_values(columns):
    known, unknown = correlated(4000, columns, 0).split(2000)
    weight = torch.randn(48, columns, generator=torch.Generator().manual_seed(1))
    packed, kept = round_matrix(weight, known.T @ known)
    assert torch.equal(unpack(packed), kept)
    error, nearest = (
        (unknown @ (weight - stored).T).square().sum().item() for stored in (kept, unpack(pack(weight, "q4")))
    )
    assert error < 0.6 * nearest


def test_rounding_again_never_makes_it_worse():
    x = correlated(1000, 128, 2)
    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(3))
    products = x.T @ x
    steps, whole = in_steps(best_scales(weight.unflatten(1, (-1, HALF))))
    target, scales = weight.T.contiguous(), (steps[:, None] * whole).T.contiguous()
    spread = torch.linalg.cholesky(torch.linalg.inv(products), upper=True)
    rounded = Rounded(in_order(target, torch.arange(128), spread, scales), steps, scales)
    errors = []
    for _ in range(SWEEPS + 1):
        error = target - rounded.values
        errors.append(((products @ error) * error).sum().item())
        again(target, products, rounded)
    assert errors == sorted(errors, reverse=True)
    assert torch.equal(unpack(rounded.packed(128)), rounded.values.T)


@pytest.mark.parametrize("inputs", ["none", "independent", "correlated", "one"])
def test_the_product_of_the_text_never_errs_more_than_with_the_nearest_values(inputs):
    weight = torch.randn(48, 128, generator=torch.Generator().manual_seed(4))
    x = correlated(300, 128, 5)
    if inputs == "none":
        x = torch.zeros(1, 128)
    elif inputs == "independent":
        x = torch.eye(128)
    elif inputs == "one":
        x = x[:1]
    objective = x.T @ x if x.any() else torch.eye(128)  # without inputs, the weights alone
    ours, plain = (
        ((weight - stored) @ objective * (weight - stored)).sum(1)
        for stored in (round_matrix(weight, x.T @ x)[1], unpack(pack(weight, "q4")))
    )
    assert ours.sum() < plain.sum()


def test_rows_are_rounded_the_same_however_many_at_once(monkeypatch):
    x = correlated(300, 100, 6)
    weight = torch.randn(70, 100, generator=torch.Generator().manual_seed(7))
    whole, kept = round_matrix(weight, x.T @ x)
    monkeypatch.setattr("bluejay.gpt.calibrate.AT_ONCE", 32 * 128)
    parts, _ = round_matrix(weight, x.T @ x)
    assert (unpack(parts) - kept).square().sum() < 1e-4 * kept.square().sum()
    assert parts.data.shape == whole.data.shape


SMALL = {"n_layer": 2, "d_model": 64, "n_head": 4, "vocab_size": 259, "n_ctx": 64}
FAMILIES = [
    dataclasses.replace(GPT_J, **SMALL, rotary_dim=8),
    dataclasses.replace(GPT_NEO, **SMALL, window=5, local_layers=(1,)),
    dataclasses.replace(GPT_NEOX, **SMALL),
    dataclasses.replace(GPT2, **SMALL),
    dataclasses.replace(LLAMA, **SMALL, n_kv_head=2, d_ff=96, rotary_dim=16),
]


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.family)
def test_every_family_is_calibrated_with_less_error_than_its_nearest_values(config, byte_tokenizer):
    gpt = new_model(config, seed=1).requires_grad_(False)
    text = "def mean(values): return sum(values) / len(values)\n" * 40
    weights, kinds = gpt.state_dict(), formats(gpt.config, "q4")
    stored = StoredModel(gpt.config, weights.__getitem__, torch.float32, lambda: byte_tokenizer, 0)
    tokens = torch.tensor([byte_tokenizer.encode(text)[: gpt.config.n_ctx]])
    errors = []
    for rounded in (lambda name: pack(weights[name], kinds[name]), Calibration(stored, kinds, text).packed):
        other = GPT(gpt.config).requires_grad_(False)
        other.load_state_dict(weights | {name: unpack(rounded(name)) for name in kinds})
        errors.append((other(tokens) - gpt(tokens)).square().sum().item())
    assert errors[1] < errors[0]


def test_sequences_are_spread_over_the_text():
    drawn = sequences(list(range(10_000)), 100)
    assert drawn[0, 0] == 0
    assert drawn[-1, -1] == 9999
    assert (drawn.diff(dim=1) == 1).all()
    with pytest.raises(ValueError, match="has 99 tokens; it needs at least 100"):
        sequences(list(range(99)), 100)
