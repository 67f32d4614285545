"""The native training kernels give what torch gives in float32, as closely as bfloat16 allows, gradients included."""

import os

import pytest
import torch
import torch.nn.functional as F

from bluejay.gpt import kernels
from bluejay.gpt.attention import VisibleRange
from bluejay.gpt.kernels import ACTIVATIONS, activate, attention, linear, norm, rotate
from bluejay.native import native

CLOSE = 0.005  # of the length; a number in bfloat16 is within 0.002 of what it stands for, on average

needs_kernels = pytest.mark.skipif(
    native is None or not native.trains(), reason="this build or processor has no training kernels"
)
pytestmark = [] if "CI" in os.environ else [needs_kernels]


def assert_close(ours, theirs):
    assert torch.linalg.vector_norm(ours.float() - theirs) <= CLOSE * torch.linalg.vector_norm(theirs)


def gradients(function, *inputs):
    """The result and the gradients of a fixed, random weighting of it."""
    learned = [x.clone().requires_grad_() for x in inputs]
    result = function(*learned)
    generator = torch.Generator().manual_seed(1)
    result.backward(torch.randn(result.shape, generator=generator).bfloat16().to(result.dtype))
    return [result.detach(), *(x.grad for x in learned)]


@pytest.mark.parametrize(
    ("tokens", "heads", "kv_heads", "width", "rotated", "halves", "packed"),
    [
        (128, 2, 2, 64, 32, False, False),
        (100, 4, 2, 32, 16, True, True),
        (37, 2, 1, 16, 4, False, True),
        (1, 1, 1, 16, 16, False, False),
        (260, 2, 2, 80, 40, True, True),
        (50, 1, 1, 256, 64, False, False),
        (130, 2, 2, 64, 0, False, True),
    ],
)
@pytest.mark.parametrize("isa", ["amx", "avx512"])
def test_attention(tokens, heads, kv_heads, width, rotated, halves, packed, isa, monkeypatch):
    monkeypatch.setenv("BLUEJAY_ISA", isa)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, tokens, n, width).bfloat16() for n in (heads, kv_heads, kv_heads))
    angle = torch.rand(2, tokens, 1, rotated // 2) * 6
    rotation = (1.2 * angle.cos(), 1.2 * angle.sin()) if rotated else None  # YaRN's are longer than 1
    starts = torch.where(torch.rand(2, tokens) < 0.05, torch.arange(tokens), 0).cummax(-1).values
    seen = VisibleRange(starts) if packed else None
    order = torch.arange(tokens)
    mask = (order <= order[:, None]) & (order >= (starts if packed else torch.zeros_like(starts))[..., None])

    def reference(q, k, v):
        if rotation is not None:
            q, k = rotate(q, rotation, halves), rotate(k, rotation, halves)
        heads_first = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(
            *heads_first, attn_mask=mask[:, None], scale=0.2, enable_gqa=heads != kv_heads
        ).transpose(1, 2)

    ours = gradients(lambda q, k, v: attention(q, k, v, rotation, halves, seen, 0.2), q, k, v)
    theirs = gradients(reference, q.float(), k.float(), v.float())
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.bfloat16
        assert_close(mine, other)


@pytest.mark.parametrize("isa", ["amx", "avx512"])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(isa, bias, monkeypatch):
    """Also where AMX is absent, or is not used: then torch does the work."""
    monkeypatch.setenv("BLUEJAY_ISA", isa)
    torch.manual_seed(0)
    x, weight = torch.randn(3, 70, 48).bfloat16(), torch.randn(80, 48)
    more = (torch.randn(80),) if bias else ()

    def ours(x, weight, bias=None):
        with torch.autocast("cpu", torch.bfloat16):
            return linear(x, weight, bias)

    mine = gradients(ours, x, weight, *more)
    assert mine[0].dtype == mine[1].dtype == torch.bfloat16 and mine[2].dtype == torch.float32
    for got, other in zip(mine, gradients(F.linear, x.float(), weight, *more), strict=True):
        assert_close(got, other)


@pytest.mark.skipif(native is None or not native.has_weight_gradient(), reason="this processor has no AMX")
@pytest.mark.parametrize(
    ("rows", "outputs", "inputs"), [(1, 16, 16), (100, 80, 48), (1100, 48, 144), (33, 2064, 64), (70, 32, 1040)]
)
def test_the_gradient_of_a_matrix_is_added_and_does_not_depend_on_the_threads(rows, outputs, inputs):
    torch.manual_seed(0)
    dy, x, start = (
        torch.randn(rows, outputs).bfloat16(),
        torch.randn(rows, inputs).bfloat16(),
        torch.randn(outputs, inputs),
    )
    found = [start.clone() for _ in range(3)]
    for threads, d_weight in zip((1, 3, 8), found, strict=True):
        native.weight_gradient(dy, x, d_weight, threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    torch.testing.assert_close(found[0], start + dy.float().T @ x.float(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_norm(dtype, kind):
    torch.manual_seed(0)
    x, weight = (torch.randn(3, 7, 48) * 2 + 1).to(dtype), torch.randn(48)
    bias = (torch.randn(48),) if kind == "layernorm" else ()

    def ours(x, weight, bias=None):
        with torch.autocast("cpu", torch.bfloat16):
            return norm(x, weight, bias, 1e-5)

    def reference(x, weight, bias=None):
        return F.rms_norm(x, (48,), weight, 1e-5) if bias is None else F.layer_norm(x, (48,), weight, bias, 1e-5)

    mine = gradients(ours, x, weight, *bias)
    assert mine[0].dtype == torch.bfloat16
    assert mine[1].dtype == dtype
    for got, other in zip(mine, gradients(reference, x.float(), weight, *bias), strict=True):
        assert_close(got, other)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation(activation):
    torch.manual_seed(0)
    x = (torch.randn(5, 77) * 3).bfloat16()
    ours = gradients(lambda x: activate(x, activation), x)
    for mine, other in zip(ours, gradients(ACTIVATIONS[activation], x.float()), strict=True):
        assert_close(mine, other)


def test_one_thread_and_three_give_the_same_attention(monkeypatch):
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 70, 2, 32).bfloat16() for _ in range(3))
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(kernels.torch, "get_num_threads", lambda threads=threads: threads)
        results.append(gradients(lambda q, k, v: attention(q, k, v, None, False, None, 0.2), q, k, v))
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)
