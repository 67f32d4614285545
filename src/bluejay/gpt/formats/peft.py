"""Low-rank adapters on disk, in the layout of `peft`: `adapter_config.json` and `adapter_model.safetensors`.

An adapter adds scale B A to a matrix, A (rank, columns) and B (rows, rank) (LoRA, section 4.1). A file may keep several
of our matrices in one module (GPT-NeoX's `query_key_value`). There their adapters become one of their ranks' sum: their
A one below the other, and each B in columns of its own.
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
from bluejay.gpt.formats.families import FAMILIES, Stored, stored_tensors
from bluejay.gpt.formats.layouts import joined, open_model, rows_of, weight_shapes
from bluejay.gpt.formats.locate import locate
from bluejay.gpt.formats.tensors import Header, StoredModel, open_safetensors, write_safetensors
from bluejay.tokenizer import Tokenizer

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What peft puts before the name of a module."""


@dataclass(frozen=True)
class LowRank:
    """What is added to a matrix (rows, columns): scale b a."""

    a: Float[Tensor, "rank columns"]
    b: Float[Tensor, "rows rank"]
    scale: float
    """alpha / rank."""

    def added_to(self, weight: Tensor) -> Tensor:
        """The merged matrix, in the type of the matrix; computed in float32."""
        return torch.addmm(weight.float(), self.b.float(), self.a.float(), alpha=self.scale).to(weight.dtype)


def write_adapter(adapter: dict[str, LowRank], config: GPTConfig, tokenizer: Tokenizer, base: str, path: Path) -> None:
    """Write the low-rank updates of matrices, by our names, for the model that `base` names; all or nothing."""
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for stored in stored_tensors(config, weight_shapes(config)):
        parts = {name: adapter[name] for name in stored.ours if name in adapter}
        if not parts:
            continue
        module = stored.name.removesuffix(".weight")
        fused = fuse(stored, parts, config)
        tensors |= {f"{PREFIX}{module}.lora_A.weight": fused.a, f"{PREFIX}{module}.lora_B.weight": fused.b}
        name = module_of(module, config)
        ranks[name], alphas[name] = len(fused.a), fused.scale * len(fused.a)
    values = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "target_modules": sorted(ranks),
        "r": min(ranks.values()),
        "lora_alpha": min(alphas.values()),
        "rank_pattern": pattern(ranks),
        "alpha_pattern": pattern(alphas),
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


def fuse(stored: Stored, parts: dict[str, LowRank], config: GPTConfig) -> LowRank:
    """One update of the module that a file keeps several matrices in."""
    if len(stored.ours) == 1:
        return parts[stored.ours[0]]
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
    return LowRank(a, joined(dataclasses.replace(stored, transposed=False), rows, config).to(a.dtype), scale)


def module_of(module: str, config: GPTConfig) -> str:
    """A module's name within its layer, which peft matches with the end of the whole one."""
    layers = [theirs for theirs in FAMILIES[config.family].modules if "{}" in theirs]
    return next(theirs.partition("{}.")[2] for theirs in layers if module.endswith(theirs.partition("{}")[2]))


def pattern(values: dict[str, Any]) -> dict[str, Any]:
    """What differs from the least, which is the default."""
    return {name: value for name, value in values.items() if value != min(values.values())}


def open_adapter(path: Path) -> StoredModel:
    """The model that an adapter makes of the one it names, merged as it is read. A quantised one becomes bfloat16.

    Raises FileNotFoundError or ValueError, each with one sentence.
    """
    values = read_config(path)
    base = str(values["base_model_name_or_path"])
    try:
        stored = open_model(locate(base))
    except FileNotFoundError as missing:
        raise FileNotFoundError(f"{path / CONFIG} is an adapter of {base}, which is not here: {missing}") from None
    return merged(stored, read_adapter(path, stored.config))


def merged(stored: StoredModel, adapter: dict[str, LowRank]) -> StoredModel:
    """A model with an adapter added to its weights, each as it is read."""

    def read(name: str) -> Tensor:
        weight = stored.read(name)
        weight = weight if stored.packed is None else weight.bfloat16()
        return adapter[name].added_to(weight) if name in adapter else weight

    dtype = stored.dtype if stored.packed is None else torch.bfloat16
    return dataclasses.replace(stored, read=read, dtype=dtype, packed=None)


def read_config(path: Path) -> dict[str, Any]:
    """What `adapter_config.json` says. Raises ValueError for a kind of adapter that is no sum with a product."""
    file = path / CONFIG
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        kind, rank, alpha = values["peft_type"], values["r"], values["lora_alpha"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file} is not the configuration of a LoRA adapter") from None
    if kind != "LORA" or not isinstance(rank, int) or rank < 1 or not isinstance(alpha, (int, float)):
        raise ValueError(f"{file} has a {kind} adapter of rank {rank}, alpha {alpha}; bluejay reads LORA")
    if values.get("alora_invocation_tokens"):
        raise ValueError(f"{file} is of an adapter that only some tokens switch on; bluejay reads those always on")
    if not values.get("base_model_name_or_path"):
        raise ValueError(f"{file} does not name the model that it adapts, base_model_name_or_path")
    return values


def read_adapter(path: Path, config: GPTConfig) -> dict[str, LowRank]:
    """The low-rank updates in a directory, by our names of the matrices.

    Raises ValueError, naming the first tensor that does not fit the model.
    """
    values, file = read_config(path), path / TENSORS
    if not file.is_file():
        raise FileNotFoundError(f"{path} is an adapter without its weights: it has no {TENSORS}")
    names, tensor = open_safetensors(file)
    left, shapes = set(names), weight_shapes(config)
    adapter: dict[str, LowRank] = {}
    for stored in stored_tensors(config, shapes):
        module = stored.name.removesuffix(".weight")
        pair = [f"{PREFIX}{module}.lora_{letter}.weight" for letter in "AB"]
        if not left.issuperset(pair):
            continue
        left.difference_update(pair)
        a, b = (tensor(name) for name in pair)
        rows = [shapes[name][0] for name in stored.ours]
        columns = shapes[stored.ours[0]][1]
        if a.ndim != 2 or a.shape[1] != columns or b.shape != (sum(rows), len(a)):
            raise ValueError(f"{file}: {pair[0]} is {list(a.shape)} and its B {list(b.shape)}; {module} does not fit")
        scale = scale_of(module, len(a), values)
        adapter |= {ours: LowRank(a, rows_of(stored, b, ours, rows, config), scale) for ours in stored.ours}
    if left or not adapter:
        raise ValueError(f"{file} has {min(left, default='no tensor')}, which is no update of a matrix of the model")
    return adapter


def scale_of(module: str, rank: int, values: dict[str, Any]) -> float:
    """alpha / rank of a module; alpha may be another one where a pattern fits the module's name (peft's rule)."""
    patterns = values.get("alpha_pattern") or {}
    alpha = next(
        (patterns[name] for name in patterns if re.fullmatch(rf"(.*\.)?({name})", module)), values["lora_alpha"]
    )
    return alpha / (math.sqrt(rank) if values.get("use_rslora") else rank)
