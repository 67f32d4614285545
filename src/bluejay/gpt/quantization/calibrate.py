"""Matrices packed for the inputs that a text gives them: the model is run over it, one block at a time.

A few columns of an input are many times larger than the others, always the same ones, and in int8 they would take the
others' precision. So the columns of each input are multiplied by *smoothing* factors, and those of the matrices that
multiply it divided (SmoothQuant, Xiao et al. 2023, section 4), and scales of q4 are chosen by the error of the product,
not of the weights. A few sentences that come with the package are enough for that. With a text of the user's the
columns of q4 are rounded so that they make up for each other's errors, too (`bluejay.gpt.quantization.gptq`); what a
block hands on is then computed with its rounded weights, so later ones make up for earlier ones.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib import resources

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.gpt.kernels import Visible
from bluejay.gpt.model import Block, Norm, rotary_angles
from bluejay.gpt.quantization.gptq import round_matrix
from bluejay.gpt.quantization.packing import Format, Packed, floored, pack, unpack

SEQUENCES, LENGTH = 32, 512
"""Of the user's text, so many sequences of so many tokens, evenly spread."""
SAMPLE_LENGTH = 256
"""Of the sentences that come with the package, the most tokens of a sequence."""
STRENGTH = 0.4
"""Smoothing is (size of a column's weights / size of its inputs) to this power: 0 leaves all to the weights' scales,
0.5 shares the differences between inputs and weights (docs/quantization.md has the figures)."""
FLOOR = 0.01
"""The least size of a column, in units of the mean, so that one without inputs or weights stays within bounds."""


def readers(config: GPTConfig) -> dict[str, list[str]]:
    """What gives an input its values, or the matrix that alone multiplies it -> the matrices that multiply it, in the
    order of the model."""
    found = {}
    for layer in range(config.n_layer):
        block = f"blocks.{layer}."
        qkv = [f"{block}attention.{name}.weight" for name in "qkv"]
        mlp = [f"{block}mlp.{name}.weight" for name in (("gate", "up") if config.gated else ("up",))]
        if config.n_norm == 1:
            found[block + "norm"] = qkv + mlp
        else:
            found |= {block + "norm": qkv, block + "mlp_norm": mlp}
        found |= {block + name: [f"{block}{name}.weight"] for name in ("attention.out", "mlp.down")}
    return found | {"norm": ["embed.weight" if config.tied else "head.weight"]}


def inputs_of(config: GPTConfig) -> dict[str, str]:
    """A matrix -> its input, as `readers` calls it."""
    return {name: source for source, names in readers(config).items() for name in names}


class Calibration:
    """The packed matrices of a model, for the inputs of a text; without one, of the package's sample.

    Matrices are asked for in the order of the model, a tied embedding last; a block's are computed when the first of
    them is, and held until the next block's. Raises ValueError for a text of less than one sequence.
    """

    def __init__(self, stored: StoredModel, kinds: Mapping[str, Format], text: str | None) -> None:
        self.stored, self.kinds, self.rounding = stored, kinds, text is not None
        self.readers = readers(stored.config)
        ids = stored.tokenizer().encode(sample() if text is None else text)
        tokens = sequences(ids, min(LENGTH if self.rounding else min(SAMPLE_LENGTH, len(ids)), stored.config.n_ctx))
        self.positions = torch.arange(tokens.shape[1]).expand_as(tokens)
        embedding = stored.read("embed.weight")
        self.x = embedding[tokens].float()
        if stored.config.learned_positions:
            self.x += stored.read("position.weight")[: tokens.shape[1]].float()
        self.layer, self.matrices = -1, {}

    def packed(self, name: str) -> Packed:
        """A matrix by its name."""
        if not name.startswith("blocks."):
            return self._head(name)
        while self.layer < int(name.split(".")[1]):
            self.layer += 1
            self.matrices = self._block()
        return self.matrices[name]

    @torch.inference_mode()
    def _head(self, name: str) -> Packed:
        """The head, for what comes out of the last block."""
        self.matrices = {}
        norm = Norm(self.stored.config)
        norm.load_state_dict({name: self.stored.read(f"norm.{name}").float() for name in norm.state_dict()})
        return next(self._fitted(norm(self.x), {name: self.stored.read(name)}))[1]

    @torch.inference_mode()
    def _block(self) -> dict[str, Packed]:
        """Run the next block; its matrices are packed when the input that they share comes to the first of them."""
        config, prefix = self.stored.config, f"blocks.{self.layer}."
        block = Block(config, self.layer)
        weights = {name: self.stored.read(prefix + name).float() for name in block.state_dict()}
        block.load_state_dict(weights, assign=True)
        matrices: dict[str, Packed] = {}

        def fit(linears: dict[str, nn.Linear], x: Tensor) -> None:
            for name, packed in self._fitted(x, {name: linear.weight for name, linear in linears.items()}):
                matrices[name] = packed
                if self.rounding:
                    linears[name].weight.data = unpack(packed)

        hooks = []
        for source, names in self.readers.items():
            if source.startswith(prefix):
                modules = [name.removeprefix(prefix).removesuffix(".weight") for name in names]
                linears = dict(zip(names, map(block.get_submodule, modules), strict=True))
                first = linears[names[0]]
                hook = first.register_forward_pre_hook(lambda _, inputs, linears=linears: fit(linears, inputs[0]))
                hooks.append(hook)
        self.x = block(self.x, rotary_angles(self.positions, config), self._seen(), None)
        for hook in hooks:
            hook.remove()  # a hook holds matrices that hold it: gigabytes until the collector comes by
        return matrices

    def _fitted(self, x: Tensor, weights: dict[str, Tensor]) -> Iterator[tuple[str, Packed]]:
        """The matrices that multiply an input, packed for it."""
        x = x.flatten(0, -2)
        inputs = torch.linalg.vector_norm(x, dim=0)
        factors = smoothing(inputs, weights.values())
        products = x.T @ x * factors[:, None] * factors if self.rounding else None
        for name, weight in weights.items():
            if products is not None and self.kinds[name] == "q4":
                yield name, replace(round_matrix(weight.float() / factors, products), smoothing=factors)
            else:
                yield name, pack(weight, self.kinds[name], factors, importance=(inputs * factors).square())

    def _seen(self) -> Visible | None:
        """What a block of local attention sees; None where attention is causal and no more."""
        config = self.stored.config
        if self.layer not in config.local_layers or config.window is None:
            return None
        return Visible((self.positions - config.window + 1).clamp(min=0))


def smoothing(
    inputs: Float[Tensor, " columns"], weights: Iterable[Float[Tensor, "_ columns"]]
) -> Float[Tensor, " columns"]:
    """What each column of an input is multiplied by, and each column of the matrices that multiply it divided; `inputs`
    are the sizes (L2 norms) of the input's columns."""
    rows = torch.stack([torch.linalg.vector_norm(weight.float(), dim=0) for weight in weights]).norm(dim=0)
    return (floored(rows, FLOOR) / floored(inputs, FLOOR)) ** STRENGTH


def sample() -> str:
    """A few sentences of prose, arithmetic, code and other languages."""
    return resources.files("bluejay").joinpath("assets", "sample.txt").read_text(encoding="utf-8")


def sequences(tokens: list[int], length: int) -> Int[Tensor, "B T"]:
    """Stretches of a text, evenly spread. Raises ValueError where there is not one."""
    count = min(SEQUENCES, len(tokens) // length)
    if count < 1:
        raise ValueError(f"the text to calibrate with has {len(tokens)} tokens; it needs at least {length}")
    starts = torch.linspace(0, len(tokens) - length, count).long()
    return torch.tensor(tokens)[starts[:, None] + torch.arange(length)]
