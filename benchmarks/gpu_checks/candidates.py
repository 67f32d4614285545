"""Changes that the package does not have yet, so that a run on a GPU can say what each would be worth.

`apply` replaces methods of the package's classes, so a process that applied a change cannot measure the package without
it. The changes:

- "bf16 norm": a norm returns the type of the matrix products, so that its output is cast once;
- "stacked qkv": one matrix product computes queries, keys and values;
- "varlen", "flex": attention takes the lengths of documents and builds no T x T table, keeps the layout of the matrix
  products, and reads rotary tables that stay on the device;
- "bf16 residual": the residual stream is bfloat16;
- "fused head": the loss head works on pieces of 4,096 rows; what is between its products is compiled;
- "cross-entropy": the loss head computes the logits of all rows at once, compiled as a whole;
- "checkpoint inside": recomputation is part of what is compiled;
- "one graph": all blocks are compiled as one graph.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

import bluejay.gpt.model as package
import bluejay.train.distributed.stage as stage
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.recompute import selective_policy

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None

PIECE: int = 4096
"""Rows whose logits the fused head holds at once."""


@dataclass
class Documents:
    """The documents of a batch, in the form that one kind of attention needs."""

    kind: str
    starts: Tensor
    """The first token that each token sees (B T)."""
    bounds: Tensor | None = None
    """Where each document begins in the flattened batch (`cu_seqlens`); unused places hold the number of all tokens."""
    window: int | None = None
    blocks: BlockMask | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Attention of (B T N H) queries to (B T K H) keys and values."""
        grouped = q.shape[2] != k.shape[2]
        if self.kind == "varlen" and q.is_cuda:
            assert self.bounds is not None
            return varlen(q, k, v, self.bounds, scale, self.window)
        rows = [x.transpose(1, 2) for x in (q, k, v)]
        if self.kind == "flex":
            flex: Any = flex_attention
            return flex(*rows, block_mask=self.blocks, scale=scale, enable_gqa=grouped).transpose(1, 2)
        order = torch.arange(q.shape[1], device=q.device)
        mask = (order <= order[:, None]) & (order >= self.starts[..., None])
        if self.window is not None:
            mask = mask & (order > order[:, None] - self.window)
        y = F.scaled_dot_product_attention(*rows, attn_mask=mask[:, None], scale=scale, enable_gqa=grouped)
        return y.transpose(1, 2)


def varlen(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, scale: float, window: int | None = None) -> Tensor:
    """Flash attention of the (B T N H) queries of documents that `bounds` separates."""
    more: dict[str, Any] = {}
    names = VARLEN_ARGUMENTS
    if "enable_gqa" in names:
        more["enable_gqa"] = q.shape[2] != k.shape[2]
    if "window_size" in names:
        more["window_size"] = (-1 if window is None else window - 1, 0)
    else:
        more["is_causal"] = True
    if "scale" in names:
        more["scale"] = scale
    T = q.shape[1]
    attend: Any = varlen_attn
    return attend(*(x.flatten(0, 1) for x in (q, k, v)), bounds, bounds, T, T, **more).unflatten(0, (-1, T))


VARLEN_ARGUMENTS = () if varlen_attn is None else tuple(signature(varlen_attn).parameters)


def bounds_of(starts: Tensor, room: int | None = None) -> Tensor:
    """`Documents.bounds` from where each token's document starts in its sequence, exactly, or without waiting for the
    device, for at most `room` documents. Every unused
    place costs flash attention time."""
    B, T = starts.shape
    first = (starts == torch.arange(T, device=starts.device)).flatten()
    if room is None:
        room = int(first.sum())
    at = torch.where(first, first.cumsum(0) - 1, room).clamp(max=room)
    place = torch.arange(B * T, device=starts.device)
    bounds = torch.full((room + 1,), B * T, dtype=torch.int32, device=starts.device)
    return bounds.scatter_(0, at, torch.where(first, place, B * T).int())


def blocks_of(starts: Tensor, window: int | None) -> BlockMask:
    """Which blocks of keys each block of queries sees, for flex attention."""
    B, T = starts.shape

    def sees(b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        near = (k <= q) & (k >= starts[b, q])
        return near if window is None else near & (k > q - window)

    return create_block_mask(sees, B, None, T, T, device=str(starts.device), _compile=starts.is_cuda)


def rotary_table(config: GPTConfig, device: torch.device, kept: dict[Any, Any]) -> tuple[Tensor, Tensor] | None:
    """Cosines and sines (n_ctx R), made once."""
    if config.rotary == "none":
        return None
    if config not in kept:
        order = torch.arange(config.n_ctx, device=device)
        angles = package.rotary_angles(order[None], config)
        assert angles is not None
        cos, sin = angles
        kept[config] = cos[0, 0], sin[0, 0]
    return kept[config]


def hidden(kind: str, narrow: bool, whole: bool) -> Callable[..., Tensor]:
    """`GPT.hidden` with attention by documents; `whole` compiles all of its blocks as one."""
    kept: dict[Any, Any] = {}

    def blocks(self: Any, x: Tensor, rotation: Any, seen: Documents, local: Documents) -> Tensor:
        for layer, block in enumerate(self.blocks):
            seen_here = local if layer in self.config.local_layers else seen
            x = package.recomputed(block, self.recompute)(x, rotation, seen_here, None)
        return self.norm(x)

    through = torch.compile(blocks) if whole else blocks

    def run(self: Any, tokens: Tensor, *, document_start: Tensor | None = None, **_: object) -> Tensor:
        order = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        starts = torch.zeros_like(tokens) if document_start is None else document_start
        positions = order - starts
        x = self.embed(tokens)
        if self.position is not None:
            x = x + self.position(positions)
        if narrow:
            x = x.bfloat16()
        table = rotary_table(self.config, tokens.device, kept)
        rotation = None if table is None else tuple(part[positions][:, :, None] for part in table)
        window = self.config.window if self.config.local_layers else None
        seen = Documents(kind, starts)
        local = Documents(kind, starts, window=window)
        if kind == "varlen":
            if "room" not in kept:  # by the first batch; later ones have about as many documents
                kept["room"] = len(bounds_of(starts)) * 3 // 2 + 8
            seen.bounds = local.bounds = bounds_of(starts, kept["room"])
        if kind == "flex":
            seen.blocks = blocks_of(starts, None)
            local.blocks = blocks_of(starts, window) if window else None
        return through(self, x, rotation, seen, local)

    return run


def attention(stacked: bool) -> Callable[..., Tensor]:
    """`Attention.forward` in the layout (B T N H)."""

    def forward(self: Any, x: Tensor, rotation: Any, seen: Documents, cache: None) -> Tensor:
        if stacked:
            matrices = (self.q, self.k, self.v)
            bias = None if self.q.bias is None else torch.cat([matrix.bias for matrix in matrices])
            rows = F.linear(x, torch.cat([matrix.weight for matrix in matrices]), bias)
            parts = rows.split([matrix.weight.shape[0] for matrix in matrices], dim=-1)
        else:
            parts = [matrix(x) for matrix in (self.q, self.k, self.v)]
        q, k, v = (part.unflatten(-1, (-1, self.d_head)) for part in parts)
        if rotation is not None:
            q, k = (package.rotate(part, rotation, self.rotate_half) for part in (q, k))
        return self.out(seen.attend(q, k, v, self.scale).flatten(-2))

    return forward


def norm(self: Any, x: Tensor) -> Tensor:
    """`Norm.forward` that returns the type of the matrix products."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    if self.bias is None:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(dtype)
    return F.layer_norm(x.float(), self.weight.shape, self.weight.float(), self.bias.float(), self.eps).to(dtype)


def gradient(logits: Tensor, bias: Tensor | None, targets: Tensor, scale: float, z_loss: float) -> tuple[Tensor, ...]:
    """The loss of some rows, its gradient in the type of the logits, and that of the bias; written to be compiled."""
    x = logits.float() if bias is None else logits.float() + bias
    total = x.logsumexp(-1, keepdim=True)
    nats = (total[:, 0] - x.gather(1, targets[:, None])[:, 0]).sum()
    slope = (x - total).exp()
    if z_loss:
        slope = slope * (1 + 2 * z_loss * total)
    column = torch.arange(x.shape[1], device=x.device)
    slope = torch.where(column == targets[:, None], slope - 1, slope) * scale
    return nats, slope.to(logits.dtype), slope.sum(0) if bias is not None else nats


class Head(torch.autograd.Function):
    """The fused loss head. With `summed` the product itself adds to the float32 gradient of the weights."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        states, weight, bias, targets, scale, z_loss, piece, summed = inputs
        device = states.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        matrix, rows = weight.to(dtype), states.to(dtype)
        loss = torch.zeros((), device=states.device)
        d_states, d_weight = torch.empty_like(states), torch.zeros_like(weight, dtype=torch.float32)
        d_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        for start in range(0, len(rows), piece):
            part = slice(start, start + piece)
            nats, slope, column = compiled_gradient(rows[part] @ matrix.T, bias, targets[part], scale, z_loss)
            loss += nats
            if d_bias is not None:
                d_bias += column
            d_states[part] = slope @ matrix
            if summed and slope.is_cuda:
                torch.addmm(d_weight, slope.T, rows[part], out_dtype=torch.float32, out=d_weight)
            else:
                d_weight += slope.T @ rows[part]
        ctx.save_for_backward(d_states, d_weight, d_bias)
        return loss * scale

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        (upstream,) = upstreams
        return *(None if part is None else part * upstream for part in ctx.saved_tensors), *([None] * 5)


compiled_gradient = torch.compile(gradient, dynamic=False)


def head_loss(
    states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scale: float, *rest: Any, summed: bool = False
) -> Tensor:
    """`bluejay.train.loss.head_loss` for one process and equal weights of all targets."""
    z_loss = rest[-1] if rest else 0.0
    return Head.apply(states.flatten(0, 1), weight, bias, targets.flatten(), scale, z_loss, PIECE, summed)


@partial(torch.compile, dynamic=False)
def cross(states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """The sum of all rows' cross-entropy."""
    return F.cross_entropy(F.linear(states, weight, bias).float(), targets, reduction="sum")


def cross_loss(states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scale: float, *_: Any) -> Tensor:
    """`bluejay.train.loss.head_loss` with all logits at once."""
    return cross(states.flatten(0, 1), weight, bias, targets.flatten()) * scale


def inside(kind: str) -> None:
    """Make blocks recompute inside the compiled code."""
    forward = package.Block.forward
    selective = {"context_fn": partial(create_selective_checkpoint_contexts, selective_policy)}
    context: dict[str, Any] = selective if kind == "selective" else {}

    def recomputing(self: Any, *inputs: Any) -> Tensor:
        return checkpoint(forward, self, *inputs, use_reentrant=False, preserve_rng_state=False, **context)

    changed: Any = package
    changed.Block.forward = recomputing
    changed.recomputed = lambda block, _kind: block


def apply(changes: Sequence[str], recompute: str = "none") -> None:
    """Change the package's classes."""
    changed: Any = stage
    classes: Any = package
    if "bf16 norm" in changes:
        classes.Norm.forward = norm
    for kind in ("varlen", "flex", "table"):
        if kind in changes:
            classes.GPT.hidden = hidden(kind, "bf16 residual" in changes, "one graph" in changes)
            classes.Attention.forward = attention("stacked qkv" in changes)
    if "fused head" in changes:
        changed.head_loss = head_loss
    if "cross-entropy" in changes:
        changed.head_loss = cross_loss
    if "checkpoint inside" in changes:
        inside(recompute)
