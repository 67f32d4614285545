"""Rounding that knows the inputs."""

import pytest
import torch

from bluejay.gpt.quantization.gptq import SWEEPS, Rounded, refine, round_columns, round_matrix
from bluejay.gpt.quantization.packing import QUANTISED, Packed, pack, unpack
from bluejay.gpt.quantization.q4 import HALF_GROUP, best_scales, quantize_scales

Q4 = QUANTISED["q4"]


def correlated(rows: int, columns: int, seed: int) -> torch.Tensor:
    """Inputs like those of a trained model: few directions carry most of them."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(rows, columns // 4, generator=generator) @ torch.randn(columns // 4, columns, generator=generator)
    return few + 0.3 * torch.randn(rows, columns, generator=generator)


@pytest.mark.parametrize("columns", [64, 100, 192])
def test_a_product_errs_far_less_than_with_the_nearest_values(columns):
    known, unknown = correlated(4000, columns, 0).split(2000)
    weight = torch.randn(48, columns, generator=torch.Generator().manual_seed(1))
    error, nearest = (
        (unknown @ (weight - unpack(packed)).T).square().sum().item()
        for packed in (round_matrix(weight, known.T @ known), pack(weight, Q4))
    )
    assert error < 0.6 * nearest


def test_rounding_again_never_makes_it_worse():
    x = correlated(1000, 128, 2)
    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(3))
    products = x.T @ x
    halves = weight.unflatten(1, (-1, HALF_GROUP))
    steps, whole = quantize_scales(best_scales(halves, torch.ones(4, HALF_GROUP)))
    target, scales = weight.T.contiguous(), (steps[:, None] * whole).T.contiguous()
    inverse_factor = torch.linalg.cholesky(torch.linalg.inv(products), upper=True)
    rounded = Rounded(round_columns(target, torch.arange(128), inverse_factor, scales), steps, scales)
    errors = []
    for _ in range(SWEEPS + 1):
        error = target - rounded.values
        errors.append(((products @ error) * error).sum().item())
        refine(target, products, rounded)
    assert errors == sorted(errors, reverse=True)
    assert torch.equal(unpack(Packed(Q4, (16, 128), *rounded.packed())), rounded.values.T)


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
        ((weight - unpack(packed)) @ objective * (weight - unpack(packed))).sum(1)
        for packed in (round_matrix(weight, x.T @ x), pack(weight, Q4))
    )
    assert ours.sum() < plain.sum()


def test_rows_are_rounded_the_same_however_many_at_once(monkeypatch):
    x = correlated(300, 100, 6)
    weight = torch.randn(70, 100, generator=torch.Generator().manual_seed(7))
    whole = round_matrix(weight, x.T @ x)
    monkeypatch.setattr("bluejay.gpt.quantization.gptq.WEIGHTS_AT_ONCE", 32 * 128)
    parts = round_matrix(weight, x.T @ x)
    assert (unpack(parts) - unpack(whole)).square().sum() < 1e-4 * unpack(whole).square().sum()
    assert parts.data.shape == whole.data.shape
