"""Model directories in the Hugging Face layout: opened, read and written one weight at a time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bluejay.files import atomic_directory, write_json
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.families import FAMILIES, StoredTensor, from_hugging_face, stored_tensors, to_hugging_face
from bluejay.gpt.formats.tensors import (
    DTYPES,
    SHARD_BYTES,
    Header,
    StoredModel,
    TensorFiles,
    open_tensors,
    write_shards,
)
from bluejay.gpt.model import weight_shapes
from bluejay.progress import progress
from bluejay.tokenizer import Tokenizer


def read_config(path: Path) -> tuple[GPTConfig, Any]:
    """The configuration in a directory's `config.json` and its entry `quantization`, None if there is none. Raises
    ValueError, naming the file."""
    file = path / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
        quantization = values.pop("quantization", None)
        return from_hugging_face(values), quantization
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{file}: {error}") from None


def open_hugging_face(path: Path, config: GPTConfig) -> StoredModel:
    """Open a directory whose weights are not quantised. Raises FileNotFoundError or ValueError, naming the file."""
    tensors, shapes = open_tensors(path), weight_shapes(config)
    stored_in: dict[str, tuple[StoredTensor, str]] = {}
    for stored in stored_tensors(config, shapes):
        name = next((name for name in (stored.name, bare_name(stored.name, config)) if name in tensors.files), None)
        if name is None:
            raise ValueError(f"{next(iter(tensors.files.values()), path)} has no {stored.name}")
        stored_in |= dict.fromkeys(stored.weights, (stored, name))

    def read(weight: str) -> Tensor:
        return read_part(tensors, *stored_in[weight], weight, shapes, config)

    dtypes = {read(name).dtype for name in shapes}
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    return StoredModel(config, read, dtype, lambda: Tokenizer.load(path), tensors.n_bytes, licence_of(path))


def bare_name(name: str, config: GPTConfig) -> str:
    """A tensor's name in a file of the decoder without its head, as GPT-2 was first published."""
    return name.removeprefix(FAMILIES[config.family].prefix)


def read_part(
    tensors: TensorFiles, stored: StoredTensor, name: str, weight: str, shapes: dict[str, torch.Size], config: GPTConfig
) -> Tensor:
    """Read the part of the tensor `name` that holds `weight`. Raises ValueError for a wrong shape or type."""
    tensor = tensors.read(name)
    rows = [shapes[part][0] for part in stored.weights]
    expected = [sum(rows), *shapes[weight][1:]]
    expected = expected[::-1] if stored.transposed else expected
    if list(tensor.shape) != expected:
        raise ValueError(f"{tensors.files[name]}: {name} is {list(tensor.shape)}; config.json makes it {expected}")
    if not tensor.is_floating_point():
        raise ValueError(f"{tensors.files[name]}: {name} holds {tensor.dtype}; weights are floating-point numbers")
    return unfuse(stored, tensor.T if stored.transposed else tensor, weight, rows, config)


def unfuse(stored: StoredTensor, tensor: Tensor, weight: str, rows: list[int], config: GPTConfig) -> Tensor:
    """The rows of a (fused) tensor that belong to `weight`; `rows` has the number of rows of each weight in it."""
    if len(rows) == 1:
        return tensor
    index = stored.weights.index(weight)
    if stored.by_head:
        return tensor.unflatten(0, (config.n_head, len(rows), -1))[:, index].flatten(0, 1)
    return tensor.split(rows)[index]


def fuse(stored: StoredTensor, read: Callable[[str], Tensor], config: GPTConfig) -> Tensor:
    """The tensor of a file, from the weights in it: the inverse of `read_part`."""
    parts = [read(weight) for weight in stored.weights]
    if stored.by_head:
        by_head = [part.unflatten(0, (config.n_head, -1)) for part in parts]
        return torch.stack(by_head, dim=1).flatten(0, 2)
    tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
    return tensor.T if stored.transposed else tensor


def write_model(
    stored: StoredModel, path: Path, dtype: torch.dtype | None = None, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write a model: `config.json`, `generation_config.json`, the tokenizer's files and `model.safetensors`, which is
    divided if it would exceed `shard_bytes`. One weight is in memory at a time; an error leaves `path` as it was.
    Raises ValueError where the family's `config.json` cannot describe the model; OSError when the disk is full."""
    config, tokenizer = stored.config, stored.tokenizer()
    shapes = weight_shapes(config)
    tensors = {tensor.name: tensor for tensor in stored_tensors(config, shapes)}

    def header(tensor: StoredTensor) -> Header:
        rows = sum(shapes[part][0] for part in tensor.weights)
        shape = (rows, *shapes[tensor.weights[0]][1:])
        kind = dtype or stored.dtype or stored.read(tensor.weights[0]).dtype
        return Header(tensor.name, kind, shape[::-1] if tensor.transposed else shape)

    headers = [header(tensor) for tensor in tensors.values()]
    written = max(headers, key=lambda header: header.n_bytes).dtype
    if written not in DTYPES:
        raise ValueError(
            f"weights of type {written} cannot be written; it must be one of {', '.join(map(str, DTYPES))}"
        )
    with atomic_directory(path) as temporary, progress("write", sum(header.n_bytes for header in headers), "B") as bar:

        def read(name: str) -> Tensor:
            tensor = fuse(tensors[name], stored.read, config)
            bar.advance(tensor.numel() * written.itemsize)
            return tensor

        name = str(written).removeprefix("torch.")
        bos, eos = next(iter(tokenizer.begin), tokenizer.eot), tokenizer.eot
        write_json(temporary / "config.json", to_hugging_face(config, bos, eos, name))
        ends = list(tokenizer.ends) if len(tokenizer.ends) > 1 else eos
        write_json(temporary / "generation_config.json", {"bos_token_id": bos, "eos_token_id": ends})
        write_shards(headers, read, temporary, shard_bytes)
        tokenizer.save(temporary)


def licence_of(path: Path) -> str | None:
    """The licence in the front matter of the model card (`license: apache-2.0`); None if there is none."""
    card = path / "README.md"
    if not card.is_file():
        return None
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    front = lines[1 : lines.index("---", 1)] if lines[:1] == ["---"] and "---" in lines[1:] else []
    return next((line.partition(":")[2].strip() for line in front if line.startswith("license:")), None)
