"""Low-rank adapters on disk, in the layout of `peft`: `adapter_config.json` and `adapter_model.safetensors`.

An adapter adds scale B A to a matrix, with A (rank, columns) and B (rows, rank) (LoRA, section 4.1). If a module of the
file fuses several of our matrices (GPT-NeoX's `query_key_value`), their adapters become one whose rank is the sum of
their ranks: the A are stacked, and each B has its own columns.
"""

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bluejay.files import atomic_directory, write_json
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.families import FAMILIES, StoredTensor, stored_tensors
from bluejay.gpt.formats.huggingface import fuse, unfuse
from bluejay.gpt.formats.tensors import Header, StoredModel, open_safetensors, write_safetensors
from bluejay.gpt.model import weight_shapes
from bluejay.tokenizer import Tokenizer

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""Prefix that peft gives to the names of modules."""


@dataclass(frozen=True)
class LowRank:
    """A low-rank update of a matrix (rows, columns): scale b a."""

    a: Float[Tensor, "rank columns"]
    b: Float[Tensor, "rows rank"]
    scale: float
    """The factor alpha / rank on the product of the two matrices."""

    def added_to(self, weight: Tensor) -> Tensor:
        """The sum of a matrix and the update, computed in float32, in the type of the matrix."""
        return torch.addmm(weight.float(), self.b.float(), self.a.float(), alpha=self.scale).to(weight.dtype)


def write_adapter(adapter: dict[str, LowRank], config: GPTConfig, tokenizer: Tokenizer, base: str, path: Path) -> None:
    """Write low-rank updates, by our names of the matrices, for the model called `base`. An error leaves what was at
    `path` before."""
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for stored in stored_tensors(config, weight_shapes(config)):
        parts = {name: adapter[name] for name in stored.weights if name in adapter}
        if not parts:
            continue
        module = stored.name.removesuffix(".weight")
        fused = fuse_updates(stored, parts, config)
        tensors |= {f"{PREFIX}{module}.lora_A.weight": fused.a, f"{PREFIX}{module}.lora_B.weight": fused.b}
        name = name_in_layer(module, config)
        ranks[name], alphas[name] = len(fused.a), fused.scale * len(fused.a)
    values = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "target_modules": sorted(ranks),
        "r": min(ranks.values()),
        "lora_alpha": min(alphas.values()),
        "rank_pattern": exceptions(ranks),
        "alpha_pattern": exceptions(alphas),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": FAMILIES[config.family].transposed,
        "inference_mode": True,
    }
    with atomic_directory(path) as temporary:
        write_json(temporary / CONFIG, values)
        headers = [Header(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
        write_safetensors(headers, tensors.__getitem__, temporary / TENSORS)
        tokenizer.save(temporary)


def fuse_updates(stored: StoredTensor, parts: dict[str, LowRank], config: GPTConfig) -> LowRank:
    """The update of a module of the file, from those of the matrices that are fused in it."""
    if len(stored.weights) == 1:
        return parts[stored.weights[0]]
    ranks = [len(part.a) for part in parts.values()]
    shapes = weight_shapes(config)
    columns = dict(zip(parts, torch.arange(sum(ranks)).split(ranks), strict=True))

    def rows(name: str) -> Tensor:
        b = torch.zeros(shapes[name][0], sum(ranks))
        if name in parts:
            b[:, columns[name]] = parts[name].b.float()
        return b

    [scale] = {part.scale for part in parts.values()}
    a = torch.cat([part.a for part in parts.values()])
    return LowRank(a, fuse(dataclasses.replace(stored, transposed=False), rows, config).to(a.dtype), scale)


def name_in_layer(module: str, config: GPTConfig) -> str:
    """The name of a module within its layer; peft compares it with the end of the full name."""
    layers = [theirs for theirs in FAMILIES[config.family].modules if "{}" in theirs]
    return next(theirs.partition("{}.")[2] for theirs in layers if module.endswith(theirs.partition("{}")[2]))


def exceptions(values: dict[str, Any]) -> dict[str, Any]:
    """The values that differ from the smallest, which is the default."""
    return {name: value for name, value in values.items() if value != min(values.values())}


def merged(stored: StoredModel, adapter: dict[str, LowRank]) -> StoredModel:
    """A model with an adapter merged into its weights as they are read. A quantised model becomes bfloat16."""

    def read(name: str) -> Tensor:
        weight = stored.read(name)
        weight = weight if stored.packed is None else weight.bfloat16()
        return adapter[name].added_to(weight) if name in adapter else weight

    dtype = stored.dtype if stored.packed is None else torch.bfloat16
    return dataclasses.replace(stored, read=read, dtype=dtype, packed=None)


def read_adapter_config(path: Path) -> dict[str, Any]:
    """The contents of `adapter_config.json`. Raises ValueError if it does not describe a plain LoRA adapter."""
    file = path / CONFIG
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        kind, rank, alpha = values["peft_type"], values["r"], values["lora_alpha"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file} is not the configuration of a LoRA adapter") from None
    if kind != "LORA" or not isinstance(rank, int) or rank < 1 or not isinstance(alpha, (int, float)):
        raise ValueError(f"{file} has a {kind} adapter of rank {rank}, alpha {alpha}; bluejay reads LORA")
    if values.get("alora_invocation_tokens"):
        raise ValueError(
            f"{file} describes an adapter that only some tokens switch on; bluejay reads those that are always on"
        )
    if not values.get("base_model_name_or_path"):
        raise ValueError(f"{file} does not name the model that it adapts in base_model_name_or_path")
    return values


def read_adapter(path: Path, config: GPTConfig) -> dict[str, LowRank]:
    """The low-rank updates in a directory, by our names of the matrices. Raises FileNotFoundError if there are no
    weights; ValueError, naming the first tensor that does not fit the model."""
    values, file = read_adapter_config(path), path / TENSORS
    if not file.is_file():
        raise FileNotFoundError(f"{path} is an adapter without weights: it has no {TENSORS}")
    names, tensor = open_safetensors(file)
    remaining, shapes = set(names), weight_shapes(config)
    adapter: dict[str, LowRank] = {}
    for stored in stored_tensors(config, shapes):
        module = stored.name.removesuffix(".weight")
        pair = [f"{PREFIX}{module}.lora_{letter}.weight" for letter in "AB"]
        if not remaining.issuperset(pair):
            continue
        remaining.difference_update(pair)
        a, b = (tensor(name) for name in pair)
        rows = [shapes[name][0] for name in stored.weights]
        columns = shapes[stored.weights[0]][1]
        if a.ndim != 2 or a.shape[1] != columns or b.shape != (sum(rows), len(a)):
            raise ValueError(f"{file}: {pair[0]} is {list(a.shape)} and its B {list(b.shape)}; {module} does not fit")
        scale = scale_of(module, len(a), values)
        adapter |= {name: LowRank(a, unfuse(stored, b, name, rows, config), scale) for name in stored.weights}
    if remaining or not adapter:
        unknown = min(remaining, default="no tensor")
        raise ValueError(f"{file} has {unknown}, which is no update of a matrix of the model")
    return adapter


def scale_of(module: str, rank: int, values: dict[str, Any]) -> float:
    """alpha / rank of a module. A pattern that matches the module's name may replace alpha, as in peft."""
    patterns = values.get("alpha_pattern") or {}
    alpha = next(
        (patterns[name] for name in patterns if re.fullmatch(rf"(.*\.)?({name})", module)), values["lora_alpha"]
    )
    return alpha / (math.sqrt(rank) if values.get("use_rslora") else rank)
