"""Our GPT-J is transformers' GPT-J."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPTJConfig, GPTJForCausalLM

from bluejay.gpt.checkpoint import load_model, save_model
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.gpt.model import GPT


@st.composite
def configs(draw) -> GPTConfig:
    d_head = draw(st.sampled_from([4, 8, 16, 24]))
    n_head = draw(st.integers(1, 5))
    return GPTConfig(
        n_layer=draw(st.integers(1, 3)),
        d_model=d_head * n_head,
        n_head=n_head,
        d_ff=draw(st.sampled_from([None, 40])),
        vocab_size=draw(st.integers(260, 300)),
        n_ctx=draw(st.integers(8, 40)),
        rotary_dim=draw(st.sampled_from([None, 2, 4, d_head])),
    )


@settings(max_examples=12, deadline=None)
@given(config=configs(), seed=st.integers(0, 99))
def test_logits_equal_transformers(config, seed, byte_tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m"
    ours = shaken(new_model(config, seed))
    save_model(ours, byte_tokenizer, path)
    theirs = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokens = torch.randint(0, config.vocab_size, (2, config.n_ctx), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        assert (ours(tokens) - theirs(tokens).logits).abs().max() < 1e-4


def test_a_model_survives_us_them_us_bit_for_bit(tiny_config, byte_tokenizer, tmp_path):
    ours = new_model(tiny_config, seed=3)
    save_model(ours, byte_tokenizer, tmp_path / "ours")
    AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype="auto").save_pretrained(tmp_path / "theirs")
    again = load_model(tmp_path / "theirs")
    assert again.config == GPTConfig(**{**vars(tiny_config), "rotary_dim": tiny_config.n_rotary})
    for name, weight in ours.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_bfloat16_weights_keep_their_type_and_bits(tiny_config, byte_tokenizer, tmp_path):
    model = new_model(tiny_config, seed=3).bfloat16()
    save_model(model, byte_tokenizer, tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert all(torch.equal(again.state_dict()[name], weight) for name, weight in model.state_dict().items())
    assert again.head.weight.dtype == torch.bfloat16


def test_gpt_j_6b_has_its_published_number_of_parameters():
    with torch.device("meta"):
        theirs = GPTJForCausalLM(GPTJConfig())
        ours = GPT(GPTConfig())
    counted = sum(parameter.numel() for parameter in ours.parameters())
    assert counted == theirs.num_parameters() == GPTConfig().n_parameters == 6_050_882_784


def test_a_future_token_changes_nothing_before_it(tiny_config):
    model = new_model(tiny_config, seed=0)
    tokens = torch.randint(0, tiny_config.vocab_size, (1, 16))
    changed = tokens.clone()
    changed[0, 10] = (changed[0, 10] + 1) % tiny_config.vocab_size
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :10], after[:, :10])
    assert not torch.equal(before[:, 10:], after[:, 10:])


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
        (lambda path: edit(path, n_embd=6.5), "d_model"),
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


def shaken(model: GPT) -> GPT:
    """Weights all over the place, so that no bias or norm is at its neutral start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def edit(path, **fields):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | fields))
