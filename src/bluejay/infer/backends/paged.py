"""Attention of one new token of each sequence on a GPU, which reads the pages of the cache where they lie.

A program computes one head of one sequence: it goes through the sequence's pages (Kwon et al. 2023, arXiv 2309.06180,
section 4.3) with the running sum of an online softmax (Milakov & Gimelshein 2018, arXiv 1805.02867). So keys are not
copied together, and scores are not stored. Where heads are too few to occupy the device, several programs divide the
pages of each, and their sums are joined afterwards (Flash-Decoding, Dao et al. 2023). Decoding waits for memory, so
vector units do the arithmetic, in float32.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

PROGRAMS = 512
"""Programs that occupy a device, by rule of thumb: a few for each of an H100's 132 multiprocessors."""
MOST_PARTS = 16


@triton.jit
def attend_head(
    q, keys, values, pages, positions, totals, weights, scale, window, q_row, q_head, kv_head, kv_slot, pages_row,
    D_HEAD: tl.constexpr, WIDTH: tl.constexpr, GROUP: tl.constexpr, PAGE: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """One part of the pages of one head of one sequence: the mean of the values by the part's own softmax, into
    `totals` (rows, heads, PARTS, D_HEAD), and the logarithm of its denominator, into `weights` (rows, heads, PARTS).
    The last dimensions of all tensors are adjacent."""
    row, head, part = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2)
    column = tl.arange(0, WIDTH)
    in_head = column < D_HEAD
    query = tl.load(q + row * q_row + head * q_head + column, mask=in_head, other=0.0).to(tl.float32) * scale
    position = tl.load(positions + row)
    first = tl.maximum(position - window + 1, 0)
    n_pages = position // PAGE + 1 - first // PAGE
    begin = first // PAGE + n_pages * part // PARTS
    end = first // PAGE + n_pages * (part + 1) // PARTS
    total = tl.zeros((WIDTH,), tl.float32)
    highest, weight = -float("inf"), 0.0
    for number in range(begin, end):  # each of these pages has a key that is seen
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
    to = (row * tl.num_programs(1) + head) * PARTS + part
    mean = total / tl.where(begin < end, weight, 1.0)
    tl.store(totals + to * D_HEAD + column, mean.to(totals.dtype.element_ty), mask=in_head)
    if PARTS > 1:
        tl.store(weights + to, tl.where(begin < end, highest + tl.log(weight), -float("inf")))


@triton.jit
def join_parts(
    totals, weights, out, D_HEAD: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The parts of one head of one sequence, each with the share of its denominator in the whole one."""
    head, part, column = tl.program_id(0).to(tl.int64), tl.arange(0, PARTS), tl.arange(0, WIDTH)
    weight = tl.load(weights + head * PARTS + part)
    share = tl.exp(weight - tl.max(weight, 0))  # 0 for a part without pages
    at = (head * PARTS + part)[:, None] * D_HEAD + column[None, :]
    in_head = column < D_HEAD
    total = tl.sum(tl.load(totals + at, mask=in_head[None, :], other=0.0) * share[:, None], 0) / tl.sum(share, 0)
    tl.store(out + head * D_HEAD + column, total.to(out.dtype.element_ty), mask=in_head)


def parts_of(n_heads: int) -> int:
    """Into how many parts the pages of each of so many heads of sequences are divided: a power of two."""
    return min(MOST_PARTS, triton.next_power_of_2(max(1, PROGRAMS // n_heads)))


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
    parts, width = parts_of(n_rows * n_head), triton.next_power_of_2(d_head)
    weights = q.new_empty((n_rows, n_head, parts), dtype=torch.float32)
    totals = out if parts == 1 else weights.new_empty((*weights.shape, d_head))
    keys, values = keys_values
    attend_head[(n_rows, n_head, parts)](
        q, keys, values, pages, positions, totals, weights, scale, window or 1 << 30,
        q.stride(0), q.stride(1), keys.stride(0), keys.stride(1), pages.stride(0),
        D_HEAD=d_head, WIDTH=width, GROUP=n_head // len(keys), PAGE=page_size, PARTS=parts,
    )  # fmt: skip
    if parts > 1:
        join_parts[(n_rows * n_head,)](totals, weights, out, D_HEAD=d_head, WIDTH=width, PARTS=parts)
    return out
