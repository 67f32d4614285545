"""Opened models, and files of named tensors: safetensors and torch's own, whole or in shards.

Tensors are read one at a time, and code in a file is never executed.
"""

import json
import re
import warnings
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bluejay.decompress import refuse_pointer_file
from bluejay.files import parse_json
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.companions import Companions
from bluejay.gpt.quantization.packing import Packed
from bluejay.tokenizer import Tokenizer

SHARD_BYTES = 5_000_000_000
"""Greatest size of a file of weights; more weights go into further files."""
DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
"""Types in which weights are written -> their names in safetensors."""
STORED_DTYPES = DTYPES | {torch.uint8: "U8"}
SHARD = re.compile(r"(model|pytorch_model)-\d+-of-\d+(\.safetensors|\.bin)")
"""Names of shards."""
ALIGNMENT = 64
"""The tensors of a file begin at a multiple of this many bytes, which is a cache line."""


@dataclass(frozen=True)
class StoredModel:
    """A model that is opened but not yet read."""

    config: GPTConfig
    read: Callable[[str], Tensor]
    """Reads a weight by our name, in our shape. Raises ValueError, naming the file and the tensor."""
    dtype: torch.dtype | None
    """Type of the weights that `read` returns; None if they have several types."""
    tokenizer: Callable[[], Tokenizer]
    """Reads the tokenizer of the model."""
    n_bytes: int
    """Size of the files that hold the weights."""
    licence: str | None = None
    """The licence stated in the files, if any."""
    packed: Callable[[str], Packed | None] | None = None
    """Reads a matrix of a quantised model in the native engine's form, and gives None for a weight that is not packed;
    None for other models."""
    quantised: bool = False
    """Whether matrices are stored in fewer than 16 bits a weight, in whatever type `read` returns them."""
    companions: Companions = field(default_factory=Companions)
    """The card, the licence and the defaults for generating."""


@dataclass(frozen=True)
class TensorFiles:
    """The tensors of a directory."""

    files: dict[str, Path]
    """Name of a tensor -> the file that holds it."""
    readers: dict[Path, Callable[[str], Tensor]]
    """File -> a function that maps one of its tensors into memory, without a copy."""

    def read(self, name: str) -> Tensor:
        """Read one tensor. Raises ValueError, naming file and tensor, if the file is damaged."""
        return self.readers[self.files[name]](name)

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return sum(path.stat().st_size for path in self.readers)


def has_tensors(directory: Path) -> bool:
    """Whether a directory has weights in the Hugging Face layout."""
    names = ("model.safetensors", "pytorch_model.bin")
    return any((directory / f"{name}{kind}").is_file() for name in names for kind in ("", ".index.json"))


def open_tensors(directory: Path) -> TensorFiles:
    """The tensors of a directory in the Hugging Face layout; safetensors are preferred. Raises FileNotFoundError if
    there are no weights, ValueError if a file or an index is damaged."""
    for name, open_file in (("model.safetensors", open_safetensors), ("pytorch_model.bin", open_torch)):
        whole, index = directory / name, directory / f"{name}.index.json"
        if whole.is_file():
            names, read = open_file(whole)
            return TensorFiles(dict.fromkeys(names, whole), {whole: read})
        if index.is_file():
            files = read_index(index)
            opened = {path: open_file(path) for path in sorted(set(files.values()))}
            for tensor, path in files.items():
                if tensor not in opened[path][0]:
                    raise ValueError(f"{path} has no {tensor}; {index.name} says that it has")
            for path, (names, read) in opened.items():
                for tensor in names:
                    first = files.setdefault(tensor, path)
                    if first != path and not same_numbers(opened[first][1](tensor), read(tensor)):
                        raise ValueError(f"{first} and {path} both have {tensor}, and differ in it")
            return TensorFiles(files, {path: read for path, (_, read) in opened.items()})
    shards = [match for file in sorted(directory.iterdir()) if (match := SHARD.fullmatch(file.name))]
    needed = f"{shards[0][1]}{shards[0][2]}.index.json, which says what {shards[0][0]} holds" if shards else ""
    raise FileNotFoundError(f"{directory} is not a model directory: it has no {needed or 'model.safetensors'}")


def check_layers(n_layer: int, tensors: TensorFiles, path: Path) -> None:
    """Raise ValueError if the config.json of a directory names more layers than the directory has tensors."""
    if n_layer > len(tensors.files):
        file = next(iter(tensors.files.values()), path)
        raise ValueError(f"{path / 'config.json'} names {n_layer} layers; {file} has fewer tensors than that")


def read_index(index: Path) -> dict[str, Path]:
    """Name of a tensor -> the shard that holds it. Raises ValueError if the index is damaged or names a file outside
    its directory, FileNotFoundError if a shard is missing."""
    try:
        shards = parse_json(index.read_text(encoding="utf-8"))["weight_map"]
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
    """The names in a safetensors file and a function that reads a tensor. Raises ValueError for a damaged file."""
    refuse_pointer_file(path)
    try:
        handle: Any = safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None

    def read(name: str) -> Tensor:
        try:
            return handle.get_tensor(name)
        except Exception as error:  # a type that torch lacks: SafetensorError, AttributeError and others
            raise ValueError(f"{path}: {name}: {error}") from None

    return set(handle.keys()), read


def open_torch(path: Path) -> tuple[Collection[str], Callable[[str], Tensor]]:
    """The names in a `pytorch_model.bin` and a function that reads a tensor. Raises ValueError if the file is damaged
    or holds anything but tensors."""
    refuse_pointer_file(path)
    try:
        values = load_tensors(path)
    except Exception:  # what is read of a damaged pickle can raise anything
        raise ValueError(
            f"{path} is not a whole file of tensors, or holds code, which is never run; "
            "a model.safetensors in its place would be read"
        ) from None
    if not isinstance(values, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in values.items()
    ):
        raise ValueError(f"{path} does not hold named tensors")
    for name, value in values.items():
        if value.layout is not torch.strided or value.is_meta:
            kind = "on the meta device, without numbers" if value.is_meta else "sparse"
            raise ValueError(f"{path}: {name} is {kind}; bluejay reads dense tensors")
    return values.keys(), lambda name: values[name].detach()  # some files hold parameters


def load_tensors(path: Path) -> Any:
    """`torch.load` of tensors only, mapped into memory if the file allows it (all since torch 1.6)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickles of other versions
        with suppress(RuntimeError):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return torch.load(path, map_location="cpu", weights_only=True)


@dataclass(frozen=True)
class Header:
    """Name, type and shape of a tensor in a file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Size of the tensor."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write_shards(headers: Iterable[Header], read: Callable[[str], Tensor], directory: Path, shard_bytes: int) -> None:
    """Write `model.safetensors`, or numbered shards and their index, with one tensor in memory at a time."""
    shards: list[list[Header]] = [[]]
    for header in headers:
        if shards[-1] and sum(earlier.n_bytes for earlier in shards[-1]) + header.n_bytes > shard_bytes:
            shards.append([])
        shards[-1].append(header)
    # Wider types come first, so that every tensor is aligned to its width and can be used where it is mapped.
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
    """Write one safetensors file, tensor by tensor in the given order (the format: length, JSON header, data). The
    writer of the `safetensors` package needs all tensors in memory at once and copies them."""
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
            file.write(data_of(converted(header.name, read(header.name), header.dtype), header))  # no name holds it


def data_of(tensor: Tensor, header: Header) -> memoryview:
    """The bytes of a tensor as safetensors files have them."""
    assert tensor.shape == header.shape, header
    return tensor.cpu().contiguous().view(torch.uint8).numpy().data


def converted(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor in another type. Raises ValueError if it holds a value that is not a number, or one that is too large
    for the type."""
    result = tensor.to(dtype)
    if not dtype.is_floating_point or is_finite(result):
        return result
    check_finite(name, tensor)
    kind, wider = str(dtype).removeprefix("torch."), "bfloat16" if dtype == torch.float16 else "float32"
    raise ValueError(f"{name} holds {tensor.abs().max():.3g}, which is too large for {kind}; {wider} can hold it")


def check_type(tensor: Tensor, name: str) -> None:
    """Raise ValueError, with the tensor's name, if it is of a type that is none of weights."""
    if tensor.dtype not in (*DTYPES, torch.float64):
        kinds = ", ".join(str(kind).removeprefix("torch.") for kind in DTYPES)
        raise ValueError(f"{name} holds {tensor.dtype}; weights are {kinds} or float64")


def same_numbers(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have one shape and hold the same numbers, in whatever types."""
    return torch.equal(one, other) if one.dtype == other.dtype else torch.equal(one.double(), other.double())


def is_finite(tensor: Tensor) -> bool:
    """Whether no value of a tensor is NaN or infinite. `Tensor.isfinite` would copy the tensor."""
    return not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise ValueError if a tensor holds NaN or infinity."""
    if not is_finite(tensor):
        raise ValueError(f"{name} holds {'NaN' if tensor.isnan().any() else 'infinity'}, which cannot be a weight")


def finite(read: Callable[[str], Tensor]) -> Callable[[str], Tensor]:
    """A function that reads a weight and raises ValueError if it holds NaN or infinity."""

    def checked(name: str) -> Tensor:
        tensor = read(name)
        check_finite(name, tensor)
        return tensor

    return checked


def tokenizer_of(stored: StoredModel, name: str | Path) -> Tokenizer:
    """The tokenizer of a stored model. Raises ValueError, naming the model, if it has tokens that the model lacks;
    tokens that were added for training, such as a [PAD], may lack a row."""
    try:
        return stored.tokenizer().without_rowless(stored.config.vocab_size)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
