"""The model's own properties, and its directory: whole, or named in one sentence."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bluejay.gpt.formats.layouts import load_model, save_model
from bluejay.gpt.init import new_model


def test_bfloat16_weights_keep_their_type_and_bits(tiny_config, byte_tokenizer, tmp_path):
    model = new_model(tiny_config, seed=3).bfloat16()
    save_model(model, byte_tokenizer, tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert all(torch.equal(again.state_dict()[name], weight) for name, weight in model.state_dict().items())
    assert again.head.weight.dtype == torch.bfloat16


def test_a_future_token_changes_nothing_before_it(tiny_config):
    model = new_model(tiny_config, seed=0)
    tokens = torch.randint(0, tiny_config.vocab_size, (1, 16))
    changed = tokens.clone()
    changed[0, 10] = (changed[0, 10] + 1) % tiny_config.vocab_size
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :10], after[:, :10])
    assert not torch.equal(before[:, 10:], after[:, 10:])


def test_operations_are_those_that_torch_counts_and_half_of_the_attention(tiny_config):
    tokens = torch.zeros(2, 16, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        new_model(tiny_config, seed=0)(tokens)
    kinds = counter.get_flop_counts()["Global"]
    products = sum(kinds.get(kind, 0) for kind in (torch.ops.aten.mm, torch.ops.aten.addmm))
    attention = 2 * 2 * 16 * tiny_config.n_head * tiny_config.d_head * tiny_config.n_layer
    assert tiny_config.forward_flops(16) == products / tokens.numel() + attention / 2


def test_new_weights_depend_on_the_seed_alone(tiny_config):
    one, same, other = (new_model(tiny_config, seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (lambda path: (path / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda path: (path / "model.safetensors").write_bytes(b"half"), "not a whole safetensors file"),
        (lambda path: (path / "config.json").write_text("{"), "config.json"),
        (lambda path: edit(path, model_type="bert"), "model_type is 'bert'"),
        (lambda path: edit(path, n_embd=6.5), "n_embd is 6.5"),
        (lambda path: edit(path, n_embd=32, n_inner=128), "config.json makes it"),
        (lambda path: edit(path, n_layer=5), "has no transformer.h.2"),
    ],
)
def test_a_broken_directory_is_named_in_one_sentence(broken, sentence, tiny_config, byte_tokenizer, tmp_path):
    save_model(new_model(tiny_config, 0), byte_tokenizer, tmp_path / "m")
    broken(tmp_path / "m")
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        load_model(tmp_path / "m")


def test_a_full_disk_while_saving_leaves_the_old_model_whole(tiny_config, byte_tokenizer, tmp_path, file_size_limit):
    old, new = new_model(tiny_config, 0), new_model(tiny_config, 1)
    save_model(old, byte_tokenizer, tmp_path / "m")
    with file_size_limit(10_000), pytest.raises(OSError, match="File too large"):
        save_model(new, byte_tokenizer, tmp_path / "m")
    assert torch.equal(load_model(tmp_path / "m").head.weight, old.head.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def edit(path, **fields):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | fields))
