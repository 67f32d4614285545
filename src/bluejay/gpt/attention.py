"""Attention of each token to a range of the tokens before it, without a table of all pairs of tokens.

Packed sequences hold several documents, and some layers look back over a window only. In both cases a token attends to
consecutive tokens that end with itself (`VisibleRange`). CUDA has a kernel for such ranges, which takes the lengths of
the documents (torch's `varlen_attn`). Elsewhere `attend_ranges` computes a block of queries at a time from the keys
that the block can see. A mask of this block is all that it holds, and only while it needs it.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

QUERY_BLOCK = 256
"""Queries that `attend_ranges` computes at a time."""
VARLEN_DTYPES = (torch.bfloat16, torch.float16)
VARLEN_MAX_WIDTH = 256
"""The widest head that flash attention takes."""


class VisibleRange:
    """The tokens that each token attends to: from `first_visible` up to itself.

    Within a sequence `first_visible` never decreases. CUDA's kernel reads two other forms of the same: `bounds` says
    where the documents are (`document_bounds`), and `window` is the largest number of tokens that a token attends to,
    itself included.
    """

    def __init__(
        self,
        first_visible: Int[Tensor, "B T"],
        bounds: Int[Tensor, " bounds"] | None = None,
        window: int | None = None,
    ) -> None:
        self.first_visible = first_visible.int()
        self.bounds, self.window = bounds, window
        self.groups_by_name = bounds is not None and groups_by_name()
        if bounds is not None:
            torch._dynamo.maybe_mark_dynamic(bounds, 0)  # compiled code is for any number of documents


def document_bounds(starts: Int[Tensor, "B T"]) -> Int[Tensor, " bounds"]:
    """Where each document begins in the flattened batch, and after them the number of all tokens, from the index at
    which each token's document begins in its sequence. The result depends on the data, so a GPU is waited for; it is
    best computed on the CPU."""
    B, T = starts.shape
    first = starts == torch.arange(T, device=starts.device)
    return F.pad(first.flatten().nonzero()[:, 0], (0, 1), value=B * T).int()


def whole_sequences(tokens: Int[Tensor, "B T"]) -> Int[Tensor, " B+1"]:
    """`document_bounds` of sequences of one document each."""
    B, T = tokens.shape
    return torch.arange(0, B * T + 1, T, dtype=torch.int32, device=tokens.device)


def has_varlen(device: torch.device) -> bool:
    """Whether torch has flash attention by the lengths of documents for a device."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def takes_varlen(q: Tensor, visible: VisibleRange) -> bool:
    """Whether flash attention takes these queries (B T N H)."""
    width = q.shape[-1]
    return visible.bounds is not None and q.dtype in VARLEN_DTYPES and width % 8 == 0 and width <= VARLEN_MAX_WIDTH


def attend_documents(
    q: Float[Tensor, "B T N H"],
    k: Float[Tensor, "B T K H"],
    v: Float[Tensor, "B T K H"],
    visible: VisibleRange,
    scale: float,
) -> Float[Tensor, "B T N H"]:
    """Flash attention by the lengths of documents."""
    from torch.nn.attention.varlen import varlen_attn  # takes seconds to import

    T, bounds = q.shape[1], visible.bounds
    window = (-1 if visible.window is None else visible.window - 1, 0)
    grouped: dict[str, Any] = {"enable_gqa": q.shape[2] != k.shape[2]} if visible.groups_by_name else {}
    flat = (x.flatten(0, 1) for x in (q, k, v))
    attend: Any = varlen_attn
    return attend(*flat, bounds, bounds, T, T, scale=scale, window_size=window, **grouped).unflatten(0, (-1, T))


@cache
def groups_by_name() -> bool:
    """Whether torch's varlen attention must be told of grouped heads; earlier versions take them without."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in signature(varlen_attn).parameters


@torch.library.custom_op("bluejay::attend_ranges", mutates_args=())
def attend_ranges(q: Tensor, k: Tensor, v: Tensor, first_visible: Tensor, scale: float) -> Tensor:
    """Attention of (B T N H) queries to (B T K H) keys and values, from `first_visible` (B T) on. It is one operation,
    so that compiled code and selective recomputation treat it as one."""
    y = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    for rows, queries, keys in query_blocks(first_visible):
        parts = q[rows, queries], k[rows, keys], v[rows, keys]
        y[rows, queries] = attend_block(*parts, block_mask(first_visible, rows, queries, keys), scale)
    return y


@torch.library.custom_op("bluejay::attend_ranges_backward", mutates_args=())
def attend_ranges_backward(
    d_y: Tensor, q: Tensor, k: Tensor, v: Tensor, first_visible: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values; computes each block a second time."""
    sums = [torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in (q, k, v)]
    for rows, queries, keys in query_blocks(first_visible):
        places = (rows, queries), (rows, keys), (rows, keys)
        parts = [x[place].detach().requires_grad_() for x, place in zip((q, k, v), places, strict=True)]
        with recording():
            y = attend_block(parts[0], parts[1], parts[2], block_mask(first_visible, rows, queries, keys), scale)
            gradients = torch.autograd.grad(y, parts, d_y[rows, queries])
        for total, place, gradient in zip(sums, places, gradients, strict=True):
            total[place] += gradient
    d_q, d_k, d_v = (total.to(x.dtype) for total, x in zip(sums, (q, k, v), strict=True))
    return d_q, d_k, d_v


def query_blocks(first_visible: Int[Tensor, "B T"]) -> Iterator[tuple[slice, slice, slice]]:
    """Rows, queries of a block, and the keys that they see. Short sequences are one block together."""
    B, T = first_visible.shape
    if T <= QUERY_BLOCK:
        yield slice(0, B), slice(0, T), slice(0, T)
        return
    for row, firsts in enumerate(first_visible[:, ::QUERY_BLOCK].tolist()):
        for number, first in enumerate(firsts):
            start = number * QUERY_BLOCK
            end = min(start + QUERY_BLOCK, T)
            yield slice(row, row + 1), slice(start, end), slice(first, end)


def block_mask(
    first_visible: Int[Tensor, "B T"], rows: slice, queries: slice, keys: slice
) -> Bool[Tensor, "rows 1 queries keys"]:
    """Which keys each query of a block attends to."""
    device = first_visible.device
    query, key = (torch.arange(part.start, part.stop, device=device) for part in (queries, keys))
    return ((key <= query[:, None]) & (key >= first_visible[rows, queries, None]))[:, None]


def attend_block(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """torch's attention with a mask, of tensors whose heads follow their tokens."""
    heads = (x.transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[2] != k.shape[2]
    return F.scaled_dot_product_attention(*heads, attn_mask=mask, scale=scale, enable_gqa=grouped).transpose(1, 2)


def recording() -> Any:
    """Autograd inside an operation, which torch otherwise switches off there."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in (torch._C.DispatchKey.AutogradFunctionality, torch._C.DispatchKey.ADInplaceOrView):
        excluded = excluded.remove(key)
    stack = ExitStack()
    stack.enter_context(torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded))
    stack.enter_context(torch.enable_grad())
    return stack


def keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep what the backward pass of `attend_ranges` needs."""
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def ranges_gradient(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of the inputs of `attend_ranges`."""
    return *attend_ranges_backward(d_y, *ctx.saved_tensors, ctx.scale), None, None


attend_ranges.register_fake(lambda q, k, v, first_visible, scale: q.new_empty(q.shape))
attend_ranges_backward.register_fake(
    lambda d_y, q, k, v, first_visible, scale: tuple(x.new_empty(x.shape) for x in (q, k, v))
)
attend_ranges.register_autograd(ranges_gradient, setup_context=keep_inputs)
