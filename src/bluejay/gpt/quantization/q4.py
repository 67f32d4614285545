"""The format q4: one of 16 integers times a scale for each half of a group (docs/quantization.md has the study).

The 16 integers are closer together where weights are more frequent. A scale is an integer from -127 to 127 times the
step of its row, which is a bfloat16.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from bluejay.gpt.quantization.format import (
    BLOCK,
    GROUP,
    Blocks,
    Codes,
    Format,
    Importance,
    Rows,
    deinterleave,
    interleave,
    inverse,
)
from bluejay.native import native

HALF_GROUP = GROUP // 2
"""Columns that share a scale."""
CODEBOOK = (-127, -94, -72, -55, -42, -29, -18, -8, 1, 11, 21, 32, 44, 59, 77, 101)
"""The values of the 16 codes, in units of the scale: Lloyd's algorithm on Gaussian and Student-t5 weights."""
PAIRS: dict[tuple[torch.dtype, torch.device], Int[Tensor, "256"]] = {}
"""The tables that `pairs_of_values` made, each at its first use. A CUDA graph needs its table to stay at one address,
and torch.compile would trace into a function with `functools.cache` and make the table in every step."""
SCALE_CANDIDATES = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2)
"""Inverse scales that are tried for each half of a group; 1 maps its largest weight to the end of the codebook."""


class Q4(Format):
    """4 bits a weight. Scales are (blocks, 1 + groups, 32) bytes: the bfloat16 steps of the 16 rows of a block, then
    for each group the int8 scales of its first and of its second half, 16 of each."""

    name, bits, scale_dtype, codebook, gptq = "q4", 4, torch.uint8, CODEBOOK, True

    def scales_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        blocks, groups, _ = self.data_shape(shape)
        return blocks, 1 + groups, 2 * BLOCK

    def encode(self, weight: Rows, importance: Importance) -> tuple[Blocks, Tensor | None]:
        return to_blocks(*(self.quantize if native else self.quantize_with_torch)(weight, importance))

    @staticmethod
    def quantize(weight: Rows, importance: Importance) -> tuple[Codes, UInt8[Tensor, "rows row_bytes"]]:
        """Codes (indices of `CODEBOOK`) and `row_scales` of least squared error."""
        codes = torch.empty(weight.shape, dtype=torch.uint8)
        scales = torch.empty(len(weight), 2 + 2 * weight.shape[1], dtype=torch.uint8)
        arrays = (weight.contiguous().numpy(), importance.contiguous().numpy(), codes.numpy(), scales.numpy())
        tables = (np.array(table, np.float32) for table in (CODEBOOK, SCALE_CANDIDATES))
        rows = (array.reshape(-1) for array in arrays)
        native.quantize_q4(*rows, *tables, len(weight), torch.get_num_threads())
        return codes, scales

    @staticmethod
    def quantize_with_torch(weight: Rows, importance: Importance) -> tuple[Codes, UInt8[Tensor, "rows row_bytes"]]:
        """The computation of `quantize` without the native engine, twenty times slower."""
        halves = weight.unflatten(-1, (2, HALF_GROUP)).flatten(1, 2)
        steps, scales = quantize_scales(best_scales(halves, importance.view(-1, HALF_GROUP)))
        codes = nearest(halves * inverse(steps[:, None] * scales)[..., None], codebook())
        return codes.to(torch.uint8).view(weight.shape), row_scales(steps, scales)

    def encode_scales(self, scales: Float[Tensor, "rows halves"]) -> UInt8[Tensor, "blocks groups1 32"]:
        return block_scales(row_scales(*quantize_scales(scales)))

    def decode_scales(self, scales: UInt8[Tensor, "blocks groups1 32"]) -> Float[Tensor, "blocks 16 groups 2"]:
        steps = scales[:, :1].view(torch.bfloat16).float()  # (blocks, 1, 16)
        in_steps = scales[:, 1:].view(torch.int8).unflatten(2, (2, BLOCK)).float()
        return (in_steps * steps[:, :, None]).permute(0, 3, 1, 2)

    def decode(self, data: Tensor, scales: Tensor | None, out: Float[Tensor, "blocks 16 groups 64"]) -> None:
        assert scales is not None
        codes = deinterleave(data, torch.uint8)
        if (kind := (out.dtype, data.device)) not in PAIRS:
            PAIRS[kind] = pairs_of_values(*kind)
        pairs = PAIRS[kind]
        decoded = pairs.index_select(0, codes.flatten().int()).view(out.dtype).view(*codes.shape, 2)
        values, halves = decoded.transpose(-1, -2), out.unflatten(-1, (2, -1))
        if torch.compiler.is_compiling():
            halves.copy_(values * scales)  # torch.compile knows no `out=` of this layout; without it a CPU is faster
        else:
            torch.mul(values, scales, out=halves)


def pairs_of_values(dtype: torch.dtype, device: torch.device) -> Int[Tensor, "256"]:
    """The two values that each byte stands for, as one number of twice their width, so that both are looked up at
    once."""
    with torch.inference_mode(False):
        byte, values = torch.arange(256), torch.tensor(CODEBOOK, dtype=dtype)
        pair_dtype = torch.int32 if dtype.itemsize == 2 else torch.int64
        return torch.stack((values[byte & 15], values[byte >> 4]), dim=1).view(pair_dtype).flatten().to(device)


def best_scales(
    weight: Float[Tensor, "rows halves 32"], importance: Float[Tensor, "halves 32"]
) -> Float[Tensor, "rows halves"]:
    """Scales of least squared error, in which each square is multiplied by the `importance` of its column."""
    values = codebook()
    largest = weight.abs().amax(-1, keepdim=True)
    best, scale = torch.zeros_like(largest), torch.zeros_like(largest)
    codebook_max = values.abs().max()
    for target in (sign * candidate * codebook_max for sign in (1, -1) for candidate in SCALE_CANDIDATES):
        rounded = values[nearest(weight * (target * inverse(largest)), values)]
        # For given values v of weights w, the best of all scales is <w, v> / <v, v>, and its gain <w, v>^2 / <v, v>.
        dot = (weight * rounded * importance).sum(-1, keepdim=True)
        square = (rounded.square() * importance).sum(-1, keepdim=True)
        gain = dot.square() * inverse(square)
        scale = torch.where(gain > best, dot * inverse(square), scale)
        best = torch.maximum(gain, best)
    return scale[..., 0]


def quantize_scales(
    scales: Float[Tensor, "rows halves"],
) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows halves"]]:
    """The step of each row, a bfloat16 in float32, and the scales in whole steps, of which only 0 becomes 0."""
    steps = (scales.abs().amax(1) / 127).bfloat16().float()
    whole = (scales * inverse(steps)[:, None]).round().clamp(-127, 127)
    return steps, torch.where(whole == 0, scales.sign(), whole)


def row_scales(steps: Float[Tensor, " rows"], scales: Float[Tensor, "rows halves"]) -> UInt8[Tensor, "rows row_bytes"]:
    """The bytes of each row's step and of its scales in steps."""
    return torch.cat((steps.bfloat16()[:, None].view(torch.uint8), scales.to(torch.int8).view(torch.uint8)), dim=1)


def block_scales(row_scales: UInt8[Tensor, "rows row_bytes"]) -> UInt8[Tensor, "blocks groups1 32"]:
    """The layout of `Q4`'s scales, from those of each row."""
    pairs = row_scales.unflatten(1, (-1, 2)).unflatten(0, (-1, BLOCK)).transpose(1, 2)  # (blocks, 1 + groups, 16, 2)
    return torch.cat((pairs[:, :1].flatten(2), pairs[:, 1:].transpose(2, 3).flatten(2)), dim=1)


def to_blocks(
    codes: Codes, row_scales: UInt8[Tensor, "rows row_bytes"]
) -> tuple[Blocks, UInt8[Tensor, "blocks groups1 32"]]:
    """Data and scales of whole blocks of rows; the second half's codes are the high four bits of the first's bytes."""
    low, high = codes.unflatten(0, (-1, BLOCK)).split(HALF_GROUP, dim=-1)
    return interleave(low | high << 4), block_scales(row_scales)


def nearest(weight: Tensor, values: Tensor) -> Int[Tensor, "..."]:
    """The index of the element of ascending `values` that is nearest to each weight."""
    return torch.bucketize(weight, (values[1:] + values[:-1]) / 2, out_int32=True)


def codebook() -> Float[Tensor, "16"]:
    """`CODEBOOK` as a tensor."""
    return torch.tensor(CODEBOOK, dtype=torch.float32)
