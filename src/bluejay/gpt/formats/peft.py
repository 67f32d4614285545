"""Low-rank adapters on disk, in the layout of `peft`: `adapter_config.json` and `adapter_model.safetensors`, or
`adapter_model.bin`.

An adapter adds scale B A to a matrix, with A (rank, columns) and B (rows, rank) (LoRA, section 4.1). If a module of the
file fuses several of our matrices (GPT-NeoX's `query_key_value`), their adapters become one whose rank is the sum of
their ranks: the A are stacked, and each B has its own columns.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bluejay.files import atomic_directory, write_json
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.families import FAMILIES, StoredTensor, stored_tensors
from bluejay.gpt.formats.hub import ADAPTER_CONFIG
from bluejay.gpt.formats.huggingface import HEADS, fuse, names_of, unfuse
from bluejay.gpt.formats.tensors import (
    Header,
    StoredModel,
    check_type,
    converted,
    open_safetensors,
    open_torch,
    same_numbers,
    write_safetensors,
)
from bluejay.gpt.formats.values import is_number
from bluejay.gpt.model import weight_shapes
from bluejay.tokenizer import Tokenizer
from bluejay.tokenizer_files import json_object

TENSORS, TORCH_TENSORS = "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
"""Prefix that peft gives to the names of modules."""
_KNOWN = """
    peft_type r lora_alpha alpha_pattern rank_pattern use_rslora base_model_name_or_path revision init_lora_weights
    alora_invocation_tokens ensure_weight_tying
    target_modules exclude_modules layers_to_transform layers_pattern fan_in_fan_out bias modules_to_save
    task_type inference_mode lora_dropout auto_mapping peft_version megatron_config megatron_core qalora_group_size
    loftq_config eva_config corda_config lora_ga_config runtime_config
"""
KNOWN = frozenset(_KNOWN.split())
"""Keys of `adapter_config.json` that are understood. What target_modules and the keys after it up to modules_to_save
ask for can be seen from the tensors; the later ones matter in training, or with refused `init_lora_weights`."""
TIED = ("embed_tokens", "lm_head")
"""Names of modules for which peft follows `ensure_weight_tying`; GPT-2's embedding, for one, has another name."""
STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` that leave the base as it is; with others, such as pissa and olora, the adapter belongs
to what remains of the base without its principal parts."""


@dataclass(frozen=True)
class Adapter:
    """The contents of an adapter's file, by our names of the weights."""

    updates: dict[str, "LowRank"]
    replaced: dict[str, Tensor]
    """Weights that the adapter holds whole, such as biases and a head that were trained."""
    config: GPTConfig
    """The configuration of the adapted model. It is not tied if the adapter trained the embedding or the head of a tied
    model apart from the other, and has as many tokens as an embedding that the adapter holds whole."""


@dataclass(frozen=True)
class LowRank:
    """A low-rank update of a matrix (rows, columns): scale b a."""

    a: Float[Tensor, "rank columns"]
    b: Float[Tensor, "rows rank"]
    scale: float
    """The factor alpha / rank on the product of the two matrices."""

    def added_to(self, weight: Tensor, name: str = "the sum") -> Tensor:
        """The sum of a matrix and the update, computed in float32, in the type of the matrix. Raises ValueError, with
        the matrix's name, if it is too large for the type or not a number."""
        total = torch.addmm(weight.float(), self.b.float(), self.a.float(), alpha=self.scale)
        return converted(name, total, weight.dtype)


def write_adapter(
    adapter: dict[str, LowRank],
    config: GPTConfig,
    tokenizer: Tokenizer,
    base: str,
    path: Path,
    revision: str | None = None,
) -> None:
    """Write low-rank updates, by our names of the matrices, for the model called `base`, a path or a name on the hub,
    there of a `revision`. An error leaves what was at `path` before."""
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
        "revision": revision,
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
        write_json(temporary / ADAPTER_CONFIG, values)
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


def merged(stored: StoredModel, adapter: dict[str, LowRank], replaced: dict[str, Tensor] | None = None) -> StoredModel:
    """A model with an adapter merged into its weights as they are read, some of which it replaces. A quantised model
    becomes bfloat16. Reading raises ValueError for a sum that is too large for its type."""

    def read(name: str) -> Tensor:
        weight = stored.read(name)
        weight = weight.bfloat16() if stored.quantised else weight
        if replaced and name in replaced:
            weight = converted(name, replaced[name], weight.dtype)
        return adapter[name].added_to(weight, name) if name in adapter else weight

    dtype = torch.bfloat16 if stored.quantised else stored.dtype
    return dataclasses.replace(stored, read=read, dtype=dtype, packed=None, quantised=False)


def read_adapter_config(path: Path) -> dict[str, Any]:
    """The contents of `adapter_config.json`. Raises ValueError if it does not describe a plain LoRA adapter."""
    file = path / ADAPTER_CONFIG
    values = json_object(file)
    if lacking := [key for key in ("peft_type", "r", "lora_alpha") if key not in values]:
        raise ValueError(f"{file} is not the configuration of a LoRA adapter of peft: it has no {lacking[0]}")
    kind, rank, alpha = values["peft_type"], values["r"], values["lora_alpha"]
    if kind != "LORA" or type(rank) is not int or rank < 1 or not is_number(alpha):
        raise ValueError(f"{file} has a {kind} adapter of rank {rank}, alpha {alpha}; bluejay reads LORA")
    if values.get("alora_invocation_tokens"):
        raise ValueError(
            f"{file} describes an adapter that only some tokens switch on; bluejay reads those that are always on"
        )
    if (start := values.get("init_lora_weights")) not in STARTS:
        raise ValueError(
            f"{file}: init_lora_weights is {start!r}, so the adapter belongs to a base that its training changed; "
            "peft's save_pretrained with path_initial_model_for_weight_conversion makes it one of the model itself"
        )
    for key, value in values.items():
        if value and key not in KNOWN:
            raise ValueError(
                f"{file}: {key} is {value!r}, which bluejay does not compute; peft's merge_and_unload makes a whole "
                "model of such an adapter"
            )
    saved = values.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(one, str) for one in saved):
        raise ValueError(f"{file}: modules_to_save is {saved!r}; it must be a list of names of modules")
    for key in ("alpha_pattern", "rank_pattern"):
        check_patterns(values.get(key) or {}, f"{file}: {key}")
    if not all(type(one) is int and one >= 1 for one in (values.get("rank_pattern") or {}).values()):
        raise ValueError(f"{file}: rank_pattern is {values['rank_pattern']!r}; a rank is a whole number of at least 1")
    if not isinstance(values.get("base_model_name_or_path"), str) or not values["base_model_name_or_path"]:
        raise ValueError(f"{file} does not name the model that it adapts in base_model_name_or_path")
    return values


def check_patterns(patterns: Any, name: str) -> None:
    """Raise ValueError, with the key's name, unless it maps regular expressions for names of modules to numbers."""
    if not isinstance(patterns, dict) or not all(map(is_number, patterns.values())):
        raise ValueError(f"{name} is {patterns!r}; it must map names of modules to numbers")
    for pattern in patterns:
        try:
            re.compile(f"({pattern})")
        except re.error as error:
            raise ValueError(f"{name} has {pattern!r}, which is not a regular expression: {error}") from None


def base_of(values: dict[str, Any]) -> str:
    """The path or the hub's name of the model that an adapter adapts, with the revision that its file names."""
    base, revision = str(values["base_model_name_or_path"]), values.get("revision")
    return f"{base}@{revision}" if revision and not Path(base).exists() else base


def read_adapter(path: Path, config: GPTConfig) -> Adapter:
    """The contents of an adapter's directory. Raises FileNotFoundError if there are no weights; ValueError, naming the
    first tensor that does not fit the model."""
    values, file = read_adapter_config(path), path / TENSORS
    if not file.is_file() and not (path / TORCH_TENSORS).is_file():
        raise FileNotFoundError(f"{path} is an adapter without weights: it has no {TENSORS}")
    names, tensor = open_safetensors(file) if file.is_file() else open_torch(file := path / TORCH_TENSORS)
    n_rows, (config, copies) = config.vocab_size, adapted_config(config, names, tensor, values)
    remaining, shapes = set(names) - copies, weight_shapes(config)
    adapter, seen = Adapter({}, {}, config), dict[str, Tensor]()
    for stored in stored_tensors(config, shapes):
        kind = stored.name.rpartition(".")[2]
        modules = modules_of(stored.name, config)
        rows = [shapes[name][0] for name in stored.weights]
        shape = [sum(rows), *shapes[stored.weights[0]][1:]]
        for name in whole_names(stored.name, config):
            if name in remaining:
                remaining.remove(name)
                whole = tensor(name).T if stored.transposed else tensor(name)
                if list(whole.shape) != shape:
                    raise ValueError(f"{file}: {name} is {list(whole.shape)}; the model's is {shape}")
                check_type(whole, f"{file}: {name}")
                if stored.name in seen and not same_numbers(whole, seen[stored.name]):
                    raise ValueError(f"{file} has two tensors for {stored.name}, which differ")
                seen[stored.name] = whole
                adapter.replaced.update({one: unfuse(stored, whole, one, rows, config) for one in stored.weights})
        module = next((name for name in modules if f"{PREFIX}{name}.lora_A.weight" in remaining), modules[0])
        pair = [f"{PREFIX}{module}.lora_{letter}.weight" for letter in "AB"]
        if kind != "weight" or not remaining.issuperset(pair):
            continue
        remaining.difference_update(pair)
        a, b = (tensor(name) for name in pair)
        if len(shape) != 2 or a.ndim != 2 or a.shape[1] != shape[1] or b.shape != (shape[0], len(a)):
            raise ValueError(f"{file}: {pair[0]} is {list(a.shape)} and its B {list(b.shape)}; {module} does not fit")
        if len(a) != (rank := of_module(module, values, "rank_pattern", values["r"])):
            raise ValueError(f"{file}: {pair[0]} has the rank {len(a)}; {ADAPTER_CONFIG} makes it {rank}")
        for name, half in zip(pair, (a, b), strict=True):
            check_type(half, f"{file}: {name}")
        scale = scale_of(module, len(a), values)
        adapter.updates.update(
            {name: LowRank(a, unfuse(stored, b, name, rows, config), scale) for name in stored.weights}
        )
    lacking = [name for name in ("head.weight", "head.bias") if name in shapes and name not in adapter.replaced]
    if config.vocab_size != n_rows and lacking:
        rows = f"an embedding of {config.vocab_size} rows, where the model has {n_rows}"
        raise ValueError(f"{file} has {rows}, and no head of as many rows")
    if remaining or not (adapter.updates or adapter.replaced):
        unknown = min(remaining, default="no tensor")
        raise ValueError(f"{file} has {unknown}, which does not update a matrix of the model")
    return adapter


def modules_of(name: str, config: GPTConfig) -> list[str]:
    """The names of modules under which an adapter may have a tensor; a head is never that of the embedding."""
    names = names_of(name, dataclasses.replace(config, tied=False))
    return list(dict.fromkeys(one.rpartition(".")[0] for one in names))


def whole_names(name: str, config: GPTConfig) -> list[str]:
    """The names under which an adapter may hold a tensor whole."""
    kind = name.rpartition(".")[2]
    return [f"{PREFIX}{module}{part}.{kind}" for module in modules_of(name, config) for part in ("", ".base_layer")]


def adapted_config(
    config: GPTConfig, names: Collection[str], tensor: Callable[[str], Tensor], values: dict[str, Any]
) -> tuple[GPTConfig, set[str]]:
    """The configuration of the adapted model, and the names of tensors that are only copies of a tied embedding. peft
    saves the embedding with the head when tokens were added, and separates a tied pair if it trains one of them."""
    name = next(one.name for one in stored_tensors(config, weight_shapes(config)) if one.weights == ("embed.weight",))
    whole = [tensor(one) for one in whole_names(name, config) if one in names]
    heads = {one for one in names if set(one.split(".")) & set(HEADS) and not one.endswith(".bias")}
    copied = bool(whole) and all(one.rpartition(".")[0].endswith(HEADS) for one in heads)
    copied = copied and all(same_numbers(tensor(one), whole[0]) for one in heads)
    saved = tuple(values.get("modules_to_save") or ())
    trained = name.removesuffix(".weight").endswith(saved)
    kept = bool(values.get("ensure_weight_tying")) and any(one.rpartition(".")[2] in TIED for one in saved)
    alone = bool(whole) and not heads and trained and not kept
    tied = config.tied and not alone and (copied or not heads)
    n_rows = len(whole[0]) if whole and whole[0].ndim == 2 else config.vocab_size
    return dataclasses.replace(config, tied=tied, vocab_size=n_rows), heads if tied else set()


def scale_of(module: str, rank: int, values: dict[str, Any]) -> float:
    """alpha / rank of a module."""
    alpha = of_module(module, values, "alpha_pattern", values["lora_alpha"])
    return alpha / (math.sqrt(rank) if values.get("use_rslora") else rank)


def of_module(module: str, values: dict[str, Any], key: str, default: int | float) -> int | float:
    """The number that the first pattern of a key that matches a module's name gives it, as in peft, or the default."""
    patterns = values.get(key) or {}
    return next((patterns[name] for name in patterns if re.fullmatch(rf"(.*\.)?({name})", module)), default)
