"""Attention of one new token of each sequence on a GPU, which reads the pages of the cache where they lie.

A program computes one head of one sequence: it goes through the sequence's pages (Kwon et al. 2023, arXiv 2309.06180,
section 4.3) with the running sum of an online softmax (Milakov & Gimelshein 2018, arXiv 1805.02867). So keys are not
copied together, and scores are not stored. Decoding waits for memory, so vector units do the arithmetic, in float32.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor


@triton.jit
def attend_head(
    q, keys, values, pages, positions, out, scale, window, q_row, q_head, kv_head, kv_slot, pages_row,
    D_HEAD: tl.constexpr, WIDTH: tl.constexpr, GROUP: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """One head of one sequence. The last dimensions of all tensors are adjacent, and `out` is laid out as `q`."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    column = tl.arange(0, WIDTH)
    in_head = column < D_HEAD
    query = tl.load(q + row * q_row + head * q_head + column, mask=in_head, other=0.0).to(tl.float32) * scale
    position = tl.load(positions + row)
    first = tl.maximum(position - window + 1, 0)
    total = tl.zeros((WIDTH,), tl.float32)
    highest, weight = -float("inf"), 0.0
    for number in range(first // PAGE, position // PAGE + 1):
        slot = tl.load(pages + row * pages_row + number).to(tl.int64) * PAGE + tl.arange(0, PAGE)
        place = number * PAGE + tl.arange(0, PAGE)
        seen = (place >= first) & (place <= position)
        at = (head // GROUP) * kv_head + slot[:, None] * kv_slot + column[None, :]
        here = seen[:, None] & in_head[None, :]
        key = tl.load(keys + at, mask=here, other=0.0).to(tl.float32)
        score = tl.where(seen, tl.sum(key * query[None, :], 1), -float("inf"))
        higher = tl.maximum(highest, tl.max(score, 0))
        shrink, share = tl.exp(highest - higher), tl.exp(score - higher)
        value = tl.load(values + at, mask=here, other=0.0).to(tl.float32)
        total = total * shrink + tl.sum(share[:, None] * value, 0)
        weight = weight * shrink + tl.sum(share, 0)
        highest = higher
    tl.store(out + row * q_row + head * q_head + column, (total / weight).to(out.dtype.element_ty), mask=in_head)


def attend(
    q: Float[Tensor, "B N H"],
    keys_values: Float[Tensor, "2 K slots H"],
    pages: Int[Tensor, "B pages"],
    positions: Int[Tensor, " B"],
    page_size: int,
    scale: float,
    window: int | None,
) -> Float[Tensor, "B N H"]:
    """What each sequence's token attends to: the keys of its own pages up to its position, the last `window` of them if
    that is given. `page_size` is a power of two."""
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    q, pages, positions = q.contiguous(), pages.contiguous(), positions.contiguous()
    n_rows, n_head, d_head = q.shape
    keys, values = keys_values
    attend_head[(n_rows, n_head)](
        q, keys, values, pages, positions, out, scale, window or 1 << 30,
        q.stride(0), q.stride(1), keys.stride(0), keys.stride(1), pages.stride(0),
        D_HEAD=d_head, WIDTH=triton.next_power_of_2(d_head), GROUP=n_head // len(keys), PAGE=page_size,
    )  # fmt: skip
    return out
