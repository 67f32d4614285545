"""Models in GGUF files, llama.cpp's format: GPT-2, GPT-NeoX, Llama with Mistral, Qwen2 and Qwen3. Quantised tensors
are decoded when read.

Names, the order of rows and the meaning of fields follow llama.cpp's `convert_hf_to_gguf.py`.
"""

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf.constants import GGMLQuantizationType
from torch import Tensor

from bluejay.gpt.config import GPTConfig, RotaryScaling
from bluejay.gpt.formats.companions import CARD, LICENCE_KEYS, Companions, card_stating
from bluejay.gpt.formats.families import FAMILIES
from bluejay.gpt.formats.gguf_file import GGUFFile, read_parts
from bluejay.gpt.formats.gguf_tokenizer import gguf_tokenizer, named_ids
from bluejay.gpt.formats.rotary import FAST_TURNS, SLOW_TURNS, linear_scaling, yarn_attention
from bluejay.gpt.formats.tensors import StoredModel, converted
from bluejay.gpt.formats.values import is_number
from bluejay.gpt.model import rotary_angles, weight_shapes
from bluejay.recipe import check

ARCHITECTURES = {"gpt2": "gpt2", "gptneox": "gpt_neox", "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""`general.architecture` -> family. A Mistral is a `llama`, whose arithmetic it has without a window."""
REORDERED = ("llama", "mistral")
"""Families whose rows of q and k have another order in the file."""
LLAMAS = (*REORDERED, "qwen2", "qwen3")
"""Families that have RMS norms, and q, k and v apart."""
CONFIG_KEYS = {
    "n_layer": "block_count",
    "d_model": "embedding_length",
    "n_head": "attention.head_count",
    "d_ff": "feed_forward_length",
    "n_ctx": "context_length",
}
"""Field of GPTConfig -> field of the file, after the architecture's prefix."""
REFUSED = {
    "attention.causal": True,
    "rope.scaling.attn_factor": 1.0,
    "rope.scaling.yarn_ext_factor": 1.0,
    "rope.scaling.yarn_log_multiplier": 0.0,
    "rope.scaling.yarn_beta_fast": FAST_TURNS,
    "rope.scaling.yarn_beta_slow": SLOW_TURNS,
    "expert_count": 0,
    "attention.sliding_window": 0,
    "attention.scale": 0.0,
    "attention.max_alibi_bias": 0.0,
    "attention.clamp_kqv": 0.0,
    "logit_scale": 1.0,
    "residual_scale": 1.0,
    "embedding_scale": 1.0,
}
"""Field -> the only value that is accepted if the field is present."""
YARN_ATTENTION = "rope.scaling.yarn_attn_factor"
ROPE_FIELDS = {
    *("rope.dimension_count", "rope.freq_base", "rope.scale_linear", "rope.scaling.type", "rope.scaling.factor"),
    *("rope.scaling.original_context_length", "rope.scaling.finetuned", YARN_ATTENTION),
}
KNOWN_FIELDS = {
    *("attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon", "attention.head_count_kv"),
    *("attention.key_length", "attention.value_length", "use_parallel_residual", "expert_used_count"),
    *("vocab_size", "tensor_data_layout", *CONFIG_KEYS.values(), *REFUSED),
}
"""Fields that are understood, or that do not change the arithmetic; the former set only with rotary positions."""
DECODER_TENSORS = {"embed": "token_embd", "position": "position_embd", "norm": "output_norm", "head": "output"}
"""Our module outside the blocks -> the tensor's name."""
BLOCK_TENSORS = {
    "norm": "attn_norm",
    "attention.q": "attn_q",
    "attention.k": "attn_k",
    "attention.v": "attn_v",
    "attention.q_norm": "attn_q_norm",
    "attention.k_norm": "attn_k_norm",
    "attention.out": "attn_output",
    "mlp_norm": "ffn_norm",
    "mlp.gate": "ffn_gate",
    "mlp.up": "ffn_up",
    "mlp.down": "ffn_down",
}
"""Our module of a block -> the tensor's name."""
ROTATED = ("attention.q", "attention.k")
QKV = "attn_qkv"
"""Tensor of a block in which q, k and v are fused."""
ROTARY_FACTORS = "rope_freqs.weight"
"""Tensor of the factors by which Llama 3.1 slows each rotated pair down."""
SAMPLING = {
    "temperature": "general.sampling.temp",
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}
"""Key of generation_config.json -> field."""
LICENCE = dict(zip(LICENCE_KEYS, ("general.license", "general.license.name", "general.license.link"), strict=True))
"""Entry of a card's front matter -> field."""
HALF_DTYPES = {GGMLQuantizationType.F16: torch.float16, GGMLQuantizationType.BF16: torch.bfloat16}
"""Types of numbers of 16 bits -> torch's."""
FLOAT_KINDS = {*HALF_DTYPES, GGMLQuantizationType.F32, GGMLQuantizationType.F64}
"""Types in which each number stands for itself; in others, blocks of numbers share a scale."""


@dataclass(frozen=True)
class Location:
    """The place of a weight in the file."""

    tensor: str
    rows: slice | np.ndarray
    """Rows of the tensor, in our order."""


def open_gguf(path: Path) -> StoredModel:
    """Open a GGUF file, with all other parts if it is a part. Weights are float32, or float16 or bfloat16 if all
    matrices have that type. Raises ValueError, naming the file and the field or tensor, for a damaged file, an unknown
    architecture, a setting that the model does not implement, and tensors that are missing, unknown or of the wrong
    shape; FileNotFoundError for a missing part."""
    file = read_parts(path)
    try:
        config = read_config(file)
        locations = locate_weights(file, config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    matrices = {t.kind for name, t in file.tensors.items() if len(t.shape) > 1 and not name.startswith("position")}
    dtype = HALF_DTYPES.get(matrices.pop(), torch.float32) if len(matrices) == 1 else torch.float32

    def read(name: str) -> Tensor:
        location = locations[name]
        try:
            tensor = file.tensors[location.tensor].read(location.rows)
            return tensor if tensor.dtype == dtype else converted("it", tensor, dtype)
        except ValueError as error:
            raise ValueError(f"{path}: {location.tensor}: {error}") from None

    stated = {key: str(file.fields[name]) for key, name in LICENCE.items() if file.fields.get(name)}
    sampling = {key: file.fields[name] for key, name in SAMPLING.items() if is_number(file.fields.get(name))}
    return StoredModel(
        config,
        read,
        dtype,
        lambda: gguf_tokenizer(path, file.fields),
        file.n_bytes,
        stated.get("license"),
        quantised=any(tensor.kind not in FLOAT_KINDS for tensor in file.tensors.values()),
        companions=Companions(sampling | named_ids(file.fields), {CARD: card_stating(stated)} if stated else {}),
    )


def read_config(file: GGUFFile) -> GPTConfig:
    """The configuration, from a file's fields and the names of its tensors. Raises ValueError, naming the field, if no
    configuration describes the model."""
    fields, tensors = file.fields, file.tensors
    if (made := fields.get("general.type", "model")) != "model":
        raise ValueError(
            f"its general.type is {made!r}; bluejay reads a 'model', into which llama-export-lora merges an adapter"
        )
    architecture = fields.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise ValueError(f"its architecture is {architecture!r}; bluejay reads {', '.join(map(repr, ARCHITECTURES))}")
    if "token_embd.weight" not in tensors:
        raise ValueError("it has no token_embd.weight")
    family = ARCHITECTURES[architecture]
    prefix = f"{architecture}."
    own = {key.removeprefix(prefix): value for key, value in fields.items() if key.startswith(prefix)}
    known = KNOWN_FIELDS if family == "gpt2" else KNOWN_FIELDS | ROPE_FIELDS
    for key, value in own.items():
        several = isinstance(value, np.ndarray)
        if key in REFUSED and (several or value != REFUSED[key]):
            raise ValueError(f"{prefix}{key} is {value!r}; bluejay reads models where it is {REFUSED[key]!r}")
        if key not in known and (several or value not in (0, "", "none")):
            raise ValueError(f"{prefix}{key} is {value!r}; bluejay does not know what it means")
    given = {ours: field(own, architecture, key) for ours, key in CONFIG_KEYS.items()}
    if not 1 <= given["n_layer"] <= len(tensors):
        raise ValueError(f"{architecture}.block_count is {given['n_layer']}, but it has {len(tensors)} tensors")
    given |= {
        "family": family,
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "qkv_bias": "blk.0.attn_q.bias" in tensors or f"blk.0.{QKV}.bias" in tensors,
        "out_bias": "blk.0.attn_output.bias" in tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in tensors,
        "tied": "output.weight" not in tensors,
        "norm_eps": field(own, architecture, f"attention.layer_norm_{'rms_' if family in LLAMAS else ''}epsilon"),
    }
    if family != "gpt2":
        given |= rotary(own, architecture, given)
    config = check(GPTConfig, FAMILIES[family].common | given, architecture)
    if ROTARY_FACTORS in tensors:
        if config.rotary_scaling is not None:
            raise ValueError(f"it has both {ROTARY_FACTORS} and a factor on all positions; bluejay reads either")
        config = dataclasses.replace(config, rotary_scaling=rotary_scaling(file, config))
    return config


def rotary(own: dict[str, Any], architecture: str, given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a model with rotary positions: all but GPT-2."""

    def optional(key: str, default: Any) -> Any:
        return field(own, architecture, key) if key in own else default

    whole = optional("attention.key_length", given["d_model"] // given["n_head"])
    rotated = optional("rope.dimension_count", whole)
    # The older field holds the factor by itself, and must be read indefinitely (ggml's docs/gguf.md).
    factor = optional("rope.scaling.factor", optional("rope.scale_linear", 1.0))
    kind = own.get("rope.scaling.type", "linear")
    if kind not in ("none", "linear", "yarn"):
        raise ValueError(f"{architecture}.rope.scaling.type is {kind!r}; bluejay reads 'none', 'linear' and 'yarn'")
    scaling = linear_scaling(float(factor)) if kind == "linear" else None
    if kind == "yarn" and factor != 1:
        n_ctx = optional("rope.scaling.original_context_length", given["n_ctx"])
        attention_factor = yarn_attention(factor)
        stated = optional(YARN_ATTENTION, 1.0)  # llama.cpp does not compute with it
        if stated != 1 and not math.isclose(stated, attention_factor, rel_tol=1e-4):
            raise ValueError(
                f"{architecture}.{YARN_ATTENTION} is {stated}; with the factor {factor}, llama.cpp and bluejay "
                f"compute {attention_factor:g}"
            )
        scaling = RotaryScaling(float(factor), SLOW_TURNS, FAST_TURNS, n_ctx, "whole_pairs", attention_factor)
    fields = {
        "rotary_dim": rotated,
        "rotary_base": optional("rope.freq_base", 10000.0),
        "rotary_scaling": scaling and dataclasses.asdict(scaling),
    }
    if architecture == "gptneox":
        # The file does not tell which GELU the model has; llama.cpp computes the tanh approximation.
        return fields | {"parallel": own.get("use_parallel_residual", True)}
    if rotated != whole or own.get("attention.value_length", whole) != whole:
        raise ValueError(f"it rotates {rotated} of {whole} dimensions of a head; bluejay reads those that rotate all")
    n_kv_head = optional("attention.head_count_kv", given["n_head"])
    return fields | {"n_kv_head": n_kv_head, "head_dim": whole, "activation": "silu"}


def field(own: dict[str, Any], architecture: str, key: str) -> Any:
    """The value of a field. Raises ValueError if it is not one positive number."""
    value = own.get(key)
    if isinstance(value, np.ndarray):
        raise ValueError(f"{architecture}.{key} differs from layer to layer; bluejay reads models where it does not")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{architecture}.{key} is {value!r}; it must be a positive number")
    return value


def rotary_scaling(file: GGUFFile, config: GPTConfig) -> RotaryScaling:
    """Llama 3.1's slower rotation. The file holds one factor per pair; they must equal those of the published setting.
    Raises ValueError for other factors."""
    factors = file.tensors[ROTARY_FACTORS].read().float()
    scaling = RotaryScaling(factor=float(factors.max()), low=1.0, high=4.0, n_ctx=8192)
    one = torch.ones(1, 1, dtype=torch.long)
    plain, slowed = (
        rotary_angles(one, dataclasses.replace(config, rotary_scaling=setting)) for setting in (None, scaling)
    )
    assert plain is not None and slowed is not None
    angles = plain[1].flatten().asin()
    if angles.shape != factors.shape or not torch.allclose(angles / factors, slowed[1].flatten().asin(), rtol=1e-3):
        raise ValueError(f"{ROTARY_FACTORS} is not Llama 3.1's; bluejay reads no other scaling of positions")
    return scaling


def locate_weights(file: GGUFFile, config: GPTConfig) -> dict[str, Location]:
    """The location of each weight. Raises ValueError if a tensor is missing, unknown or of the wrong shape."""
    locations = {name: locate(name, tuple(shape), file, config) for name, shape in weight_shapes(config).items()}
    unknown = file.tensors.keys() - {location.tensor for location in locations.values()} - {ROTARY_FACTORS}
    if unknown:
        raise ValueError(f"{min(unknown)} has no place in a {config.family} model")
    return locations


def locate(weight: str, shape: tuple[int, ...], file: GGUFFile, config: GPTConfig) -> Location:
    """The location of a weight of the given shape. Raises ValueError if its tensor is missing or of the wrong shape."""
    layer, module, kind = parts_of(weight)
    name, fused = named(layer, module, kind), f"blk.{layer}.{QKV}.{kind}"
    if module in ("attention.q", "attention.k", "attention.v") and fused in file.tensors:
        q, kv = config.n_head * config.d_head, config.kv_heads * config.d_head
        begin = {"q": 0, "k": q, "v": q + kv}[module[-1]]
        return Location(tensor_named(file, fused, (q + 2 * kv, *shape[1:])), slice(begin, begin + shape[0]))
    name = tensor_named(file, name, shape)
    if config.family not in REORDERED or module not in ROTATED:
        return Location(name, slice(None))
    return Location(name, rotated_rows(shape[0], config))


def parts_of(weight: str) -> tuple[str, str, str]:
    """Layer ("" outside the blocks), module and kind of a weight of ours: "blocks.3.mlp.up.bias" is 3, mlp.up, bias."""
    parts = re.fullmatch(r"(?:blocks\.(\d+)\.)?(.+)\.(weight|bias)", weight)
    assert parts is not None, weight
    layer, module, kind = parts.groups(default="")
    return layer, module, kind


def named(layer: str, module: str, kind: str) -> str:
    """The tensor of a weight that is not fused."""
    return f"blk.{layer}.{BLOCK_TENSORS[module]}.{kind}" if layer else f"{DECODER_TENSORS[module]}.{kind}"


def rotated_rows(n_rows: int, config: GPTConfig) -> np.ndarray:
    """Where a Llama's rows of q and k are in the file. llama.cpp rotates neighbouring rows, so it stores the rows of a
    head in the order 0, H/2, 1, H/2 + 1, ..."""
    return np.arange(n_rows).reshape(-1, config.d_head // 2, 2).swapaxes(1, 2).ravel()


def tensor_named(file: GGUFFile, name: str, shape: tuple[int, ...]) -> str:
    """The given name. Raises ValueError if the file has no tensor of that name and shape."""
    if name not in file.tensors:
        raise ValueError(f"it has no {name}")
    found = file.tensors[name].shape
    if found != shape:
        raise ValueError(f"{name} is {list(found)}; its fields make it {list(shape)}")
    return name
