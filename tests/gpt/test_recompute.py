"""What is computed again is what was computed: the same gradients, to the bit, from less memory."""

import subprocess
import sys

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from bluejay.gpt.attention import VisibleRange
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.gpt.model import rotary_angles


def saved_bytes_and_gradients(kind, dtype):
    model = new_model(GPTConfig(n_layer=3, d_model=64, n_head=2, vocab_size=50, n_ctx=48), 0)
    model.recompute = kind
    kept: dict[int, int] = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(0)
    tokens = torch.randint(0, 50, (2, 48))
    starts = torch.where(torch.arange(48) >= 20, 20, 0).expand(2, 48)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model.hidden(tokens, document_start=starts).float().square().sum()
        loss.backward()
    learnt = (p.grad for p in model.parameters() if p.grad is not None)
    return sum(kept.values()), [loss.detach(), *learnt]


@pytest.mark.filterwarnings("ignore:A saved_tensors_hooks context")  # of torch 2.14: it may keep more from them
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recomputing_keeps_less_and_gives_the_same_gradients(dtype):
    most, gradients = saved_bytes_and_gradients("none", dtype)
    for kind in ("selective", "full"):
        kept, recomputed = saved_bytes_and_gradients(kind, dtype)
        assert kept < most
        for one, other in zip(recomputed, gradients, strict=True):
            assert torch.equal(one, other)


def kept_and_products(kind):
    """Of two compiled blocks: the bytes that they keep, those of the results of their matrices, and the matrix products
    of the backward pass."""
    config = GPTConfig(n_layer=2, d_model=64, n_head=2, vocab_size=50, n_ctx=48)
    model = new_model(config, 0)
    starts = torch.where(torch.arange(48) >= 20, 20, 0).expand(4, 48)
    rotation = rotary_angles(torch.arange(48).expand(4, 48), config)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    results: list[int] = []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def through_blocks():
        hidden = model.embed(torch.zeros(4, 48, dtype=torch.long))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            for block in model.blocks:
                hidden = block(hidden, rotation, VisibleRange(starts), None, kind)
        return hidden.sum()

    matrices = [module for block in model.blocks for module in block.modules() if isinstance(module, torch.nn.Linear)]
    hooks = [matrix.register_forward_hook(lambda _m, _x, y: results.append(y.nbytes)) for matrix in matrices]
    with torch.no_grad():
        through_blocks()
    for hook in hooks:
        hook.remove()
    for block in model.blocks:
        block.compile(fullgraph=True, backend="aot_eager_decomp_partition")
    through_blocks().backward()  # compiles
    kept.clear()
    loss = through_blocks()
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        loss.backward()
    products = sum(event.count for event in trace.key_averages() if event.key in ("aten::mm", "aten::addmm"))
    return sum(kept.values()), sum(results), products


def check_compiled_blocks() -> None:
    """Run in a process of its own."""
    (most, _, products), (kept, results, same), (least, _, more) = map(kept_and_products, ("none", "selective", "full"))
    assert products == same < more
    assert least < 0.2 * most
    assert 0.8 * results < kept < 1.1 * results < most


@pytest.mark.slow
def test_selective_keeps_the_products_of_compiled_blocks():
    # A process of its own: torch.compile cannot see through the checks of annotations that the tests add.
    program = "from tests.gpt import test_recompute as t; t.check_compiled_blocks()"
    subprocess.run([sys.executable, "-c", program], check=True)
