"""Models on disk: any layout in, Hugging Face's out, nothing half-written, every mistake named in one sentence."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Model

from bluejay.gpt.formats.families import FAMILIES
from bluejay.gpt.formats.layouts import convert, load_model, open_model, save_model, write_model
from bluejay.gpt.formats.tensors import Header, write_shards
from bluejay.gpt.init import new_model
from bluejay.gpt.presets import PRESETS, adapted
from tests.gpt.random_models import random_model

FIELDS = {
    "gptj": {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 64, "rotary_dim": 8},
    "gpt_neox": {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64},
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 64},
}
TOKENS = {"vocab_size": 260, "bos_token_id": 0, "eos_token_id": 0}


def equal(one, other) -> None:
    assert one.config.resolved == other.config.resolved
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


@pytest.mark.parametrize("family", FIELDS)
def test_shards_of_transformers_are_read(family, tmp_path):
    theirs = random_model(family, FIELDS[family] | TOKENS, seed=0)
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    equal(load_model(tmp_path / "whole"), load_model(tmp_path / "shards"))


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("family", FIELDS)
def test_torch_files_are_read(family, sharded, tmp_path):
    theirs = random_model(family, FIELDS[family] | TOKENS, seed=0)
    theirs.save_pretrained(tmp_path / "safe")
    theirs.config.save_pretrained(tmp_path / "bin")
    tensors = load_file(tmp_path / "safe" / "model.safetensors")
    tensors["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e9)  # as files of 2021 have it
    halves = [dict(list(tensors.items())[part::2]) for part in (0, 1)] if sharded else [tensors]
    for number, half in enumerate(halves):
        name = f"pytorch_model-{number}.bin" if sharded else "pytorch_model.bin"
        torch.save(half, tmp_path / "bin" / name, _use_new_zipfile_serialization=not (sharded and number))
    if sharded:
        places = {name: f"pytorch_model-{number}.bin" for number, half in enumerate(halves) for name in half}
        (tmp_path / "bin" / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    equal(load_model(tmp_path / "safe"), load_model(tmp_path / "bin"))


def test_the_first_files_of_gpt2_had_no_head_and_no_prefix(tmp_path):
    theirs = random_model("gpt2", FIELDS["gpt2"] | TOKENS, seed=0)
    theirs.save_pretrained(tmp_path / "whole")
    bare: GPT2Model = theirs.transformer
    bare.save_pretrained(tmp_path / "bare")
    equal(load_model(tmp_path / "whole"), load_model(tmp_path / "bare"))


@pytest.mark.parametrize("family", FAMILIES)
def test_our_shards_are_read_by_transformers_and_by_us(family, byte_tokenizer, tmp_path):
    preset = next(name for name, config in reversed(PRESETS.items()) if config.family == family)
    sizes = {"n_layer": 2, "d_model": 32, "n_head": 2, "vocab_size": 260, "n_ctx": 64}
    config = adapted(preset, sizes | ({"n_kv_head": 1} if PRESETS[preset].gated else {}), "test")
    ours = new_model(config, seed=1)
    save_model(ours, byte_tokenizer, tmp_path / "whole")
    write_model(open_model(tmp_path / "whole"), tmp_path / "shards", shard_bytes=20_000)
    shards = list((tmp_path / "shards").glob("model-*.safetensors"))
    assert len(shards) > 2 and max(path.stat().st_size for path in shards) < 60_000
    equal(ours, load_model(tmp_path / "shards"))
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "shards", dtype=torch.float32)
        assert (theirs(tokens).logits - ours(tokens)).abs().max() < 1e-4


def test_converting_there_and_back_keeps_every_bit_that_the_type_holds(tiny_model, tmp_path):
    save_model(tiny_model.gpt, tiny_model.tokenizer, tmp_path / "float32")
    convert(tmp_path / "float32", tmp_path / "bfloat16", torch.bfloat16)
    convert(tmp_path / "bfloat16", tmp_path / "back", torch.float32)
    convert(tmp_path / "bfloat16", tmp_path / "same")
    rounded = {name: weight.bfloat16() for name, weight in tiny_model.gpt.state_dict().items()}
    for name, weight in rounded.items():
        assert torch.equal(weight, load_model(tmp_path / "bfloat16").state_dict()[name])
        assert torch.equal(weight, load_model(tmp_path / "same").state_dict()[name])
        assert torch.equal(weight.float(), load_model(tmp_path / "back").state_dict()[name])
    assert (tmp_path / "same" / "tokenizer.json").read_text() == (tmp_path / "float32" / "tokenizer.json").read_text()


def test_converting_onto_something_else_is_refused(tiny_model, tmp_path):
    save_model(tiny_model.gpt, tiny_model.tokenizer, tmp_path / "m")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to.txt").write_text("you")
    with pytest.raises(ValueError, match="letters exists and is not a model directory"):
        convert(tmp_path / "m", tmp_path / "letters")
    assert (tmp_path / "letters" / "to.txt").read_text() == "you"


def test_weights_of_several_types_stay_as_they_are(tiny_config, byte_tokenizer, tmp_path):
    model = new_model(tiny_config, seed=0).bfloat16()
    model.norm.float()
    model.head.bias.data = model.head.bias.data[: tiny_config.vocab_size].half()
    save_model(model, byte_tokenizer, tmp_path / "m")
    stored = open_model(tmp_path / "m")
    assert stored.dtype is None
    for name, weight in model.state_dict().items():
        assert stored.read(name).dtype == weight.dtype and torch.equal(stored.read(name), weight)


def test_a_type_that_cannot_be_written_is_named(tiny_model, tmp_path):
    save_model(tiny_model.gpt, tiny_model.tokenizer, tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    tensors["transformer.ln_f.bias"] = tensors["transformer.ln_f.bias"].double()
    save_file(tensors, tmp_path / "m" / "model.safetensors")
    with pytest.raises(ValueError, match=r"transformer\.ln_f\.bias is torch\.float64, which cannot be written; choose"):
        convert(tmp_path / "m", tmp_path / "copy")
    convert(tmp_path / "m", tmp_path / "copy", torch.float32)
    equal(load_model(tmp_path / "copy"), tiny_model.gpt)


def test_one_tensor_is_held_at_a_time_while_writing(tmp_path):
    alive, most = [0], [0]

    class Counted(torch.Tensor):
        def __del__(self) -> None:
            alive[0] -= 1

    def read(name: str) -> torch.Tensor:
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        return torch.zeros(10).as_subclass(Counted)

    write_shards([Header(str(i), torch.float32, (10,)) for i in range(20)], read, tmp_path, shard_bytes=200)
    assert most[0] <= 2 and len(list(tmp_path.glob("*.safetensors"))) == 4


class Code:
    """What a hostile file may hold: unpickling it makes a folder."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(write, tiny_model, tmp_path):
    save_model(tiny_model.gpt, tiny_model.tokenizer, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    write({"transformer.wte.weight": Code(tmp_path / "ran")}, tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is not a whole file of tensors, or holds code"):
        load_model(tmp_path / "m")
    assert not (tmp_path / "ran").exists()


def shorten(path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def rename(path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (lambda path: shorten(path / "model-00002-of-00002.safetensors"), "00002-of-00002.safetensors is not a whole"),
        (lambda path: (path / "model-00001-of-00002.safetensors").unlink(), "00001-of-00002.safetensors is missing"),
        (lambda path: rename(path / "model-00001-of-00002.safetensors", b"wte", b"wxe"), "has no transformer.wte.we"),
        (lambda path: (path / "model.safetensors.index.json").write_text("[]"), "is not an index of shards"),
        (
            lambda path: (path / "model.safetensors.index.json").unlink(),
            r"has no model\.safetensors\.index\.json, which says what model-00001-of-00002\.safetensors holds",
        ),
        (
            lambda path: rename(path / "model.safetensors.index.json", b'"model-00001', b'"../m-00001'),
            "not a file besi",
        ),
        (lambda path: rename(path / "config.json", b'"gptj"', b'"t5"'), "model_type is 't5'; bluejay reads 'gptj', "),
        (lambda path: rename(path / "config.json", b'"n_head": 2', b'"n_head": "2"'), "n_head is '2'"),
        (lambda path: (path / "config.json").write_text("[]"), "config.json is not a JSON object"),
        (lambda path: (path / "config.json").unlink(), "has no config.json"),
    ],
)
def test_a_broken_directory_is_named_in_one_sentence(broken, sentence, tiny_model, tmp_path):
    save_model(tiny_model.gpt, tiny_model.tokenizer, tmp_path / "whole")
    write_model(open_model(tmp_path / "whole"), tmp_path / "m", shard_bytes=300_000)
    broken(tmp_path / "m")
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        load_model(tmp_path / "m")


def test_weights_that_are_no_floating_point_numbers_are_named(tiny_model, tmp_path):
    save_model(tiny_model.gpt, tiny_model.tokenizer, tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    tensors["transformer.ln_f.bias"] = torch.zeros(64, dtype=torch.int8)
    save_file(tensors, tmp_path / "m" / "model.safetensors")
    with pytest.raises(ValueError, match=r"transformer\.ln_f\.bias holds torch\.int8"):
        load_model(tmp_path / "m")


def test_a_preset_adapted_keeps_its_proportions():
    small = adapted("smollm2-135m", {"d_model": 128, "n_head": 4, "n_kv_head": 2, "n_layer": 3}, "test")
    assert (small.d_head, small.n_rotary, small.d_hidden) == (32, 32, 341)
    assert adapted("gpt-neo-125m", {"n_layer": 5}, "test").local_layers == (1, 3)
    assert adapted("gpt-j", {"d_model": 256, "n_head": 4}, "test").n_rotary == 16
    assert all(adapted(name, {}, "test").resolved == config.resolved for name, config in PRESETS.items())
