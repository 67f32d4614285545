"""The windows of Mistral and Qwen are those of transformers: which layers have one, and how far it reaches."""

import dataclasses
import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from bluejay.gpt.formats.families import from_hugging_face, known_keys, to_hugging_face
from bluejay.gpt.formats.layouts import convert, open_model
from bluejay.gpt.formats.values import unknown_keys
from bluejay.gpt.info import info
from bluejay.gpt.presets import PRESETS
from bluejay.infer.backends.native import available
from bluejay.infer.model import load
from tests.gpt.random_models import CONFIGS, random_model

FIELDS = {"num_hidden_layers": 3, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
FIELDS |= {"intermediate_size": 32, "vocab_size": 259, "max_position_embeddings": 64}
FIELDS |= {"bos_token_id": 258, "eos_token_id": 258}
TEXT = "the cat sat on the mat; " * 2
ONE_SLIDES = ["full_attention", "sliding_attention", "full_attention"]
# config.json of Qwen2.5-0.5B, Qwen3-0.6B and Mistral-7B-v0.1, as they were published
QWEN_2 = """{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
    "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 24, "model_type": "qwen2",
    "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1", "use_cache": true, "use_mrope": false, "use_sliding_window": false,
    "vocab_size": 151936}"""
QWEN_3 = """{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
    "initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28,
    "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
    "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true,
    "use_sliding_window": false, "vocab_size": 151936}"""
MISTRAL = """{"architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768,
    "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": false,
    "torch_dtype": "bfloat16", "transformers_version": "4.34.0.dev0", "use_cache": true, "vocab_size": 32000}"""


@pytest.mark.parametrize(
    ("family", "changes", "local"),
    [
        ("mistral", {"sliding_window": 5}, (0, 1, 2)),
        ("mistral", {"sliding_window": 1, "head_dim": 12}, (0, 1, 2)),
        ("mistral", {"sliding_window": None}, ()),
        ("mistral", {"sliding_window": 5, "layer_types": ONE_SLIDES}, (1,)),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}, (1, 2)),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0}, (0, 1, 2)),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "layer_types": ONE_SLIDES}, (1,)),
        ("qwen2", {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0}, ()),
        ("qwen2", {"sliding_window": 5, "max_window_layers": 0}, ()),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1, "head_dim": 12}, (1, 2)),
    ],
)
def test_scores_beyond_the_window_are_those_of_transformers(family, changes, local, byte_tokenizer, tmp_path):
    random_model(family, FIELDS | changes, seed=2).save_pretrained(tmp_path / "theirs")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")  # a Mistral that lists its layers is a Ministral
    byte_tokenizer.save(tmp_path / "theirs")
    assert open_model(tmp_path / "theirs").config.local_layers == local
    convert(tmp_path / "theirs", tmp_path / "ours")
    model, ids = load(tmp_path / "ours"), torch.tensor([[byte_tokenizer.eot, *byte_tokenizer.encode(TEXT)]])
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    with torch.no_grad():
        assert torch.equal(again(ids).logits, theirs(ids).logits)
        expected = theirs(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    assert (torch.tensor(model.score(TEXT).logprobs) - expected).abs().max() < 1e-4


@pytest.mark.skipif(not available(), reason="needs the native engine")
@pytest.mark.parametrize("quantize", ["q8", "q4"])
def test_a_quantised_model_has_its_window(quantize, byte_tokenizer, tmp_path):
    """What lies before the window of a single layer changes nothing; what lies in it does."""
    fields = FIELDS | {"num_hidden_layers": 1, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    random_model("qwen2", fields, seed=2).save_pretrained(tmp_path / "plain")
    byte_tokenizer.save(tmp_path / "plain")
    convert(tmp_path / "plain", tmp_path / "packed", quantize=quantize)
    model = load(tmp_path / "packed")
    one, before, inside = (
        model.logits([first] * 9 + [40, 41, second] + [50] * 7)[-1] for first, second in ((1, 2), (3, 2), (1, 4))
    )
    assert torch.equal(one, before) and not torch.equal(one, inside)


@pytest.mark.parametrize("published", [QWEN_2, QWEN_3, MISTRAL], ids=["Qwen2.5-0.5B", "Qwen3-0.6B", "Mistral-7B-v0.1"])
def test_every_key_of_a_published_config_is_understood(published):
    values = json.loads(published)
    config = from_hugging_face(values)
    preset = PRESETS[{"qwen2": "qwen2.5-0.5b", "qwen3": "qwen3-0.6b", "mistral": "mistral-7b-v0.3"}[config.family]]
    if config.family == "mistral":
        every = tuple(range(32))
        preset = dataclasses.replace(preset, vocab_size=32000, rotary_base=1e4, window=4096, local_layers=every)
        assert config.n_parameters == 7_241_732_096
    assert config.resolved == preset.resolved
    assert not unknown_keys(values, known_keys(values))


@pytest.mark.parametrize(
    ("family", "changes", "sentence"),
    [
        ("mistral", {"sliding_window": 0}, "sliding_window is 0; it must be a whole number of at least 1"),
        ("mistral", {"sliding_window": "all"}, "sliding_window is 'all'"),
        ("mistral", {"num_hidden_layers": 10**15}, "num_hidden_layers is 1000000000000000; bluejay reads at most"),
        ("qwen2", {"num_hidden_layers": 10**15}, "num_hidden_layers is 1000000000000000; bluejay reads at most"),
        ("qwen2", {"use_sliding_window": "yes"}, "use_sliding_window is 'yes'; it must be true or false"),
        ("qwen2", {"layer_types": None, "max_window_layers": -1}, "max_window_layers is -1"),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types must name full_attention or sliding_attention"),
        ("qwen2", {"layer_types": ["chunked_attention"] * 24}, "layer_types must name full_attention or"),
        ("qwen2", {"layer_types": 3}, "layer_types must name full_attention or"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 24}, "but use_sliding_window is not true"),
        (
            "qwen2",
            {"layer_types": ["sliding_attention"] * 24, "use_sliding_window": True, "sliding_window": None},
            "but sliding_window is null",
        ),
        ("qwen2", {"use_mrope": True}, "use_mrope is True"),
        ("qwen2", {"model_type": "qwen3_moe"}, "model_type is 'qwen3_moe'; bluejay reads 'gptj', .*'qwen2', 'qwen3'"),
    ],
)
def test_a_window_that_is_none_is_refused_in_one_sentence(family, changes, sentence):
    preset = {"mistral": "mistral-7b-v0.3", "qwen2": "qwen2.5-0.5b"}[family]
    with pytest.raises(ValueError, match=sentence):
        from_hugging_face(to_hugging_face(PRESETS[preset], 0, 0, "float32") | changes)


def test_a_missing_window_is_the_default_of_transformers():
    for preset, used in (("mistral-7b-v0.3", {}), ("qwen2.5-1.5b", {"use_sliding_window": True, "layer_types": None})):
        values = to_hugging_face(PRESETS[preset], 0, 0, "float32") | used
        del values["sliding_window"]
        values.pop("max_window_layers", None)
        values["num_hidden_layers"] = 30
        config, theirs = from_hugging_face(values), CONFIGS[values["model_type"]](**values)
        assert config.window == theirs.sliding_window == 4096
        assert config.local_layers == ((28, 29) if used else tuple(range(30)))


def test_the_figures_of_a_model_tell_its_window():
    assert "context 2,048 tokens, of which 6 of 12 layers see the last 256" in info("gpt-neo-125m").summary()
    assert "see the last" not in info("qwen2.5-0.5b").summary()


def test_a_window_that_a_family_cannot_state_is_refused():
    mistral = dataclasses.replace(PRESETS["mistral-7b-v0.3"], window=16)
    with pytest.raises(ValueError, match=r"model\.local_layers is \(\); a mistral directory can only store \(0, 1, "):
        to_hugging_face(mistral, 0, 0, "float32")
    with pytest.raises(ValueError, match=r"model\.window is 16; a llama directory can only store None"):
        to_hugging_face(dataclasses.replace(mistral, family="llama"), 0, 0, "float32")
