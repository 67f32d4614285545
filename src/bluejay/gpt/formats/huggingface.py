"""Model directories in the Hugging Face layout: opened, read and written one weight at a time."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bluejay.files import atomic_directory, write_json
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.companions import CARD, card_stating, companions_of, licence_of
from bluejay.gpt.formats.families import (
    FAMILIES,
    StoredTensor,
    from_hugging_face,
    known_keys,
    stored_tensors,
    to_hugging_face,
)
from bluejay.gpt.formats.rotary import yarn_context
from bluejay.gpt.formats.tensors import (
    DTYPES,
    SHARD_BYTES,
    Header,
    StoredModel,
    TensorFiles,
    check_layers,
    check_type,
    open_tensors,
    same_numbers,
    write_shards,
)
from bluejay.gpt.formats.values import Values, unknown_keys
from bluejay.gpt.model import weight_shapes
from bluejay.progress import progress, say
from bluejay.tokenizer import Tokenizer
from bluejay.tokenizer_files import json_object

HEADS = ("lm_head", "embed_out")
"""Names of the head; torch.save writes the first in every family, older files of GPT-NeoX have the second."""
TABLES = re.compile(
    r"(.*\.)?(attn|attention)\.(attention\.)?(masked_)?bias|(.*\.)?rotary_emb\.(inv_freq|cos_cached|sin_cached)"
    r"|(.*\.)?attn\.embed_positions"
)
"""Names of masks and rotary tables, which old files hold although they follow from the configuration."""


def read_config(path: Path) -> tuple[GPTConfig, Any]:
    """The configuration in a directory's `config.json` and its entry `quantization`, None if there is none. Raises
    ValueError, naming the file."""
    file = path / "config.json"
    values = json_object(file)
    try:
        quantization = values.pop("quantization", None)
        if isinstance(quantization, dict) and "bits" in quantization:
            raise ValueError("its weights are quantised (mlx); `mlx_lm.convert --dequantize` makes them readable here")
        config = from_hugging_face(values)
        if unknown := unknown_keys(values, known_keys(values)):
            say(f"{file}: bluejay does not know {', '.join(unknown)}, and computes as if it were not there")
        if (reach := yarn_context(config)) > config.n_ctx:
            say(
                f"{file}: YaRN makes contexts of {reach:,} tokens, but max_position_embeddings is {config.n_ctx}, "
                f"which counts; set it to {reach} for longer texts"
            )
        return config, quantization
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def open_hugging_face(path: Path, config: GPTConfig) -> StoredModel:
    """Open a directory whose weights are not quantised. Every tensor in it is used, or a table of a known name. Raises
    FileNotFoundError or ValueError, naming the file and the tensor."""
    tensors = open_tensors(path)
    file = next(iter(tensors.files.values()), path)
    check_layers(config.n_layer, tensors, path)
    config = with_own_head(config, tensors, file)
    shapes = weight_shapes(config)
    stored_in: dict[str, tuple[StoredTensor, str]] = {}
    unused = {name for name in tensors.files if not TABLES.fullmatch(name)}
    for stored in stored_tensors(config, shapes):
        names = [name for name in dict.fromkeys(names_of(stored.name, config)) if name in tensors.files]
        if not names:
            raise ValueError(f"{file} has no {stored.name}")
        for other in names[1:]:
            if not same_numbers(tensors.read(names[0]), tensors.read(other)):
                raise ValueError(f"{file} has both {names[0]} and {other}, which differ")
        stored_in |= dict.fromkeys(stored.weights, (stored, names[0]))
        unused.difference_update(names)
    if unused:
        name = min(unused)
        raise ValueError(
            f"{tensors.files[name]} has {name}, which has no place in the {config.family} model of config.json"
        )

    def read(weight: str) -> Tensor:
        return read_part(tensors, *stored_in[weight], weight, shapes, config)

    dtypes = {read(name).dtype for name in shapes}
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    return StoredModel(
        config,
        read,
        dtype,
        lambda: Tokenizer.load(path),
        tensors.n_bytes,
        licence_of(path),
        companions=companions_of(path),
    )


def with_own_head(config: GPTConfig, tensors: TensorFiles, file: Path) -> GPTConfig:
    """The configuration, not tied if the file has a head that differs from the embedding, as in transformers."""
    family = FAMILIES[config.family]
    embed = next(family.prefix + theirs for theirs, ours in family.modules.items() if ours == "embed") + ".weight"
    names = (embed, bare_name(embed, config)), [f"{head}.weight" for head in HEADS]
    found = [next((name for name in group if name in tensors.files), None) for group in names]
    if not config.tied or found[0] is None or found[1] is None:
        return config
    one, other = tensors.read(found[0]), tensors.read(found[1])
    if same_numbers(one, other):
        return config
    say(f"{file}: {found[1]} differs from {found[0]} although tie_word_embeddings is true; it is used as the head")
    return dataclasses.replace(config, tied=False)


def names_of(name: str, config: GPTConfig) -> list[str]:
    """The names that a tensor may have in a file: its own; that in a file of the bare decoder; any name of the head
    for the head, and for an embedding that is tied to it and stored once."""
    family = FAMILIES[config.family]
    module, _, kind = name.rpartition(".")
    embedding = config.tied and family.modules.get(module.removeprefix(family.prefix)) == "embed"
    heads = [f"{head}.{kind}" for head in HEADS] if module == family.head or embedding else []
    return [name, bare_name(name, config), *heads]


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
    check_type(tensor, f"{tensors.files[name]}: {name}")
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
    """Write a model: the files of `write_companions` and `model.safetensors`, which is divided if it would exceed
    `shard_bytes`. One weight is in memory at a time; an error leaves `path` as it was.
    Raises ValueError where the family's `config.json` cannot describe the model, or a weight is not a number or too
    large for `dtype`; OSError when the disk is full."""
    config = stored.config
    shapes = weight_shapes(config)
    tensors = {tensor.name: tensor for tensor in stored_tensors(config, shapes)}

    def header(tensor: StoredTensor) -> Header:
        rows = sum(shapes[part][0] for part in tensor.weights)
        shape = (rows, *shapes[tensor.weights[0]][1:])
        kind = dtype or stored.dtype or stored.read(tensor.weights[0]).dtype
        return Header(tensor.name, kind, shape[::-1] if tensor.transposed else shape)

    headers = [header(tensor) for tensor in tensors.values()]
    written = max(headers, key=lambda header: header.n_bytes).dtype
    for one in headers:
        if one.dtype not in DTYPES:
            kinds = ", ".join(str(kind).removeprefix("torch.") for kind in DTYPES)
            raise ValueError(
                f"{one.name} is {one.dtype}, which cannot be written; choose a type for all by --dtype: {kinds}"
            )
    with atomic_directory(path) as temporary, progress("write", sum(header.n_bytes for header in headers), "B") as bar:

        def read(name: str) -> Tensor:
            tensor = fuse(tensors[name], stored.read, config)
            bar.advance(tensor.numel() * written.itemsize)
            return tensor

        write_companions(stored, temporary, str(written).removeprefix("torch."))
        write_shards(headers, read, temporary, shard_bytes)


def write_companions(stored: StoredModel, directory: Path, dtype: str, quantization: Values | None = None) -> None:
    """Write everything in a model's directory but its weights: `config.json` and `generation_config.json` with the
    tokens that begin, end and pad a text, the tokenizer, the card and the licence. Raises ValueError, naming the
    field, where the family's `config.json` cannot describe the model."""
    tokenizer, generation = stored.tokenizer(), dict(stored.companions.generation)
    known = {key: id for key in ("bos_token_id", "pad_token_id") if tokenizer.has(id := generation.pop(key, None))}
    eos = list(tokenizer.ends) if len(tokenizer.ends) > 1 else tokenizer.eot
    ids = {"bos_token_id": tokenizer.named_begin} | known
    values = to_hugging_face(stored.config, ids["bos_token_id"], eos, dtype)
    if known.get("pad_token_id", stored.config.vocab_size) < stored.config.vocab_size:
        values["pad_token_id"] = known["pad_token_id"]
    if quantization is not None:
        values["quantization"] = quantization
    write_json(directory / "config.json", values)
    write_json(directory / "generation_config.json", generation | ids | {"eos_token_id": eos})
    for name, content in stored.companions.files.items():
        (directory / name).write_bytes(content)
    if stored.licence and CARD not in stored.companions.files:
        (directory / CARD).write_bytes(card_stating({"license": stored.licence}))
    tokenizer.save(directory)
