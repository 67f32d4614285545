"""The format q8: an integer from -127 to 127 times a bfloat16 scale for each row of each group."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bluejay.gpt.quantization.format import (
    BLOCK,
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

ZERO = 128
"""The code of 0; codes are unsigned because the dot product of AVX-512 takes one unsigned factor."""


class Q8(Format):
    """8 bits a weight. Scales are (blocks, groups, 16) bfloat16."""

    name, bits, scale_dtype = "q8", 8, torch.bfloat16

    def scales_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        blocks, groups, _ = self.data_shape(shape)
        return blocks, groups, BLOCK

    def encode(self, weight: Rows, importance: Importance) -> tuple[Blocks, Tensor | None]:
        codes, scales = (self.quantize if native else self.quantize_with_torch)(weight, importance)
        return interleave(codes.unflatten(0, (-1, BLOCK))), self.encode_scales(scales)

    @staticmethod
    def quantize(weight: Rows, importance: Importance) -> tuple[Codes, Float[Tensor, "rows groups"]]:
        """Codes and scales. A scale maps the largest weight to 127, so the importance of columns has no influence."""
        codes = torch.empty(weight.shape, dtype=torch.uint8)
        scales = torch.empty(weight.shape[:2], dtype=torch.bfloat16)
        arrays = (weight.contiguous().numpy(), codes.numpy(), scales.view(torch.uint8).numpy())
        native.quantize_q8(*(array.reshape(-1) for array in arrays), len(weight), torch.get_num_threads())
        return codes, scales

    @staticmethod
    def quantize_with_torch(weight: Rows, importance: Importance) -> tuple[Codes, Float[Tensor, "rows groups"]]:
        """The computation of `quantize` without the native engine."""
        scale = (weight.abs().amax(-1, keepdim=True) / 127).bfloat16()
        codes = (weight * inverse(scale.float())).clamp(-127, 127).round() + ZERO
        return codes.to(torch.uint8), scale[..., 0]

    def encode_scales(self, scales: Float[Tensor, "rows groups"]) -> Float[Tensor, "blocks groups 16"]:
        return scales.bfloat16().unflatten(0, (-1, BLOCK)).transpose(1, 2).contiguous()

    def decode_scales(self, scales: Float[Tensor, "blocks groups 16"]) -> Float[Tensor, "blocks 16 groups 1"]:
        return scales.float().transpose(1, 2)[..., None]

    def decode(self, data: Tensor, scales: Tensor | None, out: Float[Tensor, "blocks 16 groups 64"]) -> None:
        assert scales is not None
        out.copy_(deinterleave(data, torch.uint8)).sub_(ZERO).mul_(scales.flatten(-2))
