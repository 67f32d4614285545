"""Low-rank adapters (LoRA, Hu et al. 2021), also for a base model in 8 or 4 bits (QLoRA, Dettmers et al. 2023).

A frozen matrix W gets a product of two matrices added to it, y = x W^T + scale x A^T B^T, and only A and B are trained.
B is zero at first, so training starts from the unchanged model. Frozen weights are buffers, not parameters: they have
no gradient and no optimizer state, are in no checkpoint, and every process holds all of them. They are memory-mapped
from the model's file if stored in the data type of the matrix products. Packed matrices are unpacked at each use.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.peft import LowRank
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.gpt.model import GPT, Linear
from bluejay.gpt.quantization.linear import PackedLinear
from bluejay.progress import progress
from bluejay.train.recipe import LoRA


class LoRALinear(nn.Module):
    """A frozen linear layer with an adapter."""

    def __init__(self, base: nn.Module, a: Tensor, b: Tensor, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)

    def forward(self, x: Float[Tensor, "*batch columns"]) -> Float[Tensor, "*batch rows"]:
        base = self.base(x)
        low = F.linear(x.to(base.dtype), self.a.to(base.dtype))
        return base + F.linear(low, self.b.to(base.dtype)) * self.scale


def load_with_adapters(stored: StoredModel, settings: LoRA, seed: int, device: torch.device, dtype: torch.dtype) -> GPT:
    """A frozen model, its matrices in `dtype` or packed, with trainable adapters on the targets of `settings`.

    Raises ValueError for a target that the model does not have.
    """
    with torch.device("meta"):
        model = GPT(stored.config)
    matrices = [(name, module) for name, module in model.named_modules() if isinstance(module, Linear)]
    targets = targets_of(settings, stored.config)
    generator = torch.Generator().manual_seed(seed)
    with progress("load", stored.config.n_parameters, "weights") as bar:
        for name, module in list(model.named_modules()):
            packed = stored.packed(f"{name}.weight") if stored.packed and isinstance(module, Linear) else None
            for kind, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, kind)
                if packed is None or kind != "weight":
                    stored_as = torch.float32 if "norm" in name else dtype
                    module.register_buffer(kind, stored.read(f"{name}.{kind}").to(device, stored_as))
                bar.advance(parameter.numel())
            if packed is not None:
                bias = dict(module.named_buffers(recurse=False)).get("bias")
                model.set_submodule(name, PackedLinear(packed, bias).to(device))
    for name, module in matrices:
        if kind_of(name) in targets:
            a, b = initial_adapter(settings.rank, module.in_features, module.out_features, generator)
            base = model.get_submodule(name)
            model.set_submodule(name, LoRALinear(base, a.to(device), b.to(device), settings.scale))
    return model


def targets_of(settings: LoRA, config: GPTConfig) -> tuple[str, ...]:
    """The matrices of a block that get an adapter. Raises ValueError for one that the model does not have."""
    kinds = ("q", "k", "v", "out", *(["gate"] if config.gated else []), "up", "down")
    for target in settings.targets or ():
        if target not in kinds:
            raise ValueError(f"lora.targets has {target}; the matrices of the model's blocks are {', '.join(kinds)}")
    return settings.targets or kinds


def kind_of(matrix: str) -> str:
    """The kind of a matrix as recipes name it: the last part of its name."""
    return matrix.rpartition(".")[2]


def initial_adapter(rank: int, columns: int, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A and B before training: A uniform with variance 1 / (3 columns), as in loralib and peft, and B zero."""
    bound = 1 / math.sqrt(columns)
    return torch.empty(rank, columns).uniform_(-bound, bound, generator=generator), torch.zeros(rows, rank)


def adapters(weights: Mapping[str, Tensor], settings: LoRA) -> dict[str, LowRank]:
    """The adapters among a model's weights, in main memory, where those of the model that they are added to are read;
    by the name of the matrix that each belongs to."""
    matrices = [name.removesuffix(".a") for name in weights if name.endswith(".a")]
    return {
        f"{name}.weight": LowRank(weights[f"{name}.a"].cpu(), weights[f"{name}.b"].cpu(), settings.scale)
        for name in matrices
    }
