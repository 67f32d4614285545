"""Weights in fewer bits: the formats q8 and q4, and how matrices lie in memory for the native engine.

A matrix (rows, columns) is padded to blocks of 16 rows and groups of 64 columns. q8 is an integer times a bfloat16
scale for each row of each group. q4 is one of 16 integers, closer together where weights are more frequent, times a
scale for each half of a group, which is a whole number, from -127 to 127, of steps; a row has one step, in bfloat16.
In both, scales take 0.25 bits a weight (docs/quantization.md has the study). Blocks are interleaved so that one
register holds a column, or two or four neighbouring ones, of all 16 rows (`native/kernels.h`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from bluejay.native import native

Format = Literal["f32", "bf16", "q8", "q4"]
BLOCK = 16
"""Rows of a block."""
GROUP = 64
"""Columns that share a scale in q8."""
HALF = 32
"""Columns that share a scale in q4."""
CODE = (-127, -94, -72, -55, -42, -29, -18, -8, 1, 11, 21, 32, 44, 59, 77, 101)
"""What the 16 values of q4 stand for, in units of the scale: Lloyd's algorithm on Gaussian and Student-t5 weights."""
TRIED = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2)
"""Scales that q4 tries for each group, in units of the one that just reaches its largest weight."""
SCALES = {"q8": torch.bfloat16, "q4": torch.uint8}
"""What `Packed.scales` is made of."""
CHUNK = 1 << 20
"""Weights that are packed or unpacked at a time, which bounds the memory and stays in the processor's caches."""


@dataclass(frozen=True)
class Packed:
    """A matrix as the native engine reads it."""

    format: Format
    shape: tuple[int, int]
    """Rows and columns without padding."""
    data: Tensor
    """(blocks, groups, bytes of a group) uint8."""
    scales: Tensor | None
    """q8: (blocks, groups, 16) bfloat16. q4: (blocks, 1 + groups, 32) uint8, for each block the 16 rows' steps
    (bfloat16) and then for each group the scales of its two halves (int8, 16 and 16)."""
    smoothing: Tensor | None = None
    """(columns,) float32, if any: what columns of the input are multiplied by, and columns stored here divided by."""


def packed_shape(shape: Sequence[int], format: Format) -> tuple[int, int, int]:
    """Shape of `Packed.data` for a matrix of this shape."""
    bits = {"f32": 32, "bf16": 16, "q8": 8, "q4": 4}[format]
    return -(-shape[0] // BLOCK), -(-shape[1] // GROUP), BLOCK * GROUP * bits // 8


def scales_shape(shape: Sequence[int], format: Format) -> tuple[int, int, int]:
    """Shape of `Packed.scales` for a matrix of this shape in q8 or q4."""
    blocks, groups, _ = packed_shape(shape, format)
    return (blocks, 1 + groups, 2 * BLOCK) if format == "q4" else (blocks, groups, BLOCK)


def packed_memory(shape: Sequence[int]) -> UInt8[Tensor, "blocks groups bytes"]:
    """Memory for a packed matrix. numpy asks the system for huge pages where torch does not; reading them is as fast as
    reading a mapped file, and a tenth faster than small pages."""
    return torch.from_numpy(np.empty(shape, np.uint8))


def pack(
    weight: Float[Tensor, "rows columns"],
    format: Format,
    smoothing: Float[Tensor, " columns"] | None = None,
    importance: Float[Tensor, " columns"] | None = None,
) -> Packed:
    """Quantise a matrix, its columns divided by their `smoothing`, and interleave it; a few blocks at a time. Scales of
    q4 are of least squared error, each square times the `importance` of its column."""
    rows, columns = weight.shape
    blocks, groups, n_bytes = packed_shape((rows, columns), format)
    data = packed_memory((blocks, groups, n_bytes))
    scales = torch.zeros(scales_shape(weight.shape, format), dtype=SCALES[format]) if format in SCALES else None
    importance = torch.ones(columns) if importance is None else importance
    importance = torch.nn.functional.pad(floored(importance, 1e-6), (0, groups * GROUP - columns))
    step = max(1, CHUNK // (BLOCK * GROUP * groups))
    for first in range(0, blocks, step):
        part = weight[first * BLOCK : (first + step) * BLOCK].float()
        part = part if smoothing is None else part / smoothing
        padding = (0, groups * GROUP - columns, 0, -len(part) % BLOCK)
        grouped = torch.nn.functional.pad(part, padding).unflatten(1, (groups, GROUP))
        if scales is None:
            codes = grouped.to(torch.bfloat16 if format == "bf16" else torch.float32)
        else:
            codes, of_rows = quantize(grouped, format, importance.view(groups, GROUP))
            scales[first : first + step] = by_block(of_rows)
        data[first : first + step] = interleave(codes.unflatten(0, (-1, BLOCK)), format)
    return Packed(format, (rows, columns), data, scales, smoothing)


def floored(sizes: Float[Tensor, " columns"], least: float) -> Float[Tensor, " columns"]:
    """Sizes of columns, none below `least` of their mean; 1 where all are 0."""
    mean = sizes.mean()
    return torch.where(mean > 0, sizes.clamp(min=least * mean), 1.0)


def pack_q4(
    codes: UInt8[Tensor, "rows groups 64"],
    steps: Float[Tensor, " rows"],
    scales: Float[Tensor, "rows halves"],
    columns: int,
) -> Packed:
    """A matrix in q4 whose codes, steps (bfloat16) and scales in steps (-127 to 127) are known."""
    padding = -len(codes) % BLOCK
    codes = torch.nn.functional.pad(codes, (0, 0, 0, 0, 0, padding)).unflatten(0, (-1, BLOCK))
    of_rows = torch.nn.functional.pad(rows_of_scales(steps, scales), (0, 0, 0, padding))
    return Packed("q4", (len(scales), columns), interleave(codes, "q4"), by_block(of_rows))


def rows_of_scales(steps: Float[Tensor, " rows"], scales: Float[Tensor, "rows halves"]) -> UInt8[Tensor, "rows bytes"]:
    """Each row's step and its scales in steps, as bytes: what `quantize` gives for q4."""
    return torch.cat((steps.bfloat16()[:, None].view(torch.uint8), scales.to(torch.int8).view(torch.uint8)), dim=1)


def by_block(of_rows: Tensor) -> Tensor:
    """From what `quantize` gives to `Packed.scales`."""
    if of_rows.dtype == torch.bfloat16:
        return of_rows.unflatten(0, (-1, BLOCK)).transpose(1, 2).contiguous()
    pairs = of_rows.unflatten(1, (-1, 2)).unflatten(0, (-1, BLOCK)).transpose(1, 2)  # (blocks, 1 + groups, 16, 2)
    return torch.cat((pairs[:, :1].flatten(2), pairs[:, 1:].transpose(2, 3).flatten(2)), dim=1)


def scales_of_rows(scales: Tensor) -> Float[Tensor, "blocks 16 groups parts"]:
    """From `Packed.scales` to the scale of each row's groups (q8) or halves of groups (q4), in float32."""
    if scales.dtype == torch.bfloat16:
        return scales.float().transpose(1, 2)[..., None]
    steps = scales[:, :1].view(torch.bfloat16).float()  # (blocks, 1, 16)
    in_steps = scales[:, 1:].view(torch.int8).unflatten(2, (2, BLOCK)).float()
    return (in_steps * steps[:, :, None]).permute(0, 3, 1, 2)


def unpack(packed: Packed, dtype: torch.dtype = torch.float32) -> Float[Tensor, "rows columns"]:
    """The matrix that a packed one stands for, in float32 or bfloat16; a few blocks at a time."""
    blocks, groups, _ = packed.data.shape
    weight = torch.empty(blocks, BLOCK, groups, GROUP, dtype=dtype, device=packed.data.device)
    smoothing = torch.ones(packed.shape[1]) if packed.smoothing is None else packed.smoothing
    smoothing = torch.nn.functional.pad(smoothing, (0, groups * GROUP - packed.shape[1])).view(groups, GROUP)
    step = max(1, CHUNK // (BLOCK * GROUP * groups))
    for first in range(0, blocks, step):
        part = slice(first, first + step)
        data, values = packed.data[part], weight[part]
        if packed.scales is None:
            values.copy_(deinterleave(data, packed.format))
            continue
        scales = scales_of_rows(packed.scales[part])  # (blocks, 16, groups, parts of a group)
        scales = scales[..., None] * smoothing.to(scales.device).unflatten(-1, (scales.shape[-1], -1))
        if packed.format == "q4":
            decode_q4(data, scales, values)
        else:
            values.copy_(deinterleave(data, packed.format)).sub_(128).mul_(scales.flatten(-2))
    return weight.flatten(2).flatten(0, 1)[: packed.shape[0], : packed.shape[1]]


def decode_q4(data: Tensor, scales: Float[Tensor, "blocks 16 groups 2 32"], values: Tensor) -> None:
    """Fill (blocks, 16, groups, 64) values from the bytes of q4, whose two halves are looked up at once."""
    byte = torch.arange(256, device=data.device)
    code = torch.tensor(CODE, dtype=values.dtype, device=data.device)
    pair = torch.int32 if values.dtype.itemsize == 2 else torch.int64
    pairs = torch.stack((code[byte & 15], code[byte >> 4]), dim=1).view(pair).flatten()
    codes = deinterleave(data, "q4")
    found = pairs.index_select(0, codes.flatten().int()).view(values.dtype).view(*codes.shape, 2)
    torch.mul(found.transpose(-1, -2), scales, out=values.unflatten(-1, (2, -1)))


def quantize(
    weight: Float[Tensor, "rows groups 64"], format: Format, importance: Float[Tensor, "groups 64"]
) -> tuple[UInt8[Tensor, "rows groups 64"], Tensor]:
    """The codes of least squared error (q8: 1..255 for -127..127; q4: places in CODE) and each row's scales: of q8
    (rows, groups) bfloat16, of q4 the bytes that `rows_of_scales` describes."""
    if native is None:
        return quantize_by_torch(weight, format, importance)
    rows, groups, _ = weight.shape
    codes = torch.empty(weight.shape, dtype=torch.uint8)
    scales = torch.empty(rows, 2 * groups + 2 * (format == "q4"), dtype=torch.uint8)
    numbers, code = weight.float().contiguous().flatten().numpy(), np.array(CODE, np.float32)
    threads = torch.get_num_threads()
    counts = importance.contiguous().flatten().numpy()
    native.quantize(numbers, counts, rows, format, code, codes.flatten().numpy(), scales.flatten().numpy(), threads)
    return codes, scales if format == "q4" else scales.view(torch.bfloat16)


def quantize_by_torch(
    weight: Float[Tensor, "rows groups 64"], format: Format, importance: Float[Tensor, "groups 64"]
) -> tuple[UInt8[Tensor, "rows groups 64"], Tensor]:
    """The same, twenty times slower."""
    weight = weight.float()
    if format == "q8":
        scale = (weight.abs().amax(-1, keepdim=True) / 127).bfloat16()
        return ((weight * inverse(scale.float())).clamp(-127, 127).round() + 128).to(torch.uint8), scale[..., 0]
    halves = weight.unflatten(-1, (2, HALF)).flatten(1, 2)
    steps, scales = in_steps(best_scales(halves, importance.view(-1, HALF)))
    codes = nearest(halves * inverse(steps[:, None] * scales)[..., None], torch.tensor(CODE, dtype=torch.float32))
    return codes.to(torch.uint8).view(weight.shape), rows_of_scales(steps, scales)


def best_scales(
    weight: Float[Tensor, "rows halves 32"], importance: Float[Tensor, "halves 32"]
) -> Float[Tensor, "rows halves"]:
    """Scales of q4 of least squared error, each square times the `importance` of its column."""
    code = torch.tensor(CODE, dtype=torch.float32)
    largest = weight.abs().amax(-1, keepdim=True)
    best, scale = torch.zeros_like(largest), torch.zeros_like(largest)
    for reach in (sign * tried * code.abs().max() for sign in (1, -1) for tried in TRIED):
        values = code[nearest(weight * (reach * inverse(largest)), code)]
        # Of all scales for these values, least squares takes <w, v> / <v, v>, and its gain is <w, v>^2 / <v, v>.
        along = (weight * values * importance).sum(-1, keepdim=True)
        square = (values.square() * importance).sum(-1, keepdim=True)
        gain = along.square() * inverse(square)
        scale = torch.where(gain > best, along * inverse(square), scale)
        best = torch.maximum(gain, best)
    return scale[..., 0]


def in_steps(
    scales: Float[Tensor, "rows halves"],
) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows halves"]]:
    """Each row's step, bfloat16 in float32, and its scales in whole steps; only 0 becomes 0."""
    steps = (scales.abs().amax(1) / 127).bfloat16().float()
    whole = (scales * inverse(steps)[:, None]).round().clamp(-127, 127)
    return steps, torch.where(whole == 0, scales.sign(), whole)


def inverse(scale: Tensor) -> Tensor:
    """1 / scale, and 0 for 0: a group of zeros."""
    return torch.where(scale == 0, 0.0, 1 / scale)


def nearest(weight: Tensor, code: Tensor) -> Int[Tensor, "..."]:
    """Place of the value of `code` that is nearest to each weight."""
    return torch.bucketize(weight, (code[1:] + code[:-1]) / 2, out_int32=True)


def interleave(codes: Tensor, format: Format) -> Tensor:
    """From (blocks, 16, groups, 64) to (blocks, groups, bytes)."""
    match format:
        case "f32" | "bf16":
            width = 1 if format == "f32" else 2
            ordered = codes.unflatten(-1, (-1, width)).permute(0, 2, 3, 1, 4).contiguous()
            return ordered.flatten(2).view(torch.uint8)
        case "q8":
            return codes.unflatten(-1, (-1, 4)).permute(0, 2, 3, 1, 4).flatten(2)
        case "q4":
            low, high = codes.unflatten(-1, (2, -1, 4)).permute(3, 0, 2, 4, 1, 5)
            return (low | high << 4).flatten(2)


def deinterleave(data: Tensor, format: Format) -> Tensor:
    """The inverse of `interleave`; the two codes in a byte of q4 are left together, (blocks, 16, groups, 32)."""
    if format in ("f32", "bf16"):
        dtype, width = (torch.float32, 1) if format == "f32" else (torch.bfloat16, 2)
        return data.view(dtype).unflatten(-1, (-1, BLOCK, width)).permute(0, 3, 1, 2, 4).flatten(3)
    # Four neighbouring bytes of a row move as one number.
    return data.view(torch.int32).unflatten(-1, (-1, BLOCK)).permute(0, 3, 1, 2).contiguous().view(torch.uint8)
