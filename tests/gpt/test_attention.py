"""Attention by ranges is attention with a mask: the same results and gradients, and no table of all pairs of tokens."""

import subprocess
import sys

import pytest
import torch
import torch.nn.attention.varlen
import torch.nn.functional as F

from bluejay.gpt import attention, model
from bluejay.gpt.attention import QUERY_BLOCK, VisibleRange, attend_ranges, document_bounds
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model

SHAPES = {
    "GPT-J": {},
    "grouped heads": {"n_kv_head": 2, "parallel": False, "n_norm": 2},
    "windows": {"rotary": "none", "learned_positions": True, "local_layers": (1,), "window": 40},
}


def starts_of(rows, tokens, seed=0):
    """Where the document of each token starts, for documents of 50 tokens on average."""
    generator = torch.Generator().manual_seed(seed)
    begins = torch.rand(rows, tokens, generator=generator) < 0.02
    return torch.where(begins, torch.arange(tokens), 0).cummax(-1).values


def masked(q, k, v, first_visible, scale):
    """torch's attention with the whole table, which is the other implementation."""
    order = torch.arange(q.shape[1])
    mask = (order <= order[:, None]) & (order >= first_visible[..., None])
    heads = (x.transpose(1, 2) for x in (q, k, v))
    y = F.scaled_dot_product_attention(*heads, attn_mask=mask[:, None], scale=scale, enable_gqa=True)
    return y.transpose(1, 2)


def by_documents(q, k, v, bounds, bounds_of_keys, longest, longest_keys, *, scale, window_size, enable_gqa):
    """What torch's `varlen_attn` computes, which exists for CUDA only, one document after the other."""
    assert bounds is bounds_of_keys and bounds.dtype == torch.int32 and bounds[-1] == len(q)
    assert int(bounds.diff().max()) <= longest == longest_keys and int(bounds.diff().min()) > 0
    assert enable_gqa == (q.shape[1] != k.shape[1])
    results = []
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        parts = [x[None, first:last] for x in (q, k, v)]
        order = torch.arange(last - first)[None]
        first_visible = torch.zeros_like(order) if window_size[0] < 0 else (order - window_size[0]).clamp(min=0)
        results.append(masked(*parts, first_visible, scale)[0])
    return torch.cat(results)


@pytest.mark.parametrize("tokens", [1, 37, QUERY_BLOCK, 2 * QUERY_BLOCK + 70])
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 1)])
@pytest.mark.parametrize("window", [None, 30, 300])
def test_ranges_give_what_the_table_gives(tokens, heads, kv_heads, window):
    torch.manual_seed(0)
    inputs = [torch.randn(2, tokens, n, 16) for n in (heads, kv_heads, kv_heads)]
    first_visible = starts_of(2, tokens)
    if window is not None:
        first_visible = first_visible.maximum(torch.arange(tokens) - window + 1)
    slope = torch.randn(inputs[0].shape)
    found = []
    for attend in (attend_ranges, masked):
        learned = [x.clone().requires_grad_() for x in inputs]
        y = attend(*learned, first_visible, 0.3)
        y.backward(slope)
        found.append([y.detach(), *(x.grad for x in learned)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_what_is_kept_and_what_is_held_at_once_grow_with_the_tokens_and_not_with_their_pairs(monkeypatch):
    gpt = new_model(GPTConfig(n_layer=3, d_model=16, n_head=1, vocab_size=50, n_ctx=2048), 0)
    largest, block_mask = [0], attention.block_mask

    def watched(*arguments):
        mask = block_mask(*arguments)
        largest[0] = max(largest[0], mask.nbytes)
        return mask

    monkeypatch.setattr(attention, "block_mask", watched)
    kept_per_token = []
    for tokens in (512, 2048):
        kept: dict[int, int] = {}

        def keep(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            hidden = gpt.hidden(torch.zeros(1, tokens, dtype=torch.long), document_start=starts_of(1, tokens))
        hidden.sum().backward()
        kept_per_token.append((sum(kept.values()) - sum(p.nbytes for p in gpt.parameters())) / tokens)
    assert kept_per_token[1] <= 1.01 * kept_per_token[0]
    assert 0 < largest[0] <= QUERY_BLOCK * 2048


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_attention_by_the_lengths_of_documents_gives_the_same_model(shape, packed, monkeypatch):
    gpt = new_model(GPTConfig(n_layer=2, d_model=64, n_head=4, vocab_size=50, n_ctx=300, **shape), 0)
    tokens, slope = torch.randint(0, 50, (2, 300)), torch.randn(2, 300, 64)
    starts = starts_of(2, 300) if packed else None
    found = []
    for varlen in (False, True):
        gpt.zero_grad()
        if varlen:
            monkeypatch.setattr(model, "has_varlen", lambda _device: True)
            monkeypatch.setattr(attention, "VARLEN_DTYPES", (torch.float32,))
            monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", by_documents)
        hidden = gpt.hidden(tokens, document_start=starts)
        (hidden * slope).sum().backward()
        found.append([hidden.detach(), *(p.grad for p in gpt.parameters() if p.grad is not None)])
    for one, other in zip(*found, strict=True):
        assert torch.linalg.vector_norm(one - other) <= 1e-5 * torch.linalg.vector_norm(other)


def test_bounds_are_exactly_the_documents():
    starts = torch.tensor([[0, 0, 2, 2, 2, 5], [0, 1, 1, 1, 1, 1]])
    assert document_bounds(starts).tolist() == [0, 2, 5, 6, 7, 12]
    assert document_bounds(torch.zeros(3, 4, dtype=torch.long)).tolist() == [0, 4, 8, 12]


def check_compiled_blocks(shape: dict, recompute: str) -> None:
    """Blocks compiled as one graph each give the losses and gradients of eager ones. Run in a process of its own."""
    gpt = new_model(GPTConfig(n_layer=2, d_model=64, n_head=4, vocab_size=50, n_ctx=300, **shape), 0)
    gpt.recompute = recompute
    slope = torch.randn(2, 300, 64)
    found = []
    for compiled in (False, True):
        gpt.zero_grad()
        if compiled:
            for block in gpt.blocks:
                block.compile(fullgraph=True, backend="aot_eager")
        for seed in range(2):
            hidden = gpt.hidden(torch.arange(600).view(2, 300) % 50, document_start=starts_of(2, 300, seed))
            (hidden * slope).sum().backward()
        found.append([hidden.detach(), *(p.grad for p in gpt.parameters() if p.grad is not None)])
    for one, other in zip(*found, strict=True):
        assert torch.linalg.vector_norm(one - other) <= 1e-5 * torch.linalg.vector_norm(other)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "recompute"),
    [(shape, kind) for shape in SHAPES for kind in ("none", "selective", "full")],
)
def test_no_graph_breaks_in_a_block(shape, recompute):
    # A process of its own: torch.compile cannot see through the checks of annotations that the tests add.
    check = f"t.check_compiled_blocks(t.SHAPES[{shape!r}], {recompute!r})"
    subprocess.run([sys.executable, "-c", f"from tests.gpt import test_attention as t; {check}"], check=True)


def test_a_range_knows_its_first_tokens_as_numbers_of_32_bits():
    assert VisibleRange(torch.zeros(1, 3, dtype=torch.long)).first_visible.dtype == torch.int32
