"""What is computed again is what was computed: the same gradients, to the bit, from less memory."""

import pytest
import torch

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recomputing_keeps_less_and_gives_the_same_gradients(dtype):
    most, gradients = saved_bytes_and_gradients("none", dtype)
    for kind in ("selective", "full"):
        kept, recomputed = saved_bytes_and_gradients(kind, dtype)
        assert kept < most
        for one, other in zip(recomputed, gradients, strict=True):
            assert torch.equal(one, other)
