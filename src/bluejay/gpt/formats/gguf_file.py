"""The container format of GGUF files, versions 2 and 3: fields, descriptions of tensors, data (ggml's `docs/gguf.md`).

Types, block sizes and the decoding of quantised tensors come from the `gguf` package. Its file reader is not used: it
takes 40 times as long for a vocabulary of 49,152 tokens, and loops forever on a count that exceeds the file.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from gguf.quants import dequantize
from torch import Tensor

from bluejay.decompress import refuse_pointer_file
from bluejay.gpt.formats.gguf_parts import part_names

SCALARS = {
    GGUFValueType.UINT8: "u1",
    GGUFValueType.INT8: "i1",
    GGUFValueType.UINT16: "<u2",
    GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4",
    GGUFValueType.INT32: "<i4",
    GGUFValueType.UINT64: "<u8",
    GGUFValueType.INT64: "<i8",
    GGUFValueType.FLOAT32: "<f4",
    GGUFValueType.FLOAT64: "<f8",
    GGUFValueType.BOOL: "?",
}
"""Type of a field -> its NumPy type."""
MAX_DIMENSIONS = 4
"""Most dimensions of a tensor, as in ggml."""


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor that is mapped into memory but not yet read."""

    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    """Its dimensions in our order, rows first."""
    rows: np.ndarray
    """Its bytes, (rows, bytes of a row); a row of a vector is one number."""

    def read(self, rows: slice | np.ndarray = slice(None)) -> Tensor:
        """Some of its rows as numbers: quantised ones in float32, others in their own type. Raises ValueError for a
        quantised type that the `gguf` package cannot decode."""
        chosen = self.rows[rows]
        match self.kind:
            case GGMLQuantizationType.F32:
                values = torch.from_numpy(chosen.view("<f4"))
            case GGMLQuantizationType.F16:
                values = torch.from_numpy(chosen.view("<f2"))
            case GGMLQuantizationType.BF16:
                values = torch.from_numpy(chosen.view("<i2")).view(torch.bfloat16)
            case _:
                try:
                    values = torch.from_numpy(dequantize(chosen, self.kind))
                except NotImplementedError:  # raised by gguf for a type that it cannot decode
                    raise ValueError(f"its type is {self.kind.name}, which is not read") from None
        return values.reshape(len(chosen), *self.shape[1:])


@dataclass(frozen=True)
class GGUFFile:
    """The contents of a file."""

    fields: dict[str, Any]
    """Name -> number, string, list of strings or array of numbers."""
    tensors: dict[str, GGUFTensor]
    n_bytes: int = 0
    """Its size, with that of its other parts."""


def read_parts(path: Path) -> GGUFFile:
    """Read a file as `read_gguf` does, and if it is one of several parts, the others beside it, too. The fields are
    those of the first part. Raises FileNotFoundError for a missing part, ValueError for one of another model."""
    file = read_gguf(path)
    count = file.fields.get("split.count", 1)
    if type(count) is int and count <= 1:
        return file
    names = part_names(path.name)
    if type(count) is not int or len(names) != count:
        raise ValueError(
            f"{path} is one of {count} parts; they must have the names that llama.cpp's gguf-split gave them"
        )
    places = [path.with_name(name) for name in names]
    for place in places:
        if not place.is_file():
            raise FileNotFoundError(f"{place} is missing; {path.name} is one of {count} parts")
    parts = [file if place == path else read_gguf(place) for place in places]
    tensors: dict[str, GGUFTensor] = {}
    for number, (place, part) in enumerate(zip(places, parts, strict=True)):
        if (part.fields.get("split.no"), part.fields.get("split.count")) != (number, count):
            raise ValueError(f"{place} does not say that it is part {number + 1} of {count}")
        if both := part.tensors.keys() & tensors.keys():
            raise ValueError(f"{place} has {min(both)}, which another part has, too")
        tensors |= part.tensors
    stated = parts[0].fields.get("split.tensors.count", len(tensors))
    if stated != len(tensors):
        raise ValueError(f"{path} is a part of a model of {stated} tensors; all parts together have {len(tensors)}")
    return GGUFFile(parts[0].fields, tensors, sum(part.n_bytes for part in parts))


def read_gguf(path: Path) -> GGUFFile:
    """Read the header and map the tensors. Raises ValueError, naming the file, if it is not a complete GGUF file,
    or a big-endian one."""
    refuse_pointer_file(path)
    with path.open("rb") as file:
        if file.read(8) in (b"GGUF\0\0\0\2", b"GGUF\0\0\0\3"):
            raise ValueError(f"{path} is big-endian; llama.cpp's gguf_convert_endian.py makes it little-endian")
    try:
        return parse(np.memmap(path, mode="c"))  # mapped copy-on-write: torch takes no read-only arrays
    except (ValueError, struct.error) as error:  # UnicodeDecodeError is a ValueError
        reason = "it ends inside its header" if isinstance(error, struct.error) else error
        raise ValueError(f"{path} is not a whole GGUF file: {reason}") from None


def parse(data: np.ndarray) -> GGUFFile:
    """Parse the bytes of a file."""
    header = HeaderReader(data.data)
    if bytes(header.take(4)) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version = header.number("<I")
    if version not in (2, 3):
        raise ValueError(f"its version is {version}; 2 and 3 are read")
    n_tensors, n_fields = header.number("<Q"), header.number("<Q")
    fields: dict[str, Any] = {}
    for _ in range(n_fields):
        name = header.text()
        if name in fields:
            raise ValueError(f"it has {name} twice")
        fields[name] = header.value(header.number("<I"))
    descriptions = [header.description() for _ in range(n_tensors)]
    alignment = fields.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 8 or alignment % 8:
        raise ValueError(f"general.alignment is {alignment!r}; it must be a multiple of 8")
    begin = -(-header.at // alignment) * alignment
    tensors: dict[str, GGUFTensor] = {}
    for name, shape, kind, offset in descriptions:
        if name in tensors:
            raise ValueError(f"it has {name} twice")
        if offset % alignment:
            raise ValueError(f"{name} lies at {offset}, which is not a multiple of {alignment}")
        try:
            tensors[name] = tensor_at(data[begin + offset :], shape, kind)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return GGUFFile(fields, tensors, len(data))


def tensor_at(data: np.ndarray, shape: tuple[int, ...], number: int) -> GGUFTensor:
    """The tensor at the beginning of `data`; `number` is its type. Raises ValueError if type or size is impossible."""
    try:
        kind = GGMLQuantizationType(number)
    except ValueError:
        raise ValueError(f"its type is number {number}, which is not known") from None
    block, n_bytes = GGML_QUANT_SIZES[kind]
    if not 1 <= len(shape) <= MAX_DIMENSIONS or min(shape) < 1:
        raise ValueError(f"its shape is {list(shape)}")
    row = 1
    for size in shape[1:]:
        row *= size
    if (shape[-1] if len(shape) > 1 else 1) % block:
        raise ValueError(f"its rows of {row} cannot be {kind.name}, which comes in blocks of {block}")
    size = shape[0] * row // block * n_bytes
    if size > len(data):
        raise ValueError(f"it has {size} bytes, but the file ends after {len(data)} of them")
    return GGUFTensor(kind, shape, data[:size].reshape(shape[0], -1))


class HeaderReader:
    """Reads values from the bytes of a file in order. Methods raise struct.error or ValueError past the end."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def take(self, n_bytes: int) -> memoryview:
        """The next bytes."""
        begin, self.at = self.at, self.at + n_bytes
        if self.at > len(self.data):
            raise ValueError("it ends inside its header")
        return self.data[begin : self.at]

    def number(self, code: str) -> int:
        """The next integer, by its code in the `struct` module."""
        (value,) = struct.unpack_from(code, self.data, self.at)
        self.at += struct.calcsize(code)
        return value

    def text(self) -> str:
        """The next string: its length, then its UTF-8 bytes."""
        return str(self.take(self.number("<Q")), "utf-8")

    def value(self, kind: int) -> Any:
        """The next value of a type: a number, a string, a list of strings or an array of numbers."""
        if kind == GGUFValueType.STRING:
            return self.text()
        if kind == GGUFValueType.ARRAY:
            kind, count = self.number("<I"), self.number("<Q")
            return [self.text() for _ in range(count)] if kind == GGUFValueType.STRING else self.array(kind, count)
        value = self.array(kind, 1)[0]
        # The shortest decimal that rounds to the same float32: 1e-5, not 9.999999747e-06.
        return float(str(value)) if kind == GGUFValueType.FLOAT32 else value.item()

    def array(self, kind: int, count: int) -> np.ndarray:
        """The next `count` numbers of a type."""
        if kind not in SCALARS:
            raise ValueError(f"it holds a value of kind {kind}, which is not known")
        dtype = np.dtype(SCALARS[GGUFValueType(kind)])
        return np.frombuffer(self.take(count * dtype.itemsize), dtype)

    def description(self) -> tuple[str, tuple[int, ...], int, int]:
        """The next description of a tensor: name, shape (reversed from GGUF's order), number of its type, offset."""
        name, n_dimensions = self.text(), self.number("<I")
        sizes = np.frombuffer(self.take(8 * n_dimensions), "<u8").tolist()
        return name, tuple(reversed(sizes)), self.number("<I"), self.number("<Q")
