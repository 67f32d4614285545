"""Files of named tensors, safetensors and torch's own, whole or in shards: read one tensor at a time, never as code."""

import json
import pickle
import warnings
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.quantization.packing import Packed
from bluejay.tokenizer import Tokenizer

SHARD_BYTES = 5_000_000_000
"""A file of weights that would grow past this is followed by another."""
DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}
"""The types that weights are written in, and safetensors' names of them."""
STORED_DTYPES = DTYPES | {torch.uint8: "U8"}
ALIGNMENT = 64
"""Where the tensors of a file begin, in bytes: a line of the processor's caches."""


@dataclass(frozen=True)
class StoredModel:
    """A model on disk, opened but not read."""

    config: GPTConfig
    read: Callable[[str], Tensor]
    """Our name of a weight -> the weight, in our shape. Raises ValueError that names the file and the tensor."""
    dtype: torch.dtype | None
    """The type that `read` gives; None where it differs from weight to weight."""
    tokenizer: Callable[[], Tokenizer]
    """Reads the tokenizer that belongs to it."""
    n_bytes: int
    """Size of the files that hold its weights."""
    licence: str | None = None
    """What its files say, if they do."""
    packed: Callable[[str], Packed] | None = None
    """Our name of a matrix -> the matrix as the native engine reads it, where it is stored so."""


@dataclass(frozen=True)
class TensorFiles:
    """The tensors of a directory."""

    files: dict[str, Path]
    """Name of a tensor -> the file that holds it."""
    readers: dict[Path, Callable[[str], Tensor]]
    """A file -> what reads a tensor of it; tensors are mapped into memory, not copied."""

    def read(self, name: str) -> Tensor:
        """One tensor. Raises ValueError, naming file and tensor, where the file is damaged."""
        return self.readers[self.files[name]](name)

    @property
    def n_bytes(self) -> int:
        """Size of the files."""
        return sum(path.stat().st_size for path in self.readers)


def open_tensors(directory: Path) -> TensorFiles:
    """The tensors of a directory in the Hugging Face layout; safetensors where there is a choice.

    Raises FileNotFoundError: no weights; ValueError: a file or an index that is not what its name says.
    """
    for name, open_file in (("model.safetensors", open_safetensors), ("pytorch_model.bin", open_torch)):
        whole, index = directory / name, directory / f"{name}.index.json"
        if whole.is_file():
            names, read = open_file(whole)
            return TensorFiles(dict.fromkeys(names, whole), {whole: read})
        if index.is_file():
            files = indexed(index)
            opened = {path: open_file(path) for path in sorted(set(files.values()))}
            for tensor, path in files.items():
                if tensor not in opened[path][0]:
                    raise ValueError(f"{path} has no {tensor}; {index.name} says that it has")
            return TensorFiles(files, {path: read for path, (_, read) in opened.items()})
    raise FileNotFoundError(f"{directory} is not a model directory: it has no model.safetensors")


def indexed(index: Path) -> dict[str, Path]:
    """Which shard holds which tensor. Raises ValueError for what is no index or leads out of the directory."""
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {str(name): index.parent / str(shard) for name, shard in shards.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{index} is not an index of shards") from None
    for file in files.values():
        if file.parent != index.parent or file.name == "..":
            raise ValueError(f"{index} names {file.name!r}, which is not a file beside it")
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; {index.name} names it")
    return files


def open_safetensors(path: Path) -> tuple[Collection[str], Callable[[str], Tensor]]:
    """Names and reader of a safetensors file. Raises ValueError where it is not whole."""
    try:
        handle: Any = safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None
    return set(handle.keys()), handle.get_tensor


def open_torch(path: Path) -> tuple[Collection[str], Callable[[str], Tensor]]:
    """Names and reader of a `pytorch_model.bin`. Raises ValueError where it holds more than tensors."""
    try:
        values = load_tensors(path)
    except (RuntimeError, ValueError, EOFError, OSError, KeyError, pickle.UnpicklingError):
        raise ValueError(
            f"{path} is not a whole file of tensors, or holds code, which is never run; "
            "a model.safetensors in its place would be read"
        ) from None
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        raise ValueError(f"{path} holds something else than named tensors")
    return values.keys(), values.__getitem__


def load_tensors(path: Path) -> Any:
    """`torch.load`, mapped where the file is of the kind that can be (all since torch 1.6)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch remarks on pickles of other versions
        with suppress(RuntimeError):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return torch.load(path, map_location="cpu", weights_only=True)


@dataclass(frozen=True)
class Header:
    """What is known of a tensor before it is read."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Size in the file."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write_shards(headers: Iterable[Header], read: Callable[[str], Tensor], directory: Path, shard_bytes: int) -> None:
    """Write `model.safetensors`, or numbered shards of it and their index, holding one tensor in memory at a time."""
    shards: list[list[Header]] = [[]]
    for header in headers:
        if shards[-1] and sum(held.n_bytes for held in shards[-1]) + header.n_bytes > shard_bytes:
            shards.append([])
        shards[-1].append(header)
    # Wider types first, so that every tensor lies at a multiple of its width and can be used where it is mapped.
    shards = [sorted(shard, key=lambda header: -header.dtype.itemsize) for shard in shards]
    if len(shards) == 1:
        return write_safetensors(shards[0], read, directory / "model.safetensors")
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        write_safetensors(shard, read, directory / name)
    index = {
        "metadata": {"total_size": sum(header.n_bytes for shard in shards for header in shard)},
        "weight_map": {header.name: name for name, shard in zip(names, shards, strict=True) for header in shard},
    }
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def write_safetensors(headers: list[Header], read: Callable[[str], Tensor], path: Path) -> None:
    """Write one file, tensor by tensor in this order (the format's own page: length, JSON header, bytes end to end).

    safetensors' own writer wants all tensors at once and copies them.
    """
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for header in headers:
        begin, end = end, end + header.n_bytes
        table[header.name] = {
            "dtype": STORED_DTYPES[header.dtype],
            "shape": list(header.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(table).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for header in headers:
            tensor = read(header.name).to(header.dtype).contiguous()
            assert tensor.shape == header.shape, header
            file.write(tensor.cpu().view(torch.uint8).numpy().data)


def tokenizer_of(stored: StoredModel, name: str | Path) -> Tokenizer:
    """The tokenizer of a stored model. Raises ValueError, naming the model, if it has tokens that the model lacks."""
    tokenizer = stored.tokenizer()
    if tokenizer.vocab_size > stored.config.vocab_size:
        raise ValueError(
            f"{name}: the tokenizer has {tokenizer.vocab_size} tokens, the model {stored.config.vocab_size} rows; "
            "they do not belong together"
        )
    return tokenizer
