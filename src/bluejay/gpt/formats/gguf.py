"""GGUF files, llama.cpp's format: GPT-2, GPT-NeoX and Llama, with every quantisation undone as they are read.

Names, the order of rows and the meaning of fields follow llama.cpp's `convert_hf_to_gguf.py`.
"""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf.constants import GGMLQuantizationType
from torch import Tensor

from bluejay.gpt.config import GPTConfig, RotaryScaling
from bluejay.gpt.formats.families import FAMILIES
from bluejay.gpt.formats.gguf_file import GGUFFile, read_gguf
from bluejay.gpt.formats.gguf_tokenizer import gguf_tokenizer
from bluejay.gpt.formats.layouts import weight_shapes
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.gpt.model import rotary_angles
from bluejay.recipe import check

ARCHITECTURES = {"gpt2": "gpt2", "gptneox": "gpt_neox", "llama": "llama"}
"""`general.architecture`, and our name of the family."""
KEYS = {
    "n_layer": "block_count",
    "d_model": "embedding_length",
    "n_head": "attention.head_count",
    "d_ff": "feed_forward_length",
    "n_ctx": "context_length",
}
REFUSED = {
    "rope.scaling.type": "none",
    "expert_count": 0,
    "attention.sliding_window": 0,
    "attention.scale": 0.0,
    "attention.max_alibi_bias": 0.0,
    "attention.clamp_kqv": 0.0,
    "logit_scale": 1.0,
    "residual_scale": 1.0,
    "embedding_scale": 1.0,
}
"""Fields that, where they are there, must have this value."""
DECODER = {"embed": "token_embd", "position": "position_embd", "norm": "output_norm", "head": "output"}
BLOCK = {
    "norm": "attn_norm",
    "attention.q": "attn_q",
    "attention.k": "attn_k",
    "attention.v": "attn_v",
    "attention.out": "attn_output",
    "mlp_norm": "ffn_norm",
    "mlp.gate": "ffn_gate",
    "mlp.up": "ffn_up",
    "mlp.down": "ffn_down",
}
QKV = "attn_qkv"
"""The tensor of a block that holds q, k and v one after the other."""
ROTARY_FACTORS = "rope_freqs.weight"
UNQUANTISED = {GGMLQuantizationType.F16: torch.float16, GGMLQuantizationType.BF16: torch.bfloat16}


@dataclass(frozen=True)
class Place:
    """Where a weight lies: rows of a tensor."""

    tensor: str
    rows: slice | np.ndarray


def open_gguf(path: Path) -> StoredModel:
    """Open a GGUF file.

    Weights are float32, or the matrices' own type where that is float16 or bfloat16 throughout. Raises ValueError,
    naming the file and the field or tensor: a damaged file, another architecture, a setting that the model has no
    arithmetic for, tensors that are missing, left over or of another shape.
    """
    file = read_gguf(path)
    try:
        config = config_of(file)
        places = places_of(file, config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    matrices = {t.kind for name, t in file.tensors.items() if len(t.shape) > 1 and not name.startswith("position")}
    dtype = UNQUANTISED.get(matrices.pop(), torch.float32) if len(matrices) == 1 else torch.float32

    def read(ours: str) -> Tensor:
        place = places[ours]
        try:
            return file.tensors[place.tensor].read(place.rows).to(dtype)
        except ValueError as error:
            raise ValueError(f"{path}: {place.tensor}: {error}") from None

    licence = file.fields.get("general.license")
    return StoredModel(
        config, read, dtype, lambda: gguf_tokenizer(path, file.fields), path.stat().st_size, licence and str(licence)
    )


def config_of(file: GGUFFile) -> GPTConfig:
    """The configuration that a file's fields and the names of its tensors tell.

    Raises ValueError, naming the field, for what no configuration can say.
    """
    fields, tensors = file.fields, file.tensors
    architecture = fields.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise ValueError(f"its architecture is {architecture!r}; bluejay reads {', '.join(map(repr, ARCHITECTURES))}")
    if fields.get("split.count", 1) != 1:
        raise ValueError("it is one of several parts; llama.cpp's `gguf-split --merge` makes them one file")
    if "token_embd.weight" not in tensors:
        raise ValueError("it has no token_embd.weight")
    family = ARCHITECTURES[architecture]
    own = {key.removeprefix(f"{architecture}."): value for key, value in fields.items()}
    for key, only in REFUSED.items():
        if own.get(key, only) != only:
            raise ValueError(f"{architecture}.{key} is {own[key]!r}; bluejay reads models where it is {only!r}")
    given = {ours: field(own, architecture, key) for ours, key in KEYS.items()}
    if not 1 <= given["n_layer"] <= len(tensors):
        raise ValueError(f"{architecture}.block_count is {given['n_layer']}, but it has {len(tensors)} tensors")
    given |= {
        "family": family,
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "qkv_bias": "blk.0.attn_q.bias" in tensors or f"blk.0.{QKV}.bias" in tensors,
        "out_bias": "blk.0.attn_output.bias" in tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in tensors,
        "tied": "output.weight" not in tensors,
        "norm_eps": field(own, architecture, f"attention.layer_norm_{'rms_' if family == 'llama' else ''}epsilon"),
    }
    if family != "gpt2":
        given |= rotary(own, architecture, given)
    config = check(GPTConfig, FAMILIES[family].common | given, architecture)
    if ROTARY_FACTORS in tensors:
        config = dataclasses.replace(config, rotary_scaling=rotary_scaling(file, config))
    return config


def rotary(own: dict[str, Any], architecture: str, given: dict[str, Any]) -> dict[str, Any]:
    """The fields of GPT-NeoX and Llama that GPT-2 does not have."""
    whole = own.get("attention.key_length", given["d_model"] // given["n_head"])
    rotated = own.get("rope.dimension_count", whole)
    fields = {"rotary_dim": rotated, "rotary_base": own.get("rope.freq_base", 10000.0)}
    if architecture == "gptneox":
        # The file does not say which GELU; llama.cpp computes the tanh approximation.
        return fields | {"parallel": own.get("use_parallel_residual", True)}
    if rotated != whole or own.get("attention.value_length", whole) != whole:
        raise ValueError(f"it rotates {rotated} dimensions of a head's {whole}; bluejay reads Llamas that rotate all")
    n_kv_head = given["n_head"]
    if "attention.head_count_kv" in own:
        n_kv_head = field(own, architecture, "attention.head_count_kv")
    return fields | {"n_kv_head": n_kv_head, "head_dim": whole, "activation": "silu"}


def field(own: dict[str, Any], architecture: str, key: str) -> Any:
    """A field that must be one positive number."""
    value = own.get(key)
    if isinstance(value, np.ndarray):
        raise ValueError(f"{architecture}.{key} differs from layer to layer; bluejay reads models where it does not")
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"{architecture}.{key} is {value!r}; it must be a positive number")
    return value


def rotary_scaling(file: GGUFFile, config: GPTConfig) -> RotaryScaling:
    """Llama 3.1's longer wavelengths. The file has one factor for each pair; that the published setting gives the same
    factors is checked."""
    factors = file.tensors[ROTARY_FACTORS].read().float()
    scaling = RotaryScaling(factor=float(factors.max()), low=1.0, high=4.0, n_ctx=8192)
    one = torch.ones(1, 1, dtype=torch.long)
    plain, slowed = (
        rotary_angles(one, dataclasses.replace(config, rotary_scaling=setting)) for setting in (None, scaling)
    )
    assert plain is not None and slowed is not None
    wanted = plain[1].flatten().asin()
    if wanted.shape != factors.shape or not torch.allclose(wanted / factors, slowed[1].flatten().asin(), rtol=1e-3):
        raise ValueError(f"{ROTARY_FACTORS} is not what Llama 3.1 has; bluejay reads no other scaling of positions")
    return scaling


def places_of(file: GGUFFile, config: GPTConfig) -> dict[str, Place]:
    """Where each of our weights lies. Raises ValueError where a tensor is missing, left over or of another shape."""
    try:
        shapes = weight_shapes(config)
    except RuntimeError:  # more numbers than torch can count
        raise ValueError("the sizes that its fields give are absurd") from None
    places = {ours: place_of(ours, tuple(shape), file, config) for ours, shape in shapes.items()}
    spare = file.tensors.keys() - {place.tensor for place in places.values()} - {ROTARY_FACTORS}
    if spare:
        raise ValueError(f"{min(spare)} has no place in a {config.family} model")
    return places


def place_of(ours: str, shape: tuple[int, ...], file: GGUFFile, config: GPTConfig) -> Place:
    """Where a weight of ours, of the given shape, lies. Raises ValueError where the tensor is not there or not so."""
    parts = re.fullmatch(r"(?:blocks\.(\d+)\.)?(.+)\.(weight|bias)", ours)
    assert parts is not None, ours
    layer, module, kind = parts.groups()
    if layer is None:
        return Place(whole_tensor(file, f"{DECODER[module]}.{kind}", shape), slice(None))
    name, fused = f"blk.{layer}.{BLOCK[module]}.{kind}", f"blk.{layer}.{QKV}.{kind}"
    if module in ("attention.q", "attention.k", "attention.v") and fused in file.tensors:
        q, kv = config.n_head * config.d_head, config.kv_heads * config.d_head
        begin = {"q": 0, "k": q, "v": q + kv}[module[-1]]
        return Place(whole_tensor(file, fused, (q + 2 * kv, *shape[1:])), slice(begin, begin + shape[0]))
    name = whole_tensor(file, name, shape)
    if config.family != "llama" or module not in ("attention.q", "attention.k"):
        return Place(name, slice(None))
    # llama.cpp turns neighbours and stores a head's rows so: 0, H/2, 1, H/2 + 1, ...
    return Place(name, np.arange(shape[0]).reshape(-1, config.d_head // 2, 2).swapaxes(1, 2).ravel())


def whole_tensor(file: GGUFFile, name: str, shape: tuple[int, ...]) -> str:
    """The name of a tensor that is there and has a shape. Raises ValueError, naming it, where not."""
    if name not in file.tensors:
        raise ValueError(f"it has no {name}")
    found = file.tensors[name].shape
    if found != shape:
        raise ValueError(f"{name} is {list(found)}; its fields make it {list(shape)}")
    return name
