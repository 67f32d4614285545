"""Fine-tuning by low-rank adapters (LoRA, Hu et al. 2021), also of a base in 8 or 4 bits (QLoRA, Dettmers et al. 2023).

A frozen matrix W gets a product beside it, y = x W^T + scale x A^T B^T, and only A and B learn. B begins at zero, so
the first step starts from the model as it was. What is frozen is a buffer, not a parameter: it has no gradient and no
moments, it is in no checkpoint, and every process has all of it, mapped from the model's file where it is stored in the
type that it is multiplied in. Packed matrices stay packed and are decoded each time they are needed.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bluejay.gpt.formats.peft import LowRank
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.gpt.model import GPT, Linear
from bluejay.gpt.quantization.packing import Packed, unpack
from bluejay.progress import progress
from bluejay.train.recipe import LoRA


class LoRALinear(nn.Module):
    """A frozen matrix with an adapter beside it."""

    def __init__(self, base: nn.Module, a: Tensor, b: Tensor, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)

    def forward(self, x: Float[Tensor, "*batch columns"]) -> Float[Tensor, "*batch rows"]:
        base = self.base(x)
        low = F.linear(x.to(base.dtype), self.a.to(base.dtype))
        return base + F.linear(low, self.b.to(base.dtype)) * self.scale


class PackedLinear(nn.Module):
    """A matrix in 8 or 4 bits."""

    def __init__(self, packed: Packed, bias: Tensor | None) -> None:
        super().__init__()
        self.format, self.shape = packed.format, packed.shape
        self.register_buffer("data", packed.data)
        self.register_buffer("scales", packed.scales)
        self.register_buffer("smoothing", packed.smoothing)
        self.register_buffer("bias", bias)

    def forward(self, x: Float[Tensor, "*batch columns"]) -> Float[Tensor, "*batch rows"]:
        y = PackedMatmul.apply(x, Packed(self.format, self.shape, self.data, self.scales, self.smoothing))
        return y if self.bias is None else y + self.bias


class PackedMatmul(torch.autograd.Function):
    """The product with a packed matrix, which is decoded in both directions and kept in neither."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "*batch columns"], packed: Packed) -> Float[Tensor, "*batch rows"]:
        ctx.packed = packed
        return x @ unpack(packed, x.dtype).T

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor, None]:
        (upstream,) = upstreams
        return upstream @ unpack(ctx.packed, upstream.dtype), None


def adapted(stored: StoredModel, settings: LoRA, seed: int, device: torch.device, dtype: torch.dtype) -> GPT:
    """A frozen model, its matrices in `dtype` or packed, with adapters on those that `settings` name. Nothing else of
    it is a parameter.

    Raises ValueError for a target that the model does not have.
    """
    with torch.device("meta"):
        model = GPT(stored.config)
    matrices = [(name, module) for name, module in model.named_modules() if isinstance(module, Linear)]
    kinds = dict.fromkeys(kind_of(name) for name, _ in matrices)
    targets = kinds if settings.targets is None else settings.targets
    for target in targets:
        if target not in kinds:
            raise ValueError(f"lora.targets has {target}; the matrices of the model's blocks are {', '.join(kinds)}")
    generator = torch.Generator().manual_seed(seed)
    with progress("load", stored.config.n_parameters, "weights") as bar:
        for name, module in list(model.named_modules()):
            packed = stored.packed if isinstance(module, Linear) else None
            for kind, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, kind)
                if packed is None or kind != "weight":
                    wanted = torch.float32 if "norm" in name else dtype
                    module.register_buffer(kind, stored.read(f"{name}.{kind}").to(device, wanted))
                bar.advance(parameter.numel())
            if packed is not None:
                bias = dict(module.named_buffers(recurse=False)).get("bias")
                model.set_submodule(name, PackedLinear(packed(f"{name}.weight"), bias).to(device))
    for name, module in matrices:
        if kind_of(name) in targets:
            a, b = drawn(settings.rank, module.in_features, module.out_features, generator)
            base = model.get_submodule(name)
            model.set_submodule(name, LoRALinear(base, a.to(device), b.to(device), settings.scale))
    return model


def kind_of(matrix: str) -> str:
    """The last part of a matrix's name, by which the recipe calls it."""
    return matrix.rpartition(".")[2]


def drawn(rank: int, columns: int, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A and B before training: A uniform with variance 1 / (3 columns), as loralib and peft have it, and B zero."""
    bound = 1 / math.sqrt(columns)
    return torch.empty(rank, columns).uniform_(-bound, bound, generator=generator), torch.zeros(rows, rank)


def adapters(weights: Mapping[str, Tensor], settings: LoRA) -> dict[str, LowRank]:
    """The adapters among a model's weights, by the names that their matrices had without them."""
    matrices = [name.removesuffix(".a") for name in weights if name.endswith(".a")]
    return {f"{name}.weight": LowRank(weights[f"{name}.a"], weights[f"{name}.b"], settings.scale) for name in matrices}
