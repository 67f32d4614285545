"""What a block does besides multiplying by its matrices: norm, rotary positions, attention, activation.

Each is written with torch's operations. On processors that multiply bfloat16, training in it takes the native kernels
(`native/training.h`), which read and write everything once: attention with the rotation inside it and no table of who
sees whom, norms that give bfloat16 straight from the residual stream. Shapes as in `bluejay.gpt.model`.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bluejay.native import native

ACTIVATIONS = {"gelu_tanh": partial(F.gelu, approximate="tanh"), "gelu": F.gelu, "relu": F.relu, "silu": F.silu}
Rotation = tuple[Float[Tensor, "B 1 T R"], Float[Tensor, "B 1 T R"]]
"""Cosine and sine of every rotated pair's angle."""


class Visible:
    """The tokens that each token sees: from `first` up to itself."""

    def __init__(self, first: Int[Tensor, "B T"]) -> None:
        self.first = first.int()
        self.table: Bool[Tensor, "B 1 T T"] | None = None

    def mask(self) -> Bool[Tensor, "B 1 T T"]:
        """The same as a table, query by key."""
        if self.table is None:
            order = torch.arange(self.first.shape[1], device=self.first.device)
            self.table = ((order <= order[:, None]) & (order >= self.first[..., None]))[:, None]
        return self.table


def attention(
    q: Float[Tensor, "B N T H"],
    k: Float[Tensor, "B K T H"],
    v: Float[Tensor, "B K T H"],
    rotation: Rotation | None,
    halves: bool,
    seen: Visible | None,
    scale: float,
) -> Float[Tensor, "B N T H"]:
    """Causal attention of N query heads over K key and value heads, after rotating queries and keys."""
    if is_native(q, q.dtype) and q.shape[-1] % 16 == 0:
        cos, sin = (None, None) if rotation is None else (angles[:, 0].contiguous() for angles in rotation)
        rows = (x.transpose(1, 2) for x in (q, k, v))
        return NativeAttention.apply(*rows, cos, sin, halves, None if seen is None else seen.first, scale).transpose(
            1, 2
        )
    if rotation is not None:
        q, k = rotate(q, rotation, halves), rotate(k, rotation, halves)
    mask = None if seen is None else seen.mask()
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped
    )


def rotate(x: Float[Tensor, "B N T H"], rotation: Rotation, halves: bool) -> Float[Tensor, "B N T H"]:
    """Turn the first 2 R dimensions of each head and leave the rest; pairs are interleaved, (0, 1), (2, 3), ..., or by
    `halves`, (0, R), (1, R + 1), ..."""
    cos, sin = rotation
    turned, rest = x.split((2 * cos.shape[-1], x.shape[-1] - 2 * cos.shape[-1]), dim=-1)
    shape, axis = ((2, -1), -2) if halves else ((-1, 2), -1)
    first, second = turned.float().unflatten(-1, shape).unbind(axis)
    pairs = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=axis)
    return torch.cat((pairs.flatten(-2).to(x.dtype), rest), dim=-1)


def norm(
    x: Float[Tensor, "*batch D"], weight: Float[Tensor, " D"], bias: Float[Tensor, " D"] | None, eps: float
) -> Float[Tensor, "*batch D"]:
    """Layer norm, or root-mean-square norm where there is no bias, in float32; given back in the type of its input, or
    under autocast in the type that the matrix products want."""
    if is_native(x, torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype) and x.shape[-1] % 16 == 0:
        return NativeNorm.apply(x, weight, bias, eps)
    if bias is None:
        return F.rms_norm(x.float(), weight.shape, weight.float(), eps).to(x.dtype)
    return F.layer_norm(x.float(), weight.shape, weight.float(), bias.float(), eps).to(x.dtype)


def activate(x: Float[Tensor, "*batch F"], activation: str) -> Float[Tensor, "*batch F"]:
    """The activation of the MLP, one of `ACTIVATIONS`."""
    if is_native(x, x.dtype):
        return NativeActivation.apply(x, activation)
    return ACTIVATIONS[activation](x)


def is_native(x: Tensor, product: torch.dtype) -> bool:
    """Whether the native kernels take `x`, beside matrix products of this type.

    They read memory, which a tensor that is spread, traced or on another device does not have here.
    """
    here = x.device.type == "cpu" and type(x) in (Tensor, nn.Parameter) and not torch.compiler.is_compiling()
    return here and product == torch.bfloat16 and native is not None and native.trains()


class NativeAttention(torch.autograd.Function):
    """Keeps its inputs, its output and one float32 a query and head."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Float[Tensor, "B T N H"],
        k: Float[Tensor, "B T K H"],
        v: Float[Tensor, "B T K H"],
        cos: Float[Tensor, "B T R"] | None,
        sin: Float[Tensor, "B T R"] | None,
        halves: bool,
        first: Int[Tensor, "B T"] | None,
        scale: float,
    ) -> Float[Tensor, "B T N H"]:
        q, k, v = (x.detach().contiguous() for x in (q, k, v))
        out, lse = torch.empty_like(q), q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)
        ctx.constants = (halves, scale)
        ctx.save_for_backward(q, k, v, cos, sin, first, out, lse)
        native.attend(q, k, v, cos, sin, halves, first, scale, out.detach(), lse, torch.get_num_threads())
        return out

    @staticmethod
    def backward(ctx: Any, *d_outs: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, cos, sin, first, out, lse = ctx.saved_tensors
        halves, scale = ctx.constants
        gradients = tuple(torch.empty_like(x) for x in (q, k, v))
        d_out = d_outs[0].detach().contiguous()
        threads = torch.get_num_threads()
        native.attend_backward(q, k, v, cos, sin, halves, first, scale, out.detach(), lse, d_out, *gradients, threads)
        return *gradients, None, None, None, None, None


class NativeNorm(torch.autograd.Function):
    """Keeps its input alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "*batch D"],
        weight: Float[Tensor, " D"],
        bias: Float[Tensor, " D"] | None,
        eps: float,
    ) -> Float[Tensor, "*batch D"]:
        x, weight, bias = (
            x.detach().contiguous(),
            weight.detach().float(),
            None if bias is None else bias.detach().float(),
        )
        ctx.eps = eps
        ctx.save_for_backward(x, weight, bias)
        y = torch.empty_like(x, dtype=torch.bfloat16)
        native.norm(x.flatten(0, -2), weight, bias, eps, y.flatten(0, -2), torch.get_num_threads())
        return y

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        dx, d_weight = torch.empty_like(x), torch.zeros_like(weight)
        d_bias = None if bias is None else torch.zeros_like(bias)
        dy = dys[0].detach().contiguous().flatten(0, -2)
        threads = torch.get_num_threads()
        native.norm_backward(x.flatten(0, -2), weight, bias, ctx.eps, dy, dx.flatten(0, -2), d_weight, d_bias, threads)
        return dx, d_weight, d_bias, None


class NativeActivation(torch.autograd.Function):
    """Keeps its input alone."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "*batch F"], activation: str) -> Float[Tensor, "*batch F"]:
        x = x.detach().contiguous()
        ctx.activation = activation
        ctx.save_for_backward(x)
        y = torch.empty_like(x)
        native.activate(activation, x.flatten(), y.flatten(), torch.get_num_threads())
        return y

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        dx, dy = torch.empty_like(x), dys[0].detach().contiguous()
        native.activate_backward(ctx.activation, x.flatten(), dy.flatten(), dx.flatten(), torch.get_num_threads())
        return dx, None
