"""GGUF files for llama.cpp: the inverse of `gguf`, for GPT-2, GPT-NeoX, Llama, Mistral, Qwen2 and Qwen3.

Tensors and fields are those of llama.cpp's `convert_hf_to_gguf.py`; blocks are rounded by the `gguf` package.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, LlamaFileType
from gguf.quants import quantize
from torch import Tensor

from bluejay.files import atomic_file
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.companions import CARD, front_matter
from bluejay.gpt.formats.gguf import (
    ARCHITECTURES,
    CONFIG_KEYS,
    LICENCE,
    LLAMAS,
    QKV,
    REORDERED,
    ROTARY_FACTORS,
    ROTATED,
    SAMPLING,
    named,
    parts_of,
    read_config,
    rotated_rows,
)
from bluejay.gpt.formats.gguf_file import GGUFFile, GGUFTensor
from bluejay.gpt.formats.gguf_vocabulary import vocabulary
from bluejay.gpt.formats.rotary import is_llama3
from bluejay.gpt.formats.tensors import StoredModel, check_finite, converted, tokenizer_of
from bluejay.gpt.formats.values import is_number
from bluejay.gpt.model import rotary_frequencies, weight_shapes
from bluejay.progress import progress, say

F32, F16, BF16 = GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16
Q8_0, Q4_0 = GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_0
DTYPES = {F32: torch.float32, F16: torch.float16, BF16: torch.bfloat16}
BLOCK_KINDS = {"q8_0": Q8_0, "q4_0": Q4_0}
"""Names of the quantised types that can be written, as llama.cpp's users write them."""
FILE_TYPES = {
    F32: LlamaFileType.ALL_F32,
    F16: LlamaFileType.MOSTLY_F16,
    BF16: LlamaFileType.MOSTLY_BF16,
    Q8_0: LlamaFileType.MOSTLY_Q8_0,
    Q4_0: LlamaFileType.MOSTLY_Q4_0,
}
ARCHITECTURE_OF = {family: architecture for architecture, family in ARCHITECTURES.items()} | {"mistral": "llama"}
"""Family -> `general.architecture`."""
BIASES = {"qkv_bias": "attention.q attention.k attention.v", "out_bias": "attention.out", "mlp_bias": "mlp.up mlp.down"}
"""Field of GPTConfig -> the modules that have a bias if it is set. llama.cpp wants all of them in GPT-NeoX."""


@dataclass(frozen=True)
class Target:
    """A tensor of the file."""

    name: str
    weights: tuple[str, ...]
    """Our names of the weights that it holds, one after the other."""
    shape: tuple[int, ...]
    kind: GGMLQuantizationType

    @property
    def n_bytes(self) -> int:
        """Its size in the file."""
        block, size = GGML_QUANT_SIZES[self.kind]
        return int(np.prod(self.shape)) // block * size


def write_gguf(stored: StoredModel, path: Path, form: torch.dtype | str | None = None) -> None:
    """Write a model, its tokenizer and its chat template; `form` is the type of the matrices, a name in `BLOCK_KINDS`
    among them (default: as stored, or float16 if they have several types). One tensor is in memory at a time; an error
    leaves `path` as it was. Raises ValueError where llama.cpp has no arithmetic for the model or cannot encode as its
    tokenizer does, and for a weight that is not a number or too large for the type; OSError when the disk is full."""
    config = stored.config
    kind = kind_of(form or stored.dtype or torch.float16)
    targets = list(tensors(config, kind))
    fields = fields_of(config)
    check_config(config, fields, targets)
    fields |= vocabulary(
        tokenizer_of(stored, path), config.vocab_size, stored.companions.generation, ARCHITECTURE_OF[config.family]
    )
    fields |= {"general.name": path.stem, "general.file_type": int(FILE_TYPES[kind])}
    fields |= {"general.quantization_version": 2} if kind in BLOCK_KINDS.values() else {}
    fields |= licence_fields(stored) | sampling_fields(stored.companions.generation)
    if config.activation == "gelu":
        say("llama.cpp computes GELU by its tanh approximation, so its logits differ a little from this model's")
    total = sum(target.n_bytes for target in targets)
    with atomic_file(path) as temporary, progress("write", total, "B") as bar:
        writer = GGUFWriter(temporary, ARCHITECTURE_OF[config.family])
        try:
            for key, value in fields.items():
                writer.add_key_value(key, value, *value_type(value))
            for target in targets:
                writer.add_tensor_info(target.name, target.shape, np.dtype(np.float32), target.n_bytes, target.kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for target in targets:
                writer.write_tensor_data(encoded(target, stored))
                bar.advance(target.n_bytes)
        finally:
            writer.close()


def licence_fields(stored: StoredModel) -> dict[str, Any]:
    """The fields of the licence, with its name and its address where the card states them."""
    card = front_matter(stored.companions.files.get(CARD, b"").decode("utf-8-sig", errors="replace"))[0]
    given = card | ({"license": stored.licence} if stored.licence else {})
    return {name: given[key] for key, name in LICENCE.items() if given.get(key)}


def sampling_fields(generation: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the defaults for generating that llama.cpp knows."""
    given = {name: (int if key == "top_k" else float, generation.get(key)) for key, name in SAMPLING.items()}
    return {name: kind(value) for name, (kind, value) in given.items() if is_number(value) and 0 <= value < 2**31}


def kind_of(form: torch.dtype | str) -> GGMLQuantizationType:
    """GGUF's type of a form. Raises ValueError, naming those that can be written."""
    kinds = BLOCK_KINDS | {dtype: kind for kind, dtype in DTYPES.items()}
    if form not in kinds:
        raise ValueError(f"a GGUF file is written in float32, float16, bfloat16, q8_0 or q4_0; {form} is none of them")
    return kinds[form]


def value_type(value: Any) -> tuple[GGUFValueType, GGUFValueType | None]:
    """GGUF's type of a field's value, and of the elements of a list."""
    if isinstance(value, list):
        kinds = {int: GGUFValueType.INT32, float: GGUFValueType.FLOAT32, str: GGUFValueType.STRING}
        return GGUFValueType.ARRAY, kinds[type(value[0]) if value else str]
    if isinstance(value, bool):
        return GGUFValueType.BOOL, None
    if isinstance(value, int):
        return (GGUFValueType.UINT32 if value < 2**32 else GGUFValueType.UINT64), None
    return (GGUFValueType.FLOAT32 if isinstance(value, float) else GGUFValueType.STRING), None


def fields_of(config: GPTConfig) -> dict[str, Any]:
    """The fields of the architecture. Raises ValueError for a family that llama.cpp does not run."""
    if config.family not in ARCHITECTURE_OF:
        names = {"gptj": ("GPT-J", "vLLM and transformers load"), "gpt_neo": ("GPT-Neo", "transformers loads")}
        name, load = names[config.family]
        raise ValueError(
            f"llama.cpp cannot compute {name}, so no GGUF file of it would run; name a folder without .gguf instead: "
            f"{load} it, and with --quantize q4 `bluejay serve` runs it in 4 bits"
        )
    architecture, shape = ARCHITECTURE_OF[config.family], config.resolved
    fields: dict[str, Any] = {key: getattr(shape, ours) for ours, key in CONFIG_KEYS.items()}
    rms = "rms_" if config.family in LLAMAS else ""
    fields |= {f"attention.layer_norm_{rms}epsilon": config.norm_eps, "vocab_size": config.vocab_size}
    if config.family != "gpt2":
        fields |= {"rope.dimension_count": config.n_rotary, "rope.freq_base": float(config.rotary_base)}
        scaling = config.rotary_scaling
        if scaling is not None and not is_llama3(scaling):
            kind = "linear" if scaling.ramp == "turns" else "yarn"
            fields |= {"rope.scaling.type": kind, "rope.scaling.factor": float(scaling.factor)}
            fields |= {"rope.scaling.original_context_length": scaling.n_ctx} if kind == "yarn" else {}
    if config.family == "gpt_neox":
        fields["use_parallel_residual"] = config.parallel
    if config.family in LLAMAS:
        fields |= {"attention.head_count_kv": config.kv_heads}
        fields |= {"attention.key_length": config.d_head, "attention.value_length": config.d_head}
    return {f"{architecture}.{key}": value for key, value in fields.items()}


def tensors(config: GPTConfig, kind: GGMLQuantizationType) -> Iterator[Target]:
    """The tensors of a file whose matrices have a type. Vectors, positions and frequencies are float32. The head has 8
    bits where the other matrices have 4, as in llama.cpp's own files, where it has 6."""
    shapes = weight_shapes(config)
    if config.family == "gpt_neox":  # llama.cpp wants these
        shapes |= {name: shapes[name.replace("bias", "weight")][:1] for name in absent_biases(config)}
        shapes |= {"head.weight": shapes["embed.weight"]} if config.tied else {}
    head = "embed.weight" if config.tied and config.family != "gpt_neox" else "head.weight"
    for weight, shape in shapes.items():
        layer, module, suffix = parts_of(weight)
        name, parts = named(layer, module, suffix), (weight,)
        if module.startswith("attention.") and module[-1] in "qkv" and config.family not in LLAMAS:
            if module[-1] != "q":
                continue
            name = f"blk.{layer}.{QKV}.{suffix}"
            parts = tuple(f"blocks.{layer}.attention.{part}.{suffix}" for part in "qkv")
        whole = (sum(shapes[part][0] for part in parts), *shape[1:])
        wanted = Q8_0 if kind == Q4_0 and weight == head else kind
        yield Target(name, parts, whole, fitting(wanted, module, whole))
    scaling = config.rotary_scaling
    if scaling is not None and is_llama3(scaling) and ARCHITECTURE_OF[config.family] == "llama":
        yield Target(ROTARY_FACTORS, (), (config.n_rotary // 2,), F32)


def absent_biases(config: GPTConfig) -> list[str]:
    """The biases of blocks that the model does not have."""
    modules = " ".join(names for field, names in BIASES.items() if not getattr(config, field)).split()
    return [f"blocks.{layer}.{module}.bias" for layer in range(config.n_layer) for module in modules]


def fitting(kind: GGMLQuantizationType, module: str, shape: tuple[int, ...]) -> GGMLQuantizationType:
    """The type of a tensor: the wanted one for matrices whose rows are whole blocks of it, float16 for others."""
    if len(shape) == 1 or module == "position":
        return F32
    return kind if shape[-1] % GGML_QUANT_SIZES[kind][0] == 0 else F16


def check_config(config: GPTConfig, fields: dict[str, Any], targets: list[Target]) -> None:
    """Raise ValueError, naming the field, unless fields and tensors describe the model, read as llama.cpp does."""
    architecture = ARCHITECTURE_OF[config.family]
    described = {
        target.name: GGUFTensor(F32, target.shape, factors(config).view(np.uint8).reshape(-1, 4))
        if target.name == ROTARY_FACTORS
        else GGUFTensor(target.kind, target.shape, np.empty(0, np.uint8))
        for target in targets
    }
    file = GGUFFile({"general.architecture": architecture} | fields, described)
    found, meant = vars(read_config(file).resolved), vars(config.resolved)
    same = {"activation": {"gelu": "gelu_tanh"}.get(config.activation, config.activation)}
    same |= {"family": ARCHITECTURES[architecture]}
    if config.family == "gpt_neox":  # zeros are written for absent biases, and a tied matrix twice
        same |= dict.fromkeys(BIASES, True) | {"tied": False}
    if architecture in ("qwen2", "qwen3"):  # llama.cpp has no tensor for it
        found["out_bias"] = False
    for name, value in (meant | same).items():
        if found[name] != value:
            other = "none" if found[name] is None else found[name]
            raise ValueError(f"model.{name} is {value}; llama.cpp's {architecture} can only compute {other}")


def factors(config: GPTConfig) -> np.ndarray:
    """How much slower each rotated pair turns than without the scaling of positions."""
    plain = dataclasses.replace(config, rotary_scaling=None)
    return (rotary_frequencies(plain) / rotary_frequencies(config)).numpy()


def encoded(target: Target, stored: StoredModel) -> np.ndarray:
    """The numbers or blocks of a tensor, as they are in the file."""
    config = stored.config
    if target.name == ROTARY_FACTORS:
        return factors(config)
    parts = [read(name, target, stored) for name in target.weights]
    tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
    if target.kind in DTYPES:
        exact = converted(target.name, tensor, DTYPES[target.kind]).contiguous()
        return exact.view(torch.int16).numpy() if target.kind == BF16 else exact.numpy()
    check_finite(target.name, tensor)
    return quantize(tensor.float().contiguous().numpy(), target.kind)


def read(weight: str, target: Target, stored: StoredModel) -> Tensor:
    """A weight in the file's order of rows; zeros for a bias that the model does not have."""
    config = stored.config
    if weight in absent_biases(config):
        rows = target.shape[0] if len(target.weights) == 1 else config.n_head * config.d_head
        return torch.zeros(rows)
    if weight == "head.weight" and config.tied:
        return stored.read("embed.weight")
    tensor = stored.read(weight)
    if config.family in REORDERED and parts_of(weight)[1] in ROTATED:
        tensor = tensor[np.argsort(rotated_rows(len(tensor), config))]
    return tensor
