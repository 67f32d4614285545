"""Packing of a model's matrices for the inputs that they have on a text.

The model is run over the text one block at a time. A few columns of an activation, always the same ones, are many times
larger than the others, and in int8 they would cost the others precision. So each column of an activation is multiplied
by a *smoothing* factor, and the columns of the matrices that multiply it are divided by it (SmoothQuant, Xiao et al.
2023, section 4). Scales of q4 minimise the error of the product, not of the weights. A few sentences that are part of
the package suffice for both. With a text of the user's, the columns of q4 are also rounded to compensate for each
other's errors (`bluejay.gpt.quantization.gptq`); a block's output is then computed with its rounded weights, so later
blocks compensate for earlier ones.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import resources

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bluejay.gpt.attention import VisibleRange
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.model import Block, Norm, matrices_by_input, rotary_angles
from bluejay.gpt.quantization.format import Format
from bluejay.gpt.quantization.gptq import round_matrix
from bluejay.gpt.quantization.packing import Packed, floored, pack, unpack
from bluejay.tokenizer import Tokenizer

N_SEQUENCES, SEQUENCE_TOKENS = 32, 512
"""Number and length of the sequences that are taken from the user's text."""
SAMPLE_TOKENS = 256
"""Greatest length of a sequence taken from the sentences in the package."""
SMOOTHING_EXPONENT = 0.4
"""Smoothing is (size of a column's weights / size of its inputs) to this power. 0 leaves the inputs as they are, 0.5
divides their differences between inputs and weights (docs/quantization.md has the figures)."""
LEAST_SIZE = 0.01
"""Least size of a column, in units of the mean; it bounds the factor of a column without inputs or weights."""


class Calibration:
    """The packed matrices of a model, fitted to its inputs on a text or, without one, on the package's sample. Matrices
    must be requested in model order, the embedding last. All matrices of a block are computed when the first is
    requested and kept until the next block's. Raises ValueError for a text shorter than one sequence."""

    def __init__(
        self,
        config: GPTConfig,
        read: Callable[[str], Tensor],
        tokenizer: Tokenizer,
        formats: Mapping[str, Format],
        text: str | None,
    ) -> None:
        self.config, self.read, self.formats, self.has_text = config, read, formats, text is not None
        ids = tokenizer.encode(sample() if text is None else text)
        tokens = sequences(ids, min(SEQUENCE_TOKENS if self.has_text else min(SAMPLE_TOKENS, len(ids)), config.n_ctx))
        self.positions = torch.arange(tokens.shape[1]).expand_as(tokens)
        self.x = read("embed.weight")[tokens].float()
        if config.learned_positions:
            self.x += read("position.weight")[: tokens.shape[1]].float()
        self.layer, self.matrices = -1, {}

    def packed(self, name: str) -> Packed:
        """A matrix by its name."""
        if name == "embed.weight" and not self.config.tied:  # rows that are looked up
            return pack(self.read(name), self.formats[name])
        if not name.startswith("blocks."):
            return self._head(name)
        while self.layer < int(name.split(".")[1]):
            self.layer += 1
            self.matrices = self._block()
        return self.matrices[name]

    @torch.inference_mode()
    def _head(self, name: str) -> Packed:
        """The head, fitted to the output of the last block."""
        self.matrices = {}
        norm = Norm(self.config)
        norm.load_state_dict({name: self.read(f"norm.{name}").float() for name in norm.state_dict()})
        return next(self._fitted(norm(self.x), {name: self.read(name)}))[1]

    @torch.inference_mode()
    def _block(self) -> dict[str, Packed]:
        """Run the next block. Matrices are packed when their common input reaches the first of them."""
        prefix = f"blocks.{self.layer}."
        block = Block(self.config, self.layer)
        weights = {name: self.read(prefix + name).float() for name in block.state_dict()}
        block.load_state_dict(weights, assign=True)
        matrices: dict[str, Packed] = {}

        def fit(linears: dict[str, nn.Linear], x: Tensor) -> None:
            for name, packed in self._fitted(x, {name: linear.weight for name, linear in linears.items()}):
                matrices[name] = packed
                if self.has_text:
                    linears[name].weight.data = unpack(packed)

        hooks = []
        for activation, names in matrices_by_input(self.config).items():
            if activation.startswith(prefix):
                modules = [name.removeprefix(prefix).removesuffix(".weight") for name in names]
                linears = dict(zip(names, map(block.get_submodule, modules), strict=True))
                first = linears[names[0]]
                hook = first.register_forward_pre_hook(lambda _, inputs, linears=linears: fit(linears, inputs[0]))
                hooks.append(hook)
        self.x = block(self.x, rotary_angles(self.positions, self.config), self._visible(), None)
        for hook in hooks:
            hook.remove()  # a hook and its matrices form a cycle: gigabytes that only the cycle collector would free
        return matrices

    def _fitted(self, x: Tensor, weights: dict[str, Tensor]) -> Iterator[tuple[str, Packed]]:
        """Pack the matrices that multiply the activation `x`."""
        x = x.flatten(0, -2)
        inputs = torch.linalg.vector_norm(x, dim=0)
        factors = smoothing(inputs, weights.values())
        products = x.T @ x * factors[:, None] * factors if self.has_text else None
        for name, weight in weights.items():
            if products is not None and self.formats[name].gptq:
                yield name, round_matrix(weight, products, factors)
            else:
                yield name, pack(weight, self.formats[name], factors, importance=(inputs * factors).square())

    def _visible(self) -> VisibleRange | None:
        """The visible tokens in a layer of local attention; None in other layers."""
        if self.layer not in self.config.local_layers or self.config.window is None:
            return None
        return VisibleRange((self.positions - self.config.window + 1).clamp(min=0))


def smoothing(
    inputs: Float[Tensor, " columns"], weights: Iterable[Float[Tensor, "_ columns"]]
) -> Float[Tensor, " columns"]:
    """The smoothing factor of each column of an activation, given the sizes (L2 norms) of its columns and the matrices
    that multiply it."""
    rows = torch.stack([torch.linalg.vector_norm(weight.float(), dim=0) for weight in weights]).norm(dim=0)
    return (floored(rows, LEAST_SIZE) / floored(inputs, LEAST_SIZE)) ** SMOOTHING_EXPONENT


def sample() -> str:
    """A few sentences of prose, arithmetic, code and other languages."""
    return resources.files("bluejay").joinpath("assets", "sample.txt").read_text(encoding="utf-8")


def sequences(tokens: list[int], length: int) -> Int[Tensor, "B T"]:
    """Evenly spaced sequences of a text. Raises ValueError if the text is shorter than one."""
    count = min(N_SEQUENCES, len(tokens) // length)
    if count < 1:
        raise ValueError(f"the text to calibrate with has {len(tokens)} tokens; it needs at least {length}")
    starts = torch.linspace(0, len(tokens) - length, count).long()
    return torch.tensor(tokens)[starts[:, None] + torch.arange(length)]
