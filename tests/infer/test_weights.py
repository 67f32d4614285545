"""Quantised matrices stay packed on devices other than a CPU, and a cache is as large as a GPU's memory allows."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bluejay
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import open_model, read_model, save_model
from bluejay.gpt.formats.quantized import write_quantized
from bluejay.gpt.init import new_model
from bluejay.gpt.model import weight_shapes
from bluejay.gpt.presets import LLAMA, sized
from bluejay.gpt.quantization.linear import PackedLinear
from bluejay.gpt.quantization.packing import QUANTISED, pack
from bluejay.infer.backends import checked
from bluejay.infer.backends.native import NativeBackend, available, native_model
from bluejay.infer.exceptions import LogitsError
from bluejay.infer.weights import device_named, dtype_named, read_packed_model, token_bytes, within


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


def check_compiled_product() -> None:
    layer, graphs = PackedLinear(pack(torch.randn(32, 64), QUANTISED["q4"]), None), []
    compiled = torch.compile(layer, backend=lambda graph, _: graphs.append(graph.code) or graph.forward)
    x = torch.randn(1, 64)
    assert torch.equal(layer(x), compiled(x))
    assert len(graphs) == 1 and "arange" not in graphs[0]


@pytest.mark.slow
def test_a_compiled_product_makes_no_table_of_its_own():
    # A process of its own: torch.compile cannot see through the checks of annotations that the tests add.
    program = "from tests.infer.test_weights import check_compiled_product; check_compiled_product()"
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=True)


def test_a_type_of_weights_has_a_name():
    assert dtype_named("bfloat16") == dtype_named("torch.bfloat16") == dtype_named(torch.bfloat16) == torch.bfloat16
    assert dtype_named(None) is dtype_named("auto") is None
    for wrong in ("int8", torch.int8, "nonsense", float):
        with pytest.raises(ValueError, match=r"^dtype is .*; it must be one of torch\.float32, torch\.bfloat16"):
            dtype_named(wrong)
    with pytest.raises(ValueError, match="device is None, and torch has none of that name"):
        device_named(None)


def test_a_home_may_be_written_as_a_tilde(byte_tokenizer, tiny_model, tmp_path, monkeypatch):
    save_model(tiny_model.gpt, byte_tokenizer, tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert bluejay.load("~/mine", dtype="bfloat16").gpt.embed.weight.dtype == torch.bfloat16


@pytest.mark.skipif(not available(), reason="built without the native engine")
def test_weights_are_decoded_one_after_another_until_one_that_is_no_number(tiny_config):
    gpt, read = new_model(tiny_config, seed=0).requires_grad_(False), list[str]()
    model, first = native_model(gpt), next(iter(weight_shapes(tiny_config)))
    gpt.state_dict()[first][0] = torch.nan
    stored, model.read = model.read, lambda name: read.append(name) or stored(name)
    with pytest.raises(LogitsError, match=f"its {first} holds NaN"):
        checked(NativeBackend(model, 1), torch.tensor([[torch.nan]]))
    assert read == [first]


def test_a_cache_takes_what_is_wanted_or_what_there_is_room_for():
    config = GPTConfig(n_layer=28, d_model=4096, n_head=16, n_ctx=2048)
    each = token_bytes(config, torch.bfloat16)
    assert each == 458_752
    assert within(80_000_000_000, [2048] * 8, each) == [2048] * 8
    assert within(27_000_000_000, [2048] * 64, each) == [27_000_000_000 // each]
    assert within(1000, [2048] * 64, each) == [256]
