"""What people's files say is computed as transformers computes it, or refused by name; nothing is dropped."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bluejay.cli import main
from bluejay.gpt.formats.layouts import convert, open_model
from bluejay.gpt.formats.peft import LowRank, write_adapter
from bluejay.infer.engine import Engine
from bluejay.infer.model import load
from bluejay.infer.params import SamplingParams
from bluejay.tokenizer import Tokenizer
from tests.gpt.random_models import random_model

IDS = [10, 200, 33, 7, 120, 64, 65, 66]
FIELDS = {
    "gpt2": {"n_layer": 1, "n_embd": 8, "n_head": 2, "n_positions": 32},
    "gptj": {"n_layer": 1, "n_embd": 8, "n_head": 2, "n_positions": 32, "rotary_dim": 2},
    "gpt_neo": {"num_layers": 1, "hidden_size": 8, "num_heads": 2, "max_position_embeddings": 32}
    | {"attention_types": [[["global"], 1]]},
    "gpt_neox": {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    "llama": {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    | {"num_key_value_heads": 1, "max_position_embeddings": 32},
}


def directory(path: Path, family: str, tokenizer: Tokenizer, **changes) -> Path:
    """A model that transformers wrote, with a tokenizer of 259 tokens."""
    ids = {"vocab_size": 259, "bos_token_id": 258, "eos_token_id": 258}
    random_model(family, FIELDS[family] | ids | changes, seed=1).save_pretrained(path)
    tokenizer.save(path)
    return path


def set_json(file: Path, **changes) -> None:
    values = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(values | changes))


def set_tensors(path: Path, **changes: torch.Tensor | None) -> None:
    """Replace, add or (with None) remove tensors."""
    tensors = load_file(path / "model.safetensors") | changes
    save_file({k: v for k, v in tensors.items() if v is not None}, path / "model.safetensors", {"format": "pt"})


@torch.no_grad()
def theirs(path: Path) -> torch.Tensor:
    logits = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)(torch.tensor([IDS])).logits[0]
    return logits.log_softmax(-1)[torch.arange(len(IDS) - 1), IDS[1:]]


def ours(path: Path) -> torch.Tensor:
    model = load(path)
    engine = Engine(model.backend(1, len(IDS)), model.tokenizer, 1)
    request = engine.submit(IDS, SamplingParams(max_tokens=0, prompt_logprobs=True, logprobs=3))
    while not engine.idle:
        engine.step()
    assert all(id < model.tokenizer.vocab_size for one in request.prompt_logprobs for id, _ in one.top)
    return torch.tensor([one.logprob for one in request.prompt_logprobs])


def same(path: Path, tolerance: float = 1e-4) -> None:
    assert (ours(path) - theirs(path)).abs().max() < tolerance


@pytest.mark.parametrize("family", ["gpt2", "gptj", "gpt_neox"])
def test_log_probabilities_count_the_rows_that_pad_the_vocabulary(family, byte_tokenizer, tmp_path):
    same(directory(tmp_path / "m", family, byte_tokenizer, vocab_size=290, eos_token_id=289))


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "llama"])
def test_a_head_of_its_own_beside_tied_embeddings_is_used(family, byte_tokenizer, tmp_path, capsys):
    path = directory(tmp_path / "m", family, byte_tokenizer, tie_word_embeddings=True)
    same(path)
    set_tensors(path, **{"lm_head.weight": torch.randn(259, 8)})
    same(path)
    assert "lm_head.weight differs from" in capsys.readouterr().err
    convert(path, tmp_path / "copy")
    same(tmp_path / "copy")


@pytest.mark.parametrize(
    ("family", "embed"), [("gpt2", "transformer.wte.weight"), ("llama", "model.embed_tokens.weight")]
)
def test_an_embedding_that_is_stored_as_the_head_is_read(family, embed, byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", family, byte_tokenizer, tie_word_embeddings=True)
    expected = theirs(path)
    table = load_file(path / "model.safetensors")[embed]
    set_tensors(path, **{embed: None, "lm_head.weight": table})
    torch.testing.assert_close(ours(path), expected, atol=1e-4, rtol=0)


def test_a_state_dict_of_gpt_neox_is_read_by_its_names(byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", "gpt_neox", byte_tokenizer)
    model = AutoModelForCausalLM.from_pretrained(path)
    expected = theirs(path)
    (path / "model.safetensors").unlink()
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    torch.testing.assert_close(ours(path), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("llama", "model.layers.0.self_attn.q_proj.bias"),
        ("llama", "model.layers.0.self_attn.q_norm.weight"),
        ("llama", "model.layers.0.mlp.up_proj.weight_scale"),
        ("gpt2", "score.weight"),
        ("gptj", "transformer.h.0.attn.q_proj.bias"),
    ],
)
def test_a_tensor_without_a_place_is_refused_by_name(family, name, byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", family, byte_tokenizer)
    set_tensors(path, **{name: torch.ones(8)})
    with pytest.raises(ValueError, match=f"has {name}, which has no place"):
        open_model(path)


@pytest.mark.parametrize("name", ["attn.bias", "attn.masked_bias", "attn.rotary_emb.inv_freq"])
def test_the_tables_of_old_files_are_ignored(name, byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", "gpt2", byte_tokenizer)
    expected = ours(path)
    set_tensors(path, **{f"transformer.h.0.{name}": torch.ones(4)})
    assert torch.equal(ours(path), expected)


@pytest.mark.parametrize(
    ("family", "changes", "says"),
    [
        ("llama", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"its weights are quantised \(gptq\)"),
        ("llama", {"quantization_config": {"quant_method": "fp8"}}, r"its weights are quantised \(fp8\)"),
        ("llama", {"quantization": {"bits": 4}, "quantization_config": {"bits": 4}}, r"are quantised \(mlx\)"),
        ("llama", {"num_attention_heads": 0}, "num_attention_heads is 0"),
        ("llama", {"hidden_size": "8"}, "hidden_size is '8'"),
        ("llama", {"rope_theta": "1e4", "rope_parameters": None}, "rope_theta is '1e4'"),
        ("llama", {"rope_parameters": [1]}, "rope_parameters is"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type is 'dynamic'"),
        ("llama", {"sliding_window": 8}, "sliding_window is 8"),
        ("llama", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30"),
        ("gpt2", {"activation_function": ["gelu"]}, "activation_function is"),
        ("gpt2", {"n_head": None}, "n_head is null"),
        ("gpt2", {"n_layer": 10**9}, "names 1000000000 layers"),
        ("gptj", {"rotary_dim": "2"}, "rotary_dim is '2'"),
        ("gpt_neo", {"attention_types": None, "attention_layers": None}, "attention_types must name"),
        ("gpt_neo", {"attention_types": 3, "attention_layers": None}, "attention_types must name"),
        ("gpt_neo", {"attention_layers": 3}, "attention_layers must name"),
        ("gpt_neox", {"rotary_pct": [1], "rope_parameters": None}, "rotary_pct is"),
    ],
)
def test_a_setting_that_is_wrong_or_not_computed_is_named(family, changes, says, byte_tokenizer, tmp_path, capsys):
    path = directory(tmp_path / "m", family, byte_tokenizer)
    set_json(path / "config.json", **changes)
    with pytest.raises(SystemExit) as stopped:
        main(["info", str(path)])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    with pytest.raises(ValueError, match=says):
        open_model(path)
    assert "Traceback" not in error


def test_null_is_the_default_where_transformers_takes_it(byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", "llama", byte_tokenizer)
    expected = ours(path)
    values = json.loads((path / "config.json").read_text()) | {"rope_theta": None, "attention_bias": None}
    (path / "config.json").write_text(json.dumps({k: v for k, v in values.items() if k != "rope_parameters"}))
    assert torch.equal(ours(path), expected)


def test_a_key_that_nobody_knows_is_said(byte_tokenizer, tmp_path, capsys):
    path = directory(tmp_path / "m", "gpt2", byte_tokenizer)
    published = {"predict_special_tokens": True, "n_special": 0, "_num_labels": 1, "hidden_dropout_prob": 0}
    set_json(path / "config.json", secret_sauce=0.5, use_magic=False, nothing=None, none=[], **published)
    open_model(path)
    assert "does not know secret_sauce, use_magic, and" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt_neo", {"attention_layers": ["local"], "window_size": 2}),
        ("gpt_neo", {"attention_types": None, "attention_layers": ["local"], "window_size": 2}),
        ("gpt2", {"activation_function": "gelu_python"}),
        ("gpt2", {"activation_function": "gelu_accurate"}),
    ],
)
def test_a_setting_is_read_as_transformers_reads_it(family, changes, byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", family, byte_tokenizer)
    set_json(path / "config.json", **changes)
    same(path)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_of_torch_that_ends_early_is_one_sentence(zipped, byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", "gpt2", byte_tokenizer, n_embd=4, vocab_size=259, n_positions=4)
    weights = {"a": torch.ones(2), "b": torch.ones(1, dtype=torch.bfloat16)}
    file = path / "pytorch_model.bin"
    torch.save(weights, file, _use_new_zipfile_serialization=zipped)
    content = file.read_bytes()
    (path / "model.safetensors").unlink()
    for n in range(0, len(content), 7 if zipped else 1):
        file.write_bytes(content[:n])
        with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
            open_model(path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.gguf"])
def test_a_pointer_of_git_lfs_is_said(name, byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", "gpt2", byte_tokenizer)
    (path / "model.safetensors").unlink()
    if name == "model.gguf":
        (path / "config.json").unlink()
    (path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n")
    with pytest.raises(ValueError, match=f"{name} is a pointer of Git LFS"):
        open_model(path)


def test_parameters_in_a_file_of_torch_are_weights(byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", "llama", byte_tokenizer, num_key_value_heads=2)
    expected = ours(path)
    weights = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    torch.save({name: torch.nn.Parameter(weight) for name, weight in weights.items()}, path / "pytorch_model.bin")
    assert torch.equal(ours(path), expected)
    assert not open_model(path).read("norm.weight").requires_grad


def test_the_oldest_files_name_only_their_architecture(byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", "gpt2", byte_tokenizer)
    expected = theirs(path)
    values = json.loads((path / "config.json").read_text())
    del values["model_type"]
    (path / "config.json").write_text(json.dumps(values))
    torch.testing.assert_close(ours(path), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_matrices_and_vectors_of_different_types_work_together(dtype, byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", "gptj", byte_tokenizer)
    tensors = load_file(path / "model.safetensors")
    set_tensors(path, **{name: tensor.to(dtype) for name, tensor in tensors.items() if tensor.ndim == 2})
    same(path, 0.02)


@pytest.mark.parametrize("quantize", [None, "q8", "q4"])
def test_every_copy_keeps_what_its_source_says(quantize, byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", "llama", byte_tokenizer, vocab_size=263)
    backend = Tokenizer.load(path).backend
    backend.add_special_tokens(["<|begin|>", "<|end|>", "<|eot_id|>", "[PAD]"])
    backend.save(str(path / "tokenizer.json"))
    settings = {"eos_token": "<|eot_id|>", "pad_token": "[PAD]", "chat_template": "{{ messages }}"}
    set_json(path / "tokenizer_config.json", **settings)
    ends = {"eos_token_id": [260, 261], "bos_token_id": 259, "pad_token_id": 262, "temperature": 0.6}
    set_json(path / "generation_config.json", **ends)
    (path / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (path / "LICENSE").write_text("Do as you like.")
    convert(path, tmp_path / "copy", quantize=quantize)
    copy, stored = tmp_path / "copy", open_model(tmp_path / "copy")
    generation = json.loads((copy / "generation_config.json").read_text())
    assert {key: generation[key] for key in ends} == ends
    config = json.loads((copy / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (259, [260, 261], 262)
    named = json.loads((copy / "tokenizer_config.json").read_text())
    assert {key: named[key] for key in settings} == settings
    assert (copy / "LICENSE").read_text() == "Do as you like." and "# A model" in (copy / "README.md").read_text()
    assert (stored.licence, stored.tokenizer().ends) == ("mit", (260, 261))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(value, byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", "gpt2", byte_tokenizer)
    weight = load_file(path / "model.safetensors")["transformer.ln_f.weight"]
    weight[3] = value
    set_tensors(path, **{"transformer.ln_f.weight": weight})
    says = "holds NaN" if value != value else "holds infinity"
    for quantize in (None, "q8", "q4"):
        with pytest.raises(ValueError, match=says):
            convert(path, tmp_path / "copy", quantize=quantize)
        assert not (tmp_path / "copy").exists()
    model = load(path)
    with pytest.raises(ValueError, match=rf"not numbers, because its norm\.weight {says}"):
        model.generate("hello")
    with pytest.raises(ValueError, match="logits of the model are not numbers"):
        model.score("hello")


def test_a_weight_that_is_too_large_for_a_type_is_named(byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", "gptj", byte_tokenizer)
    set_tensors(path, **{"lm_head.bias": torch.full((259,), 1e5)})
    with pytest.raises(ValueError, match=r"lm_head\.bias holds 1e\+05, which is too large for float16; bfloat16 can"):
        convert(path, tmp_path / "copy", torch.float16)
    with pytest.raises(ValueError, match=r"head\.bias holds 1e\+05"):
        load(path, dtype=torch.float16)
    convert(path, tmp_path / "copy", torch.bfloat16)


def test_nothing_is_overwritten_unasked(byte_tokenizer, tmp_path, capsys):
    path = directory(tmp_path / "m", "gpt2", byte_tokenizer)
    other = directory(tmp_path / "other", "gptj", byte_tokenizer)
    (other / "optimizer.pt").write_text("work")
    (tmp_path / "link").symlink_to(path)
    for target, says in (
        (other, "is a model already"),
        (path, "is the model to convert"),
        (tmp_path / "link", "is the model to convert"),
        (tmp_path, "is the model to convert, or holds it"),
    ):
        with pytest.raises(ValueError, match=says):
            convert(path, target, overwrite=target != other)
    with pytest.raises(SystemExit) as stopped:
        main(["convert", str(path), str(other)])
    assert stopped.value.code == 2 and "--overwrite" in capsys.readouterr().err
    assert (other / "optimizer.pt").is_file()
    main(["convert", str(path), str(other), "--overwrite"])
    assert not (other / "optimizer.pt").exists() and open_model(other).config.family == "gpt2"
    (tmp_path / "empty").mkdir()
    convert(path, tmp_path / "empty")
    assert open_model(tmp_path / "empty").config.family == "gpt2"


def test_no_model_is_replaced_by_what_is_made_of_it(byte_tokenizer, tmp_path):
    base, folder = directory(tmp_path / "base", "gpt2", byte_tokenizer), tmp_path / "g"
    folder.mkdir()
    convert(base, folder / "model.gguf")
    config = open_model(base).config
    update = LowRank(torch.ones(1, config.d_model), torch.ones(config.d_model, 1), 0.5)
    write_adapter({"blocks.0.attention.q.weight": update}, config, byte_tokenizer, str(base), tmp_path / "adapter")
    for source, target in ((folder, folder / "model.gguf"), (tmp_path / "adapter", base)):
        with pytest.raises(ValueError, match=rf"{target} holds {target}, which {source} needs; name a new place"):
            convert(source, target, overwrite=True)
    convert(tmp_path / "adapter", folder / "model.gguf", overwrite=True)


def test_a_pad_token_without_a_row_is_no_obstacle(byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", "gpt2", byte_tokenizer)
    expected = ours(path)
    backend = Tokenizer.load(path).backend
    backend.add_special_tokens(["[PAD]"])
    backend.save(str(path / "tokenizer.json"))
    assert torch.equal(ours(path), expected)
    model = load(path)
    assert model.tokenizer.vocab_size == 259
    engine = Engine(model.backend(1, 8), model.tokenizer, 1)
    with pytest.raises(ValueError, match=r"outside 0\.\.258"):
        engine.submit([259], SamplingParams())
    shutil.rmtree(path)
    directory(path, "gpt2", byte_tokenizer, vocab_size=250, bos_token_id=0, eos_token_id=0)
    with pytest.raises(ValueError, match="they do not belong together"):
        load(path)


def test_a_score_needs_a_cache_for_its_own_text_only(byte_tokenizer, tmp_path):
    model = load(directory(tmp_path / "m", "llama", byte_tokenizer, max_position_embeddings=200_000_000))
    assert model.score("hello").n_bytes == 5
    assert model.score("\ud83d").n_bytes == 3


def test_one_stop_string_is_a_list_of_one():
    assert SamplingParams(stop="END").stop == SamplingParams(stop=("END",)).stop == ("END",)
