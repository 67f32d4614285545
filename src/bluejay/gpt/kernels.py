"""The operations of a block: matrix products, norm, rotary positions, attention, activation.

Each is implemented with torch. On CPUs with bfloat16 products, bfloat16 training uses the native kernels instead
(`native/training.h`), which read and write each tensor once: attention rotates its inputs itself, and norms turn the
residual stream directly into bfloat16. Of matrix products they compute the gradients of matrices alone, with AMX.
Shapes are those of `bluejay.gpt.model`.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bluejay.gpt.attention import VisibleRange, attend_documents, attend_ranges, takes_varlen
from bluejay.native import native

ACTIVATIONS = {"gelu_tanh": partial(F.gelu, approximate="tanh"), "gelu": F.gelu, "relu": F.relu, "silu": F.silu}
Rotation = tuple[Float[Tensor, "B T 1 R"], Float[Tensor, "B T 1 R"]]
"""Cosine and sine of the angle of each rotated pair."""


def attention(
    q: Float[Tensor, "B T N H"],
    k: Float[Tensor, "B T K H"],
    v: Float[Tensor, "B T K H"],
    rotation: Rotation | None,
    rotate_half: bool,
    visible: VisibleRange | None,
    scale: float,
) -> Float[Tensor, "B T N H"]:
    """Causal attention with N query heads and K key and value heads; rotates queries and keys first."""
    if is_native(q, q.dtype) and q.shape[-1] % 16 == 0:
        cos, sin = (None, None) if rotation is None else (angles[:, :, 0].contiguous() for angles in rotation)
        first_visible = None if visible is None else visible.first_visible
        return NativeAttention.apply(q, k, v, cos, sin, rotate_half, first_visible, scale)
    if rotation is not None:
        q, k = rotate(q, rotation, rotate_half), rotate(k, rotation, rotate_half)
    if visible is None:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped).transpose(1, 2)
    if takes_varlen(q, visible):
        return attend_documents(q, k, v, visible, scale)
    return attend_ranges(q, k, v, visible.first_visible, scale)


def rotate(x: Float[Tensor, "B T N H"], rotation: Rotation, rotate_half: bool) -> Float[Tensor, "B T N H"]:
    """Rotate the first 2 R dimensions of each head and leave the others unchanged. The pairs are (0, 1), (2, 3), ...,
    or with `rotate_half` (0, R), (1, R + 1), ..."""
    cos, sin = rotation
    rotated, rest = x.split((2 * cos.shape[-1], x.shape[-1] - 2 * cos.shape[-1]), dim=-1)
    shape, axis = ((2, -1), -2) if rotate_half else ((-1, 2), -1)
    first, second = rotated.float().unflatten(-1, shape).unbind(axis)
    pairs = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=axis)
    return torch.cat((pairs.flatten(-2).to(x.dtype), rest), dim=-1)


def norm(
    x: Float[Tensor, "*batch D"], weight: Float[Tensor, " D"], bias: Float[Tensor, " D"] | None, eps: float
) -> Float[Tensor, "*batch D"]:
    """Layer norm, or root-mean-square norm if there is no bias, computed in float32. The result has the type of the
    input; the native kernel and GPUs return the type of the matrix products, which autocast would convert to anyway."""
    if is_native(x, torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype) and x.shape[-1] % 16 == 0:
        return NativeNorm.apply(x, weight, bias, eps)
    dtype = normed_dtype(x.device.type, x.dtype)
    if bias is None:
        return F.rms_norm(x.float(), weight.shape, weight.float(), eps).to(dtype)
    return F.layer_norm(x.float(), weight.shape, weight.float(), bias.float(), eps).to(dtype)


def normed_dtype(device: str, dtype: torch.dtype) -> torch.dtype:
    """The type of what torch's norms return for an input of type `dtype` on a kind of device. On a CPU, it is that of
    the input: the gradients from the matrices that read the norm are added in float32."""
    narrow = device != "cpu" and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if narrow else dtype


def activate(x: Float[Tensor, "*batch F"], activation: str) -> Float[Tensor, "*batch F"]:
    """Apply one of `ACTIVATIONS`."""
    if is_native(x, x.dtype):
        return NativeActivation.apply(x, activation)
    return ACTIVATIONS[activation](x)


def linear(
    x: Float[Tensor, "*batch I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None
) -> Float[Tensor, "*batch O"]:
    """The product with a matrix, plus the bias."""
    learning = torch.is_grad_enabled() and weight.requires_grad and torch.is_autocast_enabled("cpu")
    if learning and is_native(x, torch.get_autocast_dtype("cpu")) and has_native_gradient(weight):
        return NativeLinear.apply(x, weight, bias)
    return F.linear(x, weight, bias)


def has_native_gradient(weight: Float[Tensor, "O I"]) -> bool:
    """Whether `add_weight_gradient` can add to the gradient of a matrix in memory."""
    aligned = weight.dtype == torch.float32 and not any(side % 16 for side in weight.shape)
    return aligned and type(weight) in (Tensor, nn.Parameter) and native is not None and native.has_weight_gradient()


def add_weight_gradient(dy: Float[Tensor, "M O"], x: Float[Tensor, "M I"], d_weight: Float[Tensor, "O I"]) -> None:
    """Add the products of the rows of `dy` and `x`, in bfloat16, to the gradient of a matrix, in float32."""
    native.weight_gradient(dy.contiguous(), x.contiguous(), d_weight, torch.get_num_threads())


def is_native(x: Tensor, matmul_dtype: torch.dtype) -> bool:
    """Whether the native kernels can process `x` in a model whose matrix products have type `matmul_dtype`. They read
    memory directly, so a distributed or traced tensor or one on another device is excluded."""
    in_memory = x.device.type == "cpu" and type(x) in (Tensor, nn.Parameter) and not torch.compiler.is_compiling()
    return in_memory and matmul_dtype == torch.bfloat16 and native is not None and native.trains()


class NativeAttention(torch.autograd.Function):
    """Attention whose backward pass keeps the inputs, the output and one float32 per query and head."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Float[Tensor, "B T N H"],
        k: Float[Tensor, "B T K H"],
        v: Float[Tensor, "B T K H"],
        cos: Float[Tensor, "B T R"] | None,
        sin: Float[Tensor, "B T R"] | None,
        rotate_half: bool,
        first_visible: Int[Tensor, "B T"] | None,
        scale: float,
    ) -> Float[Tensor, "B T N H"]:
        q, k, v = (x.detach().contiguous() for x in (q, k, v))
        out, lse = torch.empty_like(q), q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)
        ctx.constants = (rotate_half, scale)
        ctx.save_for_backward(q, k, v, cos, sin, first_visible, out, lse)
        native.attend(q, k, v, cos, sin, rotate_half, first_visible, scale, out.detach(), lse, torch.get_num_threads())
        return out

    @staticmethod
    def backward(ctx: Any, *d_outs: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, cos, sin, first_visible, out, lse = ctx.saved_tensors
        rotate_half, scale = ctx.constants
        gradients = tuple(torch.empty_like(x) for x in (q, k, v))
        d_out = d_outs[0].detach().contiguous()
        threads = torch.get_num_threads()
        native.attend_backward(
            q, k, v, cos, sin, rotate_half, first_visible, scale, out.detach(), lse, d_out, *gradients, threads
        )
        return *gradients, None, None, None, None, None


class NativeLinear(torch.autograd.Function):
    """A product in bfloat16 with a matrix in float32, whose gradient is summed in float32."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "*batch I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None
    ) -> Float[Tensor, "*batch O"]:
        x, matrix = x.detach().bfloat16(), weight.detach().bfloat16()
        ctx.save_for_backward(x, matrix)
        with torch.autocast("cpu", enabled=False):
            return F.linear(x, matrix, None if bias is None else bias.detach().bfloat16())

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix = ctx.saved_tensors
        dy = dys[0].detach().flatten(0, -2)
        dx = (dy @ matrix).view(x.shape) if ctx.needs_input_grad[0] else None
        d_weight = torch.zeros_like(matrix, dtype=torch.float32)
        add_weight_gradient(dy, x.flatten(0, -2), d_weight)
        return dx, d_weight, dy.sum(0, dtype=torch.float32) if ctx.needs_input_grad[2] else None


class NativeNorm(torch.autograd.Function):
    """A norm whose backward pass keeps only the input."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "*batch D"],
        weight: Float[Tensor, " D"],
        bias: Float[Tensor, " D"] | None,
        eps: float,
    ) -> Float[Tensor, "*batch D"]:
        x, weight = x.detach().contiguous(), weight.detach().float()
        bias = None if bias is None else bias.detach().float()
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
    """An activation whose backward pass keeps only the input."""

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
