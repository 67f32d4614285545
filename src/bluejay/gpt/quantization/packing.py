"""Weight matrices packed for the native engine, in one of the formats of `FORMATS`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import pad

from bluejay.gpt.quantization.format import BLOCK, GROUP, Exact, Format
from bluejay.gpt.quantization.q4 import Q4
from bluejay.gpt.quantization.q8 import Q8

FORMATS: dict[str, Format] = {
    format.name: format for format in (Exact("f32", torch.float32), Exact("bf16", torch.bfloat16), Q8(), Q4())
}
"""Every format by its name."""
QUANTISED = {name: format for name, format in FORMATS.items() if format.scale_dtype is not None}
"""The formats that `bluejay convert --quantize` writes."""
CHUNK_WEIGHTS = 1 << 20
"""Weights packed or unpacked at a time. This bounds the memory, and they stay in the processor's caches."""
GPU_CHUNK_WEIGHTS = 1 << 25
"""The same on another device, which is told what to do less often: most matrices are unpacked at once."""


@dataclass(frozen=True)
class Packed:
    """A matrix in the memory layout of the native engine."""

    format: Format
    shape: tuple[int, int]
    """Rows and columns, without padding."""
    data: Tensor
    """(blocks, groups, bytes of a group) uint8."""
    scales: Tensor | None
    """Scales in the layout of the format; None if it does not quantise."""
    smoothing: Tensor | None = None
    """(columns,) float32 factors that the input's columns are multiplied and the stored columns divided by, or None."""


def packed_memory(shape: Sequence[int]) -> UInt8[Tensor, "blocks groups bytes"]:
    """Uninitialised memory for the data of a matrix. NumPy asks the system for huge pages, torch does not. Reading them
    is a tenth faster, as fast as a mapped file."""
    return torch.from_numpy(np.empty(shape, np.uint8))


def pack(
    weight: Float[Tensor, "rows columns"],
    format: Format,
    smoothing: Float[Tensor, " columns"] | None = None,
    importance: Float[Tensor, " columns"] | None = None,
) -> Packed:
    """Divide the columns of a matrix by their `smoothing` and encode it, a few blocks at a time. The squared error that
    the format minimises is weighted with the `importance` of each column."""
    rows, columns = weight.shape
    blocks, groups, _ = format.data_shape(weight.shape)
    data = packed_memory(format.data_shape(weight.shape))
    scales = torch.zeros(format.scales_shape(weight.shape), dtype=format.scale_dtype) if format.scale_dtype else None
    importance = torch.ones(columns) if importance is None else importance
    importance = pad(floored(importance, 1e-6), (0, groups * GROUP - columns)).view(groups, GROUP)
    step = max(1, CHUNK_WEIGHTS // (BLOCK * GROUP * groups))
    for first in range(0, blocks, step):
        part = weight[first * BLOCK : (first + step) * BLOCK].float()
        part = part if smoothing is None else part / smoothing
        padded = pad(part, (0, groups * GROUP - columns, 0, -len(part) % BLOCK))
        data[first : first + step], found = format.encode(padded.unflatten(1, (groups, GROUP)), importance)
        if scales is not None and found is not None:
            scales[first : first + step] = found
    return Packed(format, (rows, columns), data, scales, smoothing)


def floored(sizes: Float[Tensor, " columns"], least: float) -> Float[Tensor, " columns"]:
    """Sizes of columns, each at least `least` times their mean; 1 if all are 0."""
    mean = sizes.mean()
    return torch.where(mean > 0, sizes.clamp(min=least * mean), 1.0)


def unpack(packed: Packed, dtype: torch.dtype = torch.float32) -> Float[Tensor, "rows columns"]:
    """The matrix that was packed, in float32 or bfloat16; a few blocks are decoded at a time."""
    blocks, groups, _ = packed.data.shape
    weight = torch.empty(blocks, BLOCK, groups, GROUP, dtype=dtype, device=packed.data.device)
    device = packed.data.device
    smoothing = torch.ones(packed.shape[1], device=device) if packed.smoothing is None else packed.smoothing
    smoothing = pad(smoothing, (0, groups * GROUP - packed.shape[1])).view(groups, GROUP)
    step = max(1, (CHUNK_WEIGHTS if device.type == "cpu" else GPU_CHUNK_WEIGHTS) // (BLOCK * GROUP * groups))
    for first in range(0, blocks, step):
        part, scales = slice(first, first + step), None
        if packed.scales is not None:
            scales = packed.format.decode_scales(packed.scales[part])  # (blocks, 16, groups, parts of a group)
            scales = scales[..., None] * smoothing.to(scales.device).unflatten(-1, (scales.shape[-1], -1))
        packed.format.decode(packed.data[part], scales, weight[part])
    return weight.flatten(2).flatten(0, 1)[: packed.shape[0], : packed.shape[1]]
