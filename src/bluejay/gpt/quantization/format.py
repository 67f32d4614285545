"""The layout that all formats of weight matrices share, and the formats f32 and bf16, which do not quantise.

A matrix (rows, columns) is padded to blocks of 16 rows and groups of 64 columns. The 16 rows of a block are interleaved
so that one vector register holds four bytes of each row (`native/formats.h`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

BLOCK = 16
"""Rows of a block."""
GROUP = 64
"""Columns of a group."""
Rows = Float[Tensor, "rows groups 64"]
Importance = Float[Tensor, "groups 64"]
Codes = UInt8[Tensor, "rows groups 64"]
Blocks = UInt8[Tensor, "blocks groups bytes"]


class Format(ABC):
    """A way to store a weight matrix. A quantised format is a subclass of its own (`bluejay.gpt.quantization.q4`)."""

    name: str
    """Name on disk, on the command line and in the native engine."""
    bits: int
    """Bits of one stored number."""
    scale_dtype: torch.dtype | None = None
    """Type of the tensor of scales; None for f32 and bf16, which have none: their methods of scales raise."""
    codebook: tuple[int, ...] | None = None
    """The values that codes stand for, if they are not the codes themselves."""
    gptq: bool = False
    """Whether columns can be rounded for the inputs of a text (`bluejay.gpt.quantization.gptq`)."""

    def data_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Shape of the data of a matrix (rows, columns): blocks, groups, bytes of a group of a block."""
        return -(-shape[0] // BLOCK), -(-shape[1] // GROUP), BLOCK * GROUP * self.bits // 8

    def scales_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Shape of the scales of a matrix (rows, columns)."""
        raise NotImplementedError(f"{self.name} has no scales")

    @abstractmethod
    def encode(self, weight: Rows, importance: Importance) -> tuple[Blocks, Tensor | None]:
        """Data and scales of float32 rows, which fill whole blocks. Codes minimise the squared error, in which each
        square is multiplied by the `importance` of its column."""

    def encode_scales(self, scales: Float[Tensor, "rows parts"]) -> Tensor:
        """The stored form of scales, of which every group has one or more."""
        raise NotImplementedError(f"{self.name} has no scales")

    def decode_scales(self, scales: Tensor) -> Float[Tensor, "blocks 16 groups parts"]:
        """The inverse of `encode_scales`, by group."""
        raise NotImplementedError(f"{self.name} has no scales")

    @abstractmethod
    def decode(self, data: Tensor, scales: Tensor | None, out: Float[Tensor, "blocks 16 groups 64"]) -> None:
        """Write the numbers that `data` holds to `out`. `scales` are (blocks, 16, groups, parts, columns of a part)."""


class Exact(Format):
    """Numbers of a floating-point type."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        self.name, self.bits, self.dtype = name, 8 * dtype.itemsize, dtype

    def encode(self, weight: Rows, importance: Importance) -> tuple[Blocks, Tensor | None]:
        return interleave(weight.to(self.dtype).unflatten(0, (-1, BLOCK))), None

    def decode(self, data: Tensor, scales: Tensor | None, out: Float[Tensor, "blocks 16 groups 64"]) -> None:
        out.copy_(deinterleave(data, self.dtype))


def interleave(codes: Tensor) -> Blocks:
    """From (blocks, 16, groups, codes of a group) to bytes: four bytes of each of the 16 rows in turn."""
    per_row = 4 // codes.element_size()
    return codes.unflatten(-1, (-1, per_row)).permute(0, 2, 3, 1, 4).contiguous().flatten(2).view(torch.uint8)


def deinterleave(data: Blocks, dtype: torch.dtype) -> Tensor:
    """The inverse of `interleave`. Four neighbouring bytes of a row move as one number."""
    return data.view(torch.int32).unflatten(-1, (-1, BLOCK)).permute(0, 3, 1, 2).contiguous().view(dtype)


def inverse(scale: Tensor) -> Tensor:
    """1 / scale, and 0 for the scale 0 of a group of zeros."""
    return torch.where(scale == 0, 0.0, 1 / scale)
