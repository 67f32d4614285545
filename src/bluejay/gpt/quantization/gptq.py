"""Rounding that knows what a matrix multiplies: GPTQ.

A matrix is rounded a column at a time, those of the largest inputs first, and the columns still to come are moved so
that they make up for the error, as far as the inputs are correlated (GPTQ, Frantar et al. 2022, sections 3.2 and 3.3).
Scales are those of least squared error with each column's weighted by the size of its inputs. Then each scale is
fitted again to the codes it has, and each column rounded again, given all the others, until little changes.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bluejay.gpt.quantization.packing import (
    BLOCK,
    CODE,
    GROUP,
    HALF,
    Packed,
    best_scales,
    in_steps,
    inverse,
    nearest,
    pack_q4,
)

DAMPING = 0.01
"""Added to the diagonal of the inputs' products, in units of its mean (GPTQ, section 3.3)."""
SWEEPS = 4
"""How often columns are rounded again, given all the others."""
AT_ONCE = 1 << 25
"""Weights whose rows are rounded together, which bounds the memory."""


@dataclass
class Rounded:
    """A matrix in q4 as its columns are rounded one by one: everything lies column by column."""

    values: Float[Tensor, "columns rows"]
    """What the codes stand for."""
    steps: Float[Tensor, " rows"]
    scales: Float[Tensor, "halves rows"]
    """Of each 32 columns; whole numbers of steps, times the steps."""

    def packed(self, columns: int) -> Packed:
        """The matrix without the columns that fill its last group."""
        codes = nearest(self.values * inverse(self.scales).repeat_interleave(HALF, 0), code_values())
        grouped = codes.T.to(torch.uint8).unflatten(1, (-1, GROUP))
        return pack_q4(grouped, self.steps, (self.scales * inverse(self.steps)).T.round(), columns)


def round_matrix(weight: Float[Tensor, "rows columns"], products: Float[Tensor, "columns columns"]) -> Packed:
    """A matrix in q4; `products` are the sums of its inputs' products (X^T X)."""
    columns = weight.shape[1]
    padding = -columns % GROUP
    weight = nn.functional.pad(weight.float(), (0, padding))
    products = nn.functional.pad(products, (0, padding, 0, padding))
    diagonal = products.diagonal()
    products = products + torch.diag(torch.where(diagonal == 0, 1.0, DAMPING * diagonal.mean()))
    order = products.diagonal().argsort(descending=True)
    # One large matrix after the other: a fourth of 16,384 columns would be another gigabyte.
    spread = torch.linalg.cholesky(products[order[:, None], order])
    spread = torch.cholesky_inverse(spread)
    spread = torch.linalg.cholesky(spread, upper=True)
    parts = []
    for rows in weight.split(max(1, AT_ONCE // weight.shape[1] // BLOCK) * BLOCK):
        steps, whole = in_steps(best_scales(rows.unflatten(1, (-1, HALF)), products.diagonal().view(-1, HALF)))
        target, scales = rows.T.contiguous(), (steps[:, None] * whole).T.contiguous()
        rounded = Rounded(in_order(target, order, spread, scales), steps, scales)
        for _ in range(SWEEPS):
            again(target, products, rounded)
        parts.append(rounded.packed(columns))
    data = torch.cat([part.data for part in parts])
    scales = torch.cat([part.scales for part in parts if part.scales is not None])
    return Packed("q4", (len(weight), columns), data, scales)


def in_order(
    target: Float[Tensor, "columns rows"],
    order: Int[Tensor, " columns"],
    spread: Float[Tensor, "columns columns"],
    scales: Float[Tensor, "halves rows"],
) -> Float[Tensor, "columns rows"]:
    """Values of GPTQ: columns in `order`, a group's worth of them between two large products. `spread` is the upper
    Cholesky factor of the inverse of the inputs' products in that order."""
    moved, halves = target[order], order // HALF
    values = torch.empty_like(target)
    for first in range(0, len(order), GROUP):
        last = first + GROUP
        errors = torch.empty(GROUP, target.shape[1])
        with one_thread():
            for column in range(first, last):
                value = nearest_values(moved[column], scales[halves[column]])
                values[order[column]] = value
                errors[column - first] = error = (moved[column] - value) / spread[column, column]
                moved[column:last].addr_(spread[column, column:last], error, alpha=-1)
        moved[last:] -= spread[first:last, last:].T @ errors
    return values


def again(target: Float[Tensor, "columns rows"], products: Float[Tensor, "columns columns"], rounded: Rounded) -> None:
    """Each scale fitted to its codes, and then each of its columns rounded, to what is best given all others: the error
    of the product never grows."""
    slope = products @ (target - rounded.values)
    for half, first in enumerate(range(0, len(target), HALF)):
        last = first + HALF
        values, within = rounded.values[first:last], products[first:last, first:last]
        before, left = values.clone(), slope[first:last].clone()
        codes = values * inverse(rounded.scales[half])
        along = within @ codes
        best = rounded.scales[half] + (codes * left).sum(0) * inverse((codes * along).sum(0))
        whole = (best * inverse(rounded.steps)).round().clamp(-127, 127)
        scale = torch.where(whole == 0, rounded.scales[half], whole * rounded.steps)
        left -= along * (scale - rounded.scales[half])
        values.copy_(codes * scale)
        rounded.scales[half] = scale
        with one_thread():
            for column in range(HALF):
                value = nearest_values(values[column] + left[column] / within[column, column], scale)
                left[column:].addr_(within[column, column:], value - values[column], alpha=-1)
                values[column] = value
        slope -= products[:, first:last] @ (values - before)


@contextmanager
def one_thread() -> Generator[None]:
    """Columns are thousands of small operations: threads that meet after each wait for one another, on a busy machine
    twenty times as long as one alone takes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def nearest_values(weight: Float[Tensor, " rows"], scale: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """What the nearest codes stand for."""
    code = code_values()
    return code[nearest(weight * inverse(scale), code)] * scale


def code_values() -> Float[Tensor, "16"]:
    """The values of q4, ascending."""
    return torch.tensor(CODE, dtype=torch.float32)
