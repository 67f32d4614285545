"""Models on disk: opened in any layout that people have them in, written in Hugging Face's, one weight at a time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bluejay.files import atomic_directory, write_json
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.families import FAMILIES, Stored, from_hugging_face, stored_tensors, to_hugging_face
from bluejay.gpt.formats.tensors import (
    DTYPES,
    SHARD_BYTES,
    Header,
    StoredModel,
    TensorFiles,
    open_tensors,
    write_shards,
)
from bluejay.gpt.model import GPT
from bluejay.progress import progress
from bluejay.tokenizer import Tokenizer


def load_model(path: Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> GPT:
    """Read a model; weights keep the type they are stored in unless `dtype` is given.

    On a CPU, weights that are stored as they are used stay mapped from their file. Raises FileNotFoundError or
    ValueError, naming the file and the first thing that does not fit.
    """
    return place(open_model(path), device, dtype)


def place(stored: StoredModel, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> GPT:
    """Read an opened model, tensor by tensor, into the memory of a device."""
    with torch.device("meta"):
        model = GPT(stored.config)
    weights = {}
    with progress("load", stored.config.n_parameters, "weights") as bar:
        for name in model.state_dict():
            weights[name] = stored.read(name).to(device, dtype)
            bar.advance(weights[name].numel())
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_(False)


def open_model(path: Path) -> StoredModel:
    """Open a directory in the Hugging Face layout, a checkpoint of mesh-transformer-jax, a GGUF file, or an adapter in
    peft's layout, which is added to the weights of the model that it names.

    Raises FileNotFoundError or ValueError, each with one sentence.
    """
    if path.suffix == ".gguf" and path.is_file():
        from bluejay.gpt.formats.gguf import open_gguf

        return open_gguf(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no model directory at {path}; `bluejay train RECIPE` makes one")
    if (path / "adapter_config.json").is_file():
        from bluejay.gpt.formats.peft import open_adapter

        return open_adapter(path)
    if (path / "config.json").is_file() and not (path / "shard_0").is_dir():
        return open_hugging_face(path)
    if (path / "shard_0").is_dir() or (path / "meta.json").is_file():
        from bluejay.gpt.formats.mesh_transformer import open_mesh_transformer

        return open_mesh_transformer(path)
    raise FileNotFoundError(f"{path} is not a model directory: it has no config.json")


def open_hugging_face(path: Path) -> StoredModel:
    """Open a directory in the Hugging Face layout. Raises FileNotFoundError or ValueError, naming the file."""
    config_file = path / "config.json"
    try:
        values = json.loads(config_file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it holds no object")
        quantization = values.pop("quantization", None)
        config = from_hugging_face(values)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{config_file}: {error}") from None
    tensors = open_tensors(path)
    if quantization is not None:
        from bluejay.gpt.formats.quantized import open_quantized

        return open_quantized(path, config, quantization, tensors)
    shapes = weight_shapes(config)
    places = {}
    for stored in stored_tensors(config, shapes):
        name = next((name for name in (stored.name, bare(stored.name, config)) if name in tensors.files), None)
        if name is None:
            raise ValueError(f"{next(iter(tensors.files.values()), path)} has no {stored.name}")
        places |= dict.fromkeys(stored.ours, (stored, name))

    def read(ours: str) -> Tensor:
        stored, name = places[ours]
        return part_of(tensors, stored, name, ours, shapes, config)

    dtypes = {read(name).dtype for name in shapes}
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    return StoredModel(config, read, dtype, lambda: Tokenizer.load(path), tensors.n_bytes, licence_of(path))


def weight_shapes(config: GPTConfig) -> dict[str, torch.Size]:
    """The name and shape of every weight of a model."""
    with torch.device("meta"):
        return {name: weight.shape for name, weight in GPT(config).state_dict().items()}


def bare(name: str, config: GPTConfig) -> str:
    """A tensor's name in a file of the decoder without its head, as GPT-2 was first published."""
    return name.removeprefix(FAMILIES[config.family].prefix)


def part_of(
    tensors: TensorFiles, stored: Stored, name: str, ours: str, shapes: dict[str, torch.Size], config: GPTConfig
) -> Tensor:
    """One of the weights that a tensor of a file holds. Raises ValueError where the tensor is not what it should be."""
    tensor = tensors.read(name)
    rows = [shapes[part][0] for part in stored.ours]
    expected = [sum(rows), *shapes[ours][1:]]
    if list(tensor.shape) != (expected[::-1] if stored.transposed else expected):
        expected = expected[::-1] if stored.transposed else expected
        raise ValueError(f"{tensors.files[name]}: {name} is {list(tensor.shape)}; config.json makes it {expected}")
    if not tensor.is_floating_point():
        raise ValueError(f"{tensors.files[name]}: {name} holds {tensor.dtype}; weights are floating-point numbers")
    return rows_of(stored, tensor.T if stored.transposed else tensor, ours, rows, config)


def rows_of(stored: Stored, tensor: Tensor, ours: str, rows: list[int], config: GPTConfig) -> Tensor:
    """The rows of one of the weights that a tensor holds, which have `rows` of them each."""
    if len(rows) == 1:
        return tensor
    index = stored.ours.index(ours)
    if stored.by_head:
        return tensor.unflatten(0, (config.n_head, len(rows), -1))[:, index].flatten(0, 1)
    return tensor.split(rows)[index]


def joined(stored: Stored, read: Callable[[str], Tensor], config: GPTConfig) -> Tensor:
    """The inverse of `part_of`: what a file holds, from our weights."""
    parts = [read(ours) for ours in stored.ours]
    if stored.by_head:
        by_head = [part.unflatten(0, (config.n_head, -1)) for part in parts]
        return torch.stack(by_head, dim=1).flatten(0, 2)
    tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
    return tensor.T if stored.transposed else tensor


def save_model(model: GPT, tokenizer: Tokenizer, path: Path) -> None:
    """Write a model directory, all or nothing. Weights keep their type.

    Raises OSError when the disk is full; what stood at `path` before then stays.
    """
    weights = model.state_dict()
    dtypes = {weight.dtype for weight in weights.values()}
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    stored = StoredModel(model.config, weights.__getitem__, dtype, lambda: tokenizer, 0)
    write_model(stored, path)


def write_model(
    stored: StoredModel, path: Path, dtype: torch.dtype | None = None, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write `config.json`, `generation_config.json`, the tokenizer's files and `model.safetensors`, in shards where it
    would be above `shard_bytes`; all of it or nothing.

    One weight is in memory at a time. Raises ValueError where the family's `config.json` cannot say what the model is;
    OSError when the disk is full; what stood at `path` before then stays.
    """
    config, tokenizer = stored.config, stored.tokenizer()
    shapes = weight_shapes(config)
    tensors = {tensor.name: tensor for tensor in stored_tensors(config, shapes)}

    def header(tensor: Stored) -> Header:
        rows = sum(shapes[part][0] for part in tensor.ours)
        shape = (rows, *shapes[tensor.ours[0]][1:])
        kind = dtype or stored.dtype or stored.read(tensor.ours[0]).dtype
        return Header(tensor.name, kind, shape[::-1] if tensor.transposed else shape)

    headers = [header(tensor) for tensor in tensors.values()]
    written = max(headers, key=lambda header: header.n_bytes).dtype
    if written not in DTYPES:
        raise ValueError(
            f"weights of type {written} cannot be written; it must be one of {', '.join(map(str, DTYPES))}"
        )
    with (
        atomic_directory(path) as temporary,
        progress("write", sum(header.n_bytes for header in headers), "B") as bar,
    ):

        def read(name: str) -> Tensor:
            tensor = joined(tensors[name], stored.read, config)
            bar.advance(tensor.numel() * written.itemsize)
            return tensor

        name = str(written).removeprefix("torch.")
        bos, eos = next(iter(tokenizer.begin), tokenizer.eot), tokenizer.eot
        write_json(temporary / "config.json", to_hugging_face(config, bos, eos, name))
        ends = list(tokenizer.ends) if len(tokenizer.ends) > 1 else eos
        write_json(temporary / "generation_config.json", {"bos_token_id": bos, "eos_token_id": ends})
        write_shards(headers, read, temporary, shard_bytes)
        tokenizer.save(temporary)


def convert(
    source: Path,
    target: Path,
    dtype: torch.dtype | None = None,
    quantize: Literal["q8", "q4"] | None = None,
    calibrate: Path | None = None,
) -> None:
    """Write a model that is stored in any layout as a Hugging Face directory; without `dtype`, bit for bit. `quantize`
    writes a directory for the native engine instead, q4 rounded for the inputs that the text file `calibrate` gives.

    Raises what `open_model` and `write_model` raise, and ValueError where `target` holds something else.
    """
    stored = open_model(source)
    if target.exists() and not (target / "config.json").is_file():
        raise ValueError(f"{target} exists and is no model directory; name a new folder")
    if calibrate is not None and quantize != "q4":
        raise ValueError("a text to calibrate with is of use to --quantize q4 alone; leave it out")
    if quantize is None:
        return write_model(stored, target, dtype)
    from bluejay.gpt.formats.quantized import write_quantized

    text = None if calibrate is None else calibrate.read_text(encoding="utf-8", errors="replace")
    write_quantized(stored, target, quantize, text)


def licence_of(path: Path) -> str | None:
    """What the front matter of a model card says (`license: apache-2.0`), if there is one."""
    card = path / "README.md"
    if not card.is_file():
        return None
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    front = lines[1 : lines.index("---", 1)] if lines[:1] == ["---"] and "---" in lines[1:] else []
    return next((line.partition(":")[2].strip() for line in front if line.startswith("license:")), None)
