"""The loss is the textbook's, gradient included, and packing changes nothing."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.train import loss
from bluejay.train.data.batches import document_starts
from bluejay.train.loss import head_loss

EOT = 258


@pytest.mark.parametrize(("rows", "bias"), [(3, True), (256, True), (300, False)])
def test_loss_and_gradients_equal_cross_entropy(rows, bias):
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 50, bias=bias)
    hidden = torch.randn(1, rows, 16, requires_grad=True)
    targets = torch.randint(0, 50, (1, rows))
    ours = head_loss(hidden, head.weight, head.bias, targets, 1 / rows)
    ours.backward()
    learned = [hidden, *head.parameters()]
    got = [tensor.grad.clone() for tensor in learned]
    for tensor in learned:
        tensor.grad = None
    theirs = F.cross_entropy(head(hidden)[0], targets[0])
    theirs.backward()
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(got, [tensor.grad for tensor in learned], strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "atol", "vocabulary"), [(torch.float32, 1e-5, 50), (torch.bfloat16, 0.02, 83)])
def test_weights_and_z_loss(dtype, atol, vocabulary):
    torch.manual_seed(0)
    head = torch.nn.Linear(16, vocabulary)
    hidden = torch.randn(2, 20, 16).to(dtype).requires_grad_()
    targets, weights = torch.randint(0, vocabulary, (2, 20)), torch.rand(2, 20)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        ours = head_loss(hidden, head.weight, head.bias, targets, 0.1, weights, z_loss=0.3)
    ours.backward()
    learned = [hidden, *head.parameters()]
    got = [tensor.grad.clone() for tensor in learned]
    for tensor in learned:
        tensor.grad = None
    logits = head(hidden.float())
    likelihood = (F.cross_entropy(logits.mT, targets, reduction="none") * weights).sum() * 0.1
    penalty = 0.3 * (logits.logsumexp(-1).square() * weights).sum() * 0.1
    (likelihood + penalty).backward()
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, likelihood, atol=atol, rtol=0)
    for mine, other in zip(got, [tensor.grad for tensor in learned], strict=True):
        assert torch.linalg.vector_norm(mine - other) <= max(atol, 1e-4) * torch.linalg.vector_norm(other)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_head_that_is_compiled_loses_and_learns_the_same(weighted, bias, frozen, dtype, monkeypatch):
    # What it computes is compared here; the next test compiles it.
    monkeypatch.setattr(loss, "compiled_objective", lambda: loss.objective)
    monkeypatch.setattr(loss, "COMPILED_LOGITS", 50 * 15)
    compare_heads(weighted, bias, frozen, dtype)


def compare_heads(weighted: bool, bias: bool, frozen: bool, dtype: torch.dtype) -> None:
    """The two ways to compute the head, in pieces of several sizes."""
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 50, bias=bias).requires_grad_(not frozen)
    hidden = torch.randn(2, 20, 16, requires_grad=True)
    targets, weights = torch.randint(0, 50, (2, 20)), torch.rand(2, 20) if weighted else None
    found = []
    for compiled in (False, True):
        hidden.grad = head.weight.grad = None
        head.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            nats = head_loss(hidden, head.weight, head.bias, targets, 0.1, weights, None, 0.3, compiled)
            with torch.no_grad():
                again = head_loss(hidden, head.weight, head.bias, targets, 0.1, weights, None, 0.3, compiled)
        torch.testing.assert_close(again, nats.detach())
        nats.backward()
        learnt = [x.grad for x in (hidden, *head.parameters()) if x.grad is not None]
        found.append([nats.detach(), *learnt])
    assert len(found[0]) == (2 if frozen else 3 + bias)
    close = 1e-5 if dtype == torch.float32 else 0.01
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype
        assert torch.linalg.vector_norm(one - other) <= close * torch.linalg.vector_norm(other)


@pytest.mark.slow
def test_the_compiled_head_is_one_graph():
    # A process of its own: torch.compile cannot see through the checks of annotations that the tests add.
    program = """
import torch
from tests.train import test_loss as t
t.loss.compiled_objective = lambda: torch.compile(t.loss.objective, dynamic=False, fullgraph=True, backend="aot_eager")
for weighted in (False, True):
    t.compare_heads(weighted, True, False, torch.float32)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_frozen_head_gets_no_gradient_and_passes_on_the_same():
    torch.manual_seed(0)
    head, hidden = torch.nn.Linear(16, 50), torch.randn(1, 40, 16, requires_grad=True)
    targets = torch.randint(0, 50, (1, 40))
    head_loss(hidden, head.weight, head.bias, targets, 1.0).backward()
    learnt, hidden.grad, head.weight.grad = hidden.grad, None, None
    head.requires_grad_(False)
    head_loss(hidden, head.weight, head.bias, targets, 1.0).backward()
    assert torch.equal(hidden.grad, learnt)
    assert head.weight.grad is None


def loss_of(model, tokens: torch.Tensor) -> torch.Tensor:
    """The summed loss of a packed sequence in nats, its documents kept apart."""
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    hidden = model.hidden(inputs, document_start=document_starts(inputs, EOT))
    return head_loss(hidden, *model.unembedding, targets, 1.0)


SHAPES = {
    "GPT-J": {},
    "learned positions and windows": {"rotary": "none", "learned_positions": True, "local_layers": (1,), "window": 5},
}


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-3)])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_packed_documents_lose_what_they_lose_one_by_one(shape, dtype, rtol):
    model = new_model(GPTConfig(n_layer=2, d_model=32, n_head=2, vocab_size=259, n_ctx=64, **shape), 0)
    generator = torch.Generator().manual_seed(0)
    documents = [
        torch.cat([torch.tensor([EOT]), torch.randint(0, 250, (n,), generator=generator)]) for n in (9, 1, 30, 14)
    ]
    packed = torch.cat([*documents, torch.tensor([EOT])])[None]
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        together = loss_of(model, packed)
        alone = sum(
            F.cross_entropy(
                model(document[None])[0].float(), torch.cat([document[1:], torch.tensor([EOT])]), reduction="sum"
            )
            for document in documents
        )
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=rtol)
