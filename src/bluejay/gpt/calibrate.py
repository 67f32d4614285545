"""Rounding that knows what a matrix multiplies: GPTQ, one block of the decoder at a time.

A matrix is rounded a column at a time, those of the largest inputs first, and the columns still to come are moved so
that they make up for the error, as far as the inputs are correlated (GPTQ, Frantar et al. 2022, sections 3.2 and 3.3).
Scales are those of least squared error with each column's weighted by the size of its inputs. Then each scale is
fitted again to the codes it has, and each column rounded again, given all the others, until little changes. What a
block hands on is computed with its rounded weights, so later ones make up for earlier ones, too. The inputs are those
of some text that the user gives.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bluejay.gpt.kernels import Visible
from bluejay.gpt.model import Block, Norm, rotary_angles
from bluejay.gpt.quantize import (
    BLOCK,
    CODE,
    GROUP,
    HALF,
    Format,
    Packed,
    best_scales,
    in_steps,
    inverse,
    nearest,
    pack,
    pack_q4,
)
from bluejay.gpt.weights import StoredModel

SEQUENCES, LENGTH = 32, 512
"""Of the text, so many sequences of so many tokens, evenly spread."""
DAMPING = 0.01
"""Added to the diagonal of the inputs' products, in units of its mean (GPTQ, section 3.3)."""
SWEEPS = 4
"""How often columns are rounded again, given all the others."""
AT_ONCE = 1 << 25
"""Weights whose rows are rounded together, which bounds the memory."""


class Calibration:
    """The packed matrices of a model, rounded for the inputs that a text gives them.

    Matrices are asked for in the order of the model; a block's are computed when the first of them is, and held until
    the next block's. Raises ValueError for a text of less than one sequence.
    """

    def __init__(self, stored: StoredModel, kinds: Mapping[str, Format], text: str) -> None:
        self.stored, self.kinds = stored, kinds
        tokens = sequences(stored.tokenizer().encode(text), min(LENGTH, stored.config.n_ctx))
        self.positions = torch.arange(tokens.shape[1]).expand_as(tokens)
        embedding = stored.read("embed.weight")
        self.x = embedding[tokens].float()
        if stored.config.learned_positions:
            self.x += stored.read("position.weight")[: tokens.shape[1]].float()
        self.layer, self.matrices = -1, {}

    def packed(self, name: str) -> Packed:
        """A matrix by its name."""
        if self.kinds[name] == "q4" and name == "head.weight":
            return self._head()
        if not name.startswith("blocks."):
            return pack(self.stored.read(name), self.kinds[name])
        while self.layer < int(name.split(".")[1]):
            self.layer += 1
            self.matrices = self._block()
        return self.matrices[name]

    @torch.inference_mode()
    def _head(self) -> Packed:
        """The head, rounded for what comes out of the last block."""
        self.matrices = {}
        norm = Norm(self.stored.config)
        norm.load_state_dict({name: self.stored.read(f"norm.{name}").float() for name in norm.state_dict()})
        x = norm(self.x).flatten(0, 1)
        return round_matrix(self.stored.read("head.weight"), x.T @ x)[0]

    @torch.inference_mode()
    def _block(self) -> dict[str, Packed]:
        """Run the next block; each of its matrices is rounded when its inputs come to it."""
        config, prefix = self.stored.config, f"blocks.{self.layer}."
        block = Block(config, self.layer)
        block.load_state_dict({name: self.stored.read(prefix + name).float() for name in block.state_dict()})
        matrices: dict[str, Packed] = {}
        products: dict[int, Tensor] = {}  # q, k and v share their input, in parallel blocks the MLP, too

        def rounded(name: str, matrix: nn.Linear, x: Tensor) -> None:
            kind = self.kinds[prefix + name]
            if kind == "q4":
                if x.data_ptr() not in products:
                    products.clear()
                    products[x.data_ptr()] = x.flatten(0, 1).T @ x.flatten(0, 1)
                packed, matrix.weight.data = round_matrix(matrix.weight, products[x.data_ptr()])
            else:
                packed = pack(matrix.weight, kind)
            matrices[prefix + name] = packed

        for name, matrix in block.named_modules():
            if isinstance(matrix, nn.Linear):
                matrix.register_forward_pre_hook(
                    lambda module, inputs, name=name: rounded(f"{name}.weight", module, inputs[0])
                )
        self.x = block(self.x, rotary_angles(self.positions, config), self._seen(), None)
        return matrices

    def _seen(self) -> Visible | None:
        """What a block of local attention sees; None where attention is causal and no more."""
        config = self.stored.config
        if self.layer not in config.local_layers or config.window is None:
            return None
        return Visible((self.positions - config.window + 1).clamp(min=0))


def sequences(tokens: list[int], length: int) -> Int[Tensor, "B T"]:
    """Stretches of a text, evenly spread. Raises ValueError where there is not one."""
    count = min(SEQUENCES, len(tokens) // length)
    if count < 1:
        raise ValueError(f"the text to calibrate with has {len(tokens)} tokens; it needs at least {length}")
    starts = torch.linspace(0, len(tokens) - length, count).long()
    return torch.tensor(tokens)[starts[:, None] + torch.arange(length)]


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


def round_matrix(
    weight: Float[Tensor, "rows columns"], products: Float[Tensor, "columns columns"]
) -> tuple[Packed, Float[Tensor, "rows columns"]]:
    """A matrix in q4, and what that stands for; `products` are the sums of its inputs' products (X^T X)."""
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
    parts, kept = [], []
    for rows in weight.split(max(1, AT_ONCE // weight.shape[1] // BLOCK) * BLOCK):
        steps, whole = in_steps(best_scales(rows.unflatten(1, (-1, HALF)), products.diagonal().view(-1, HALF)))
        target, scales = rows.T.contiguous(), (steps[:, None] * whole).T.contiguous()
        rounded = Rounded(in_order(target, order, spread, scales), steps, scales)
        for _ in range(SWEEPS):
            again(target, products, rounded)
        parts.append(rounded.packed(columns))
        kept.append(rounded.values.T[:, :columns])
    data = torch.cat([part.data for part in parts])
    scales = torch.cat([part.scales for part in parts if part.scales is not None])
    return Packed("q4", (len(weight), columns), data, scales), torch.cat(kept)


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
