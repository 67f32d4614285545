"""A linear layer of torch whose weights stay in 8 or 4 bits, on any device."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bluejay.gpt.quantization.packing import Packed, unpack


class PackedLinear(nn.Module):
    """A frozen linear layer in 8 or 4 bits. Its matrix is unpacked at each use, in the type of the input."""

    def __init__(self, packed: Packed, bias: Tensor | None) -> None:
        super().__init__()
        self.format, self.shape = packed.format, packed.shape
        self.register_buffer("data", packed.data)
        self.register_buffer("scales", packed.scales)
        self.register_buffer("smoothing", packed.smoothing)
        self.register_buffer("bias", bias)

    @property
    def packed(self) -> Packed:
        """The matrix."""
        return Packed(self.format, self.shape, self.data, self.scales, self.smoothing)

    @property
    def weight(self) -> Float[Tensor, "rows columns"]:
        """The matrix in bfloat16, unpacked each time."""
        return unpack(self.packed, torch.bfloat16)

    def forward(self, x: Float[Tensor, "*batch columns"]) -> Float[Tensor, "*batch rows"]:
        if not x.requires_grad:
            return F.linear(x, unpack(self.packed, x.dtype), self.bias)
        y = PackedMatmul.apply(x, self.packed)
        return y if self.bias is None else y + self.bias


class PackedMatmul(torch.autograd.Function):
    """Product with a packed matrix, which is unpacked in the forward and the backward pass and never stored."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "*batch columns"], packed: Packed) -> Float[Tensor, "*batch rows"]:
        ctx.packed = packed
        return x @ unpack(packed, x.dtype).T

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor, None]:
        (upstream,) = upstreams
        return upstream @ unpack(ctx.packed, upstream.dtype), None
