"""GPTQ: rounding to q4 that minimises the error of a matrix's products with given inputs.

Columns are rounded one at a time, in descending order of the size of their inputs, and the remaining columns are moved
to compensate for the error as far as the inputs are correlated (GPTQ, Frantar et al. 2022, sections 3.2 and 3.3).
Scales have least squared error, with the squares of each column multiplied by the size of its inputs. Several sweeps
follow: each refits the scales to their codes and rounds each column again with all others fixed.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import pad

from bluejay.gpt.quantization.format import BLOCK, GROUP, Blocks, inverse
from bluejay.gpt.quantization.packing import FORMATS, Packed
from bluejay.gpt.quantization.q4 import (
    HALF_GROUP,
    best_scales,
    codebook,
    nearest,
    quantize_scales,
    row_scales,
    to_blocks,
)

DAMPING = 0.01
"""Added to the diagonal of the inputs' products, in units of its mean (GPTQ, section 3.3)."""
SWEEPS = 4
"""Number of times that each column is rounded again with all others fixed."""
WEIGHTS_AT_ONCE = 1 << 25
"""Weights whose rows are rounded together, which bounds the memory."""


@dataclass
class Rounded:
    """A matrix while its columns are rounded; tensors are stored column by column."""

    values: Float[Tensor, "columns rows"]
    """The rounded weights."""
    steps: Float[Tensor, " rows"]
    scales: Float[Tensor, "halves rows"]
    """The scale of each 32 columns, a whole number of steps."""

    def packed(self) -> tuple[Blocks, UInt8[Tensor, "blocks groups1 32"]]:
        """Data and scales in q4, with rows padded to whole blocks."""
        codes = nearest(self.values * inverse(self.scales).repeat_interleave(HALF_GROUP, 0), codebook())
        grouped = codes.T.to(torch.uint8).unflatten(1, (-1, GROUP))
        scales = row_scales(self.steps, (self.scales * inverse(self.steps)).T.round())
        padding = -len(grouped) % BLOCK
        return to_blocks(pad(grouped, (0, 0, 0, 0, 0, padding)), pad(scales, (0, 0, 0, padding)))


def round_matrix(
    weight: Float[Tensor, "rows columns"],
    products: Float[Tensor, "columns columns"],
    smoothing: Float[Tensor, " columns"] | None = None,
) -> Packed:
    """Round a matrix to q4. `products` are the summed products of its inputs' columns, X^T X."""
    shape = weight.shape
    padding = -shape[1] % GROUP
    weight = pad(weight.float() if smoothing is None else weight.float() / smoothing, (0, padding))
    products = pad(products, (0, padding, 0, padding))
    diagonal = products.diagonal()
    products = products + torch.diag(torch.where(diagonal == 0, 1.0, DAMPING * diagonal.mean()))
    order = products.diagonal().argsort(descending=True)
    # The name is reused so that large matrices are freed early: a fourth one takes a gigabyte for 16,384 columns.
    inverse_factor = torch.linalg.cholesky(products[order[:, None], order])
    inverse_factor = torch.cholesky_inverse(inverse_factor)
    inverse_factor = torch.linalg.cholesky(inverse_factor, upper=True)
    parts = []
    for rows in weight.split(max(1, WEIGHTS_AT_ONCE // weight.shape[1] // BLOCK) * BLOCK):
        importance = products.diagonal().view(-1, HALF_GROUP)
        steps, whole = quantize_scales(best_scales(rows.unflatten(1, (-1, HALF_GROUP)), importance))
        target, scales = rows.T.contiguous(), (steps[:, None] * whole).T.contiguous()
        rounded = Rounded(round_columns(target, order, inverse_factor, scales), steps, scales)
        for _ in range(SWEEPS):
            refine(target, products, rounded)
        parts.append(rounded.packed())
    data, scales = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Packed(FORMATS["q4"], (shape[0], shape[1]), data, scales, smoothing)


def round_columns(
    target: Float[Tensor, "columns rows"],
    order: Int[Tensor, " columns"],
    inverse_factor: Float[Tensor, "columns columns"],
    scales: Float[Tensor, "halves rows"],
) -> Float[Tensor, "columns rows"]:
    """Round columns in the given order by GPTQ, updating the columns outside a group once per group. `inverse_factor`
    is the upper Cholesky factor of the inverse of the inputs' products, whose rows and columns are in that order."""
    moved, halves = target[order], order // HALF_GROUP
    values = torch.empty_like(target)
    for first in range(0, len(order), GROUP):
        last = first + GROUP
        errors = torch.empty(GROUP, target.shape[1])
        with one_thread():
            for column in range(first, last):
                value = nearest_values(moved[column], scales[halves[column]])
                values[order[column]] = value
                errors[column - first] = error = (moved[column] - value) / inverse_factor[column, column]
                moved[column:last].addr_(inverse_factor[column, column:last], error, alpha=-1)
        moved[last:] -= inverse_factor[first:last, last:].T @ errors
    return values


def refine(target: Float[Tensor, "columns rows"], products: Float[Tensor, "columns columns"], rounded: Rounded) -> None:
    """Refit each scale to its codes, then round each of its columns to the best value given all others. The error of
    the product never grows."""
    gradient = products @ (target - rounded.values)
    for half, first in enumerate(range(0, len(target), HALF_GROUP)):
        last = first + HALF_GROUP
        values, within = rounded.values[first:last], products[first:last, first:last]
        before, remaining = values.clone(), gradient[first:last].clone()
        codes = values * inverse(rounded.scales[half])
        change = within @ codes
        best = rounded.scales[half] + (codes * remaining).sum(0) * inverse((codes * change).sum(0))
        whole = (best * inverse(rounded.steps)).round().clamp(-127, 127)
        scale = torch.where(whole == 0, rounded.scales[half], whole * rounded.steps)
        remaining -= change * (scale - rounded.scales[half])
        values.copy_(codes * scale)
        rounded.scales[half] = scale
        with one_thread():
            for column in range(HALF_GROUP):
                value = nearest_values(values[column] + remaining[column] / within[column, column], scale)
                remaining[column:].addr_(within[column, column:], value - values[column], alpha=-1)
                values[column] = value
        gradient -= products[:, first:last] @ (values - before)


@contextmanager
def one_thread() -> Generator[None]:
    """Run torch on one thread. Rounding columns is thousands of small operations; threads that synchronise after each
    take up to twenty times as long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def nearest_values(weight: Float[Tensor, " rows"], scale: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """Each weight rounded to the nearest value of its scale."""
    values = codebook()
    return values[nearest(weight * inverse(scale), values)] * scale
