"""Quantised matrices stay packed on devices other than a CPU, and a cache is as large as a GPU's memory allows."""

import pytest
import torch

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import open_model, read_model, save_model
from bluejay.gpt.formats.quantized import write_quantized
from bluejay.gpt.init import new_model
from bluejay.gpt.presets import LLAMA, sized
from bluejay.gpt.quantization.linear import PackedLinear
from bluejay.gpt.quantization.packing import QUANTISED
from bluejay.infer.weights import fitting, read_packed_model, token_bytes


@pytest.mark.parametrize("format", ["q8", "q4"])
@pytest.mark.parametrize("base", [GPTConfig(), LLAMA], ids=["gptj", "llama"])
def test_packed_matrices_compute_what_the_unpacked_ones_do(format, base, byte_tokenizer, tmp_path):
    config = sized(base, 2, 64, 2, vocab_size=259, n_ctx=32, rotary_dim=32)
    save_model(new_model(config, seed=3), byte_tokenizer, tmp_path / "model")
    write_quantized(open_model(tmp_path / "model"), tmp_path / "packed", QUANTISED[format])
    stored = open_model(tmp_path / "packed")
    packed, plain = read_packed_model(stored, torch.device("cpu")), read_model(stored, dtype=torch.bfloat16)
    matrices = [module for module in packed.modules() if isinstance(module, PackedLinear)]
    assert len(matrices) == 2 * (7 if config.gated else 6)
    sizes = [sum(t.nbytes for t in [*model.buffers(), *model.parameters()]) for model in (packed, plain)]
    assert sizes[0] < sizes[1]
    ids = torch.randint(259, (2, 32), generator=torch.Generator().manual_seed(0))
    assert torch.equal(packed(ids), plain(ids))
    assert torch.equal(matrices[0].weight, next(m for m in plain.modules() if isinstance(m, torch.nn.Linear)).weight)


def test_a_cache_takes_what_is_wanted_or_what_there_is_room_for():
    config = GPTConfig(n_layer=28, d_model=4096, n_head=16, n_ctx=2048)
    each = token_bytes(config, torch.bfloat16)
    assert each == 458_752
    assert fitting([2048] * 8, each, free=80_000_000_000) == [2048] * 8
    assert fitting([2048] * 64, each, free=30_000_000_000) == [int(0.9 * 30e9) // each]
    assert fitting([2048] * 64, each, free=1000) == [2048]
