"""The native engine hides no weight that is no number: the logits are none either."""

import pytest
import torch

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.gpt.model import input_of
from bluejay.gpt.quantization.packing import FORMATS, pack
from bluejay.infer.backends import StepBatch
from bluejay.infer.backends.native import NativeBackend, NativeModel, available

pytestmark = pytest.mark.skipif(not available(), reason="built without the native engine")


@pytest.mark.parametrize("isa", available())
@pytest.mark.parametrize("cache", ["f32", "bf16", "int8"])
@pytest.mark.parametrize(
    ("format", "activation", "name", "value"),
    [
        ("q8", "gelu_tanh", "blocks.0.norm.weight", torch.nan),
        ("q4", "gelu_tanh", "norm.bias", torch.nan),
        ("q8", "gelu_tanh", "norm.weight", torch.inf),
        ("q8", "relu", "blocks.0.mlp.up.bias", torch.nan),
        ("bf16", "relu", "blocks.0.mlp.up.bias", torch.nan),
        ("f32", "gelu_tanh", "blocks.0.attention.q.weight", torch.nan),
        ("f32", "gelu_tanh", "blocks.0.attention.k.weight", torch.nan),
        ("f32", "gelu_tanh", "blocks.0.attention.v.weight", torch.nan),
    ],
)
def test_logits_after_a_weight_that_is_no_number_are_none(isa, cache, format, activation, name, value):
    config = GPTConfig(n_layer=1, d_model=64, n_head=2, vocab_size=80, n_ctx=16, activation=activation)
    weights = new_model(config, seed=0).state_dict()
    weights[name].view(-1)[5] = value
    packed = {matrix: pack(weights[matrix], FORMATS[format]) for matrix in input_of(config)}
    backend = NativeBackend(NativeModel(config, packed.get, weights.__getitem__), 1, cache=cache, isa=isa, threads=1)
    batch = StepBatch.of([7, 3, 7], [0, 3], [0], [[0]], [0, 1, 2])
    assert not backend.step(batch).isfinite().any()
    assert not backend.score(batch, batch.tokens).isfinite().all(1).any()
