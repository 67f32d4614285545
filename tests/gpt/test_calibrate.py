"""Rounding that knows the inputs."""

import pytest
import torch

from bluejay.gpt.calibrate import SWEEPS, Rounded, again, in_order, round_matrix, sequences
from bluejay.gpt.quantize import HALF, best_scales, in_steps, pack, unpack


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
    rounded = Rounded(in_order(target, products, scales), steps, scales)
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


def test_sequences_are_spread_over_the_text():
    drawn = sequences(list(range(10_000)), 100)
    assert drawn[0, 0] == 0
    assert drawn[-1, -1] == 9999
    assert (drawn.diff(dim=1) == 1).all()
    with pytest.raises(ValueError, match="has 99 tokens; it needs at least 100"):
        sequences(list(range(99)), 100)
