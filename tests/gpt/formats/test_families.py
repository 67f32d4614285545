"""Every family is transformers' own: the same logits, the same greedy text, the same bits after a round trip."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from bluejay.gpt.formats.families import FAMILIES, from_hugging_face, to_hugging_face
from bluejay.gpt.formats.layouts import load_model, save_model
from bluejay.gpt.presets import PRESETS
from bluejay.infer.backends.torch import TorchBackend
from bluejay.infer.engine import Engine
from bluejay.infer.params import SamplingParams
from tests.gpt.random_models import CONFIGS, family_fields, random_model

TOLERANCE = 1e-4
YARN = {"rope_type": "yarn", "factor": 4.0}


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=6, deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_logits_equal_transformers(family, data, seed, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    theirs = random_model(family, data.draw(family_fields(family)), seed)
    theirs.save_pretrained(path)
    ours = load_model(path)
    tokens = torch.randint(0, theirs.config.vocab_size, (2, 70))
    with torch.no_grad():
        assert (ours(tokens) - theirs(tokens).logits).abs().max() < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=3, deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_greedy_text_of_a_ragged_batch_is_what_transformers_finds_likeliest(
    family, data, seed, byte_tokenizer, tmp_path_factory
):
    path = tmp_path_factory.mktemp("model")
    theirs = random_model(family, data.draw(family_fields(family)), seed)
    theirs.save_pretrained(path)
    engine = Engine(TorchBackend(load_model(path), 64), byte_tokenizer)
    prompts = [[7], [70, 71, 72, 73, 74, 75, 76, 77, 78], [1, 2, 3, 4]]
    texts = {id(engine.submit(prompt, SamplingParams(max_tokens=64, temperature=0.0))): prompt for prompt in prompts}
    tokens = {key: list(prompt) for key, prompt in texts.items()}
    while not engine.idle:
        for request, chunk in engine.step():
            tokens[id(request)].append(chunk.token)
    for key, prompt in texts.items():
        whole, n = torch.tensor([tokens[key]]), len(prompt)
        assert whole.shape[1] == n + 64 or whole[0, -1] == byte_tokenizer.eot
        with torch.no_grad():
            logits = theirs(whole).logits[0, n - 1 : -1, : byte_tokenizer.vocab_size]
        chosen = logits.gather(1, whole[0, n:, None])[:, 0]
        assert (logits.max(-1).values - chosen).max() < TOLERANCE  # the same token, or one that ties with it


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=3, deadline=None)
@given(data=st.data(), seed=st.integers(0, 99), dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_a_model_survives_us_them_us_bit_for_bit(family, data, seed, dtype, byte_tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    random_model(family, data.draw(family_fields(family)), seed, dtype).save_pretrained(path / "first")
    first = load_model(path / "first")
    save_model(first, byte_tokenizer, path / "ours")
    AutoModelForCausalLM.from_pretrained(path / "ours", dtype="auto").save_pretrained(path / "theirs")
    again = load_model(path / "theirs")
    assert again.config.resolved == first.config.resolved
    assert again.state_dict().keys() == first.state_dict().keys()
    for name, weight in first.state_dict().items():
        assert weight.dtype == dtype
        assert torch.equal(weight, again.state_dict()[name]), name


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_the_parameters_that_transformers_counts(preset):
    config = PRESETS[preset]
    with torch.device("meta"):
        theirs = AutoModelForCausalLM.from_config(CONFIGS[config.family](**to_hugging_face(config, 0, 0, "float32")))
    assert config.n_parameters == theirs.num_parameters()
    assert from_hugging_face(theirs.config.to_dict()).resolved == config.resolved


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("gpt-j-6b", 6_050_882_784),
        ("mistral-7b-v0.3", 7_248_023_552),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen3-0.6b", 596_049_920),
        ("qwen3-1.7b", 1_720_574_976),
        ("qwen3-4b", 4_022_468_096),
        ("qwen3-8b", 8_190_735_360),
    ],
)
def test_a_preset_has_its_published_number_of_parameters(preset, parameters):
    assert PRESETS[preset].n_parameters == parameters


@pytest.mark.parametrize(
    ("family", "change", "sentence"),
    [
        ("gptj", {"model_type": "bert"}, "model_type is 'bert'; bluejay reads 'gptj'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("llama", {"is_causal": False}, "is_causal is False; bluejay reads llama models where it is True"),
        ("gpt2", {"activation_function": "quick_gelu"}, "activation_function is 'quick_gelu'; it must be one of"),
        (
            "gpt_neo",
            {"attention_types": [[["global"], 3]], "attention_layers": None},
            "attention_types must name global or local for each of 12",
        ),
        (
            "gpt_neo",
            {"num_layers": 10**15, "attention_types": [[["global"], 10**15]], "attention_layers": None},
            "num_layers is 1000000000000000; bluejay reads at most",
        ),
        ("llama", {"head_dim": 2**62, "num_attention_heads": 2**62, "num_key_value_heads": None}, "are absurd"),
        ("llama", {"rms_norm_eps": 10**400}, "rms_norm_eps is 1000"),
        ("gpt_neo", {"attention_layers": ["global"] * 3}, "attention_layers must name global or local for each of 12"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, "rope_type is 'dynamic'"),
        (
            "llama",
            {"rope_parameters": YARN | {"beta_fast": 0.5}},
            "rotary_scaling.high is 0.5; it must be above low, which is 1.0",
        ),
        ("llama", {"rope_parameters": {"rope_type": ["yarn"]}}, "rope_type is ['yarn']"),
        ("llama", {"rope_parameters": YARN | {"factor": None}}, "factor is missing"),
        ("llama", {"rope_parameters": YARN | {"truncate": 1}}, "truncate is 1; it must be true or false"),
        ("llama", {"rope_parameters": YARN | {"extrapolation_factor": 1.0}}, "'yarn' has extrapolation_factor"),
        ("llama", {"rope_parameters": YARN, "rope_theta": 1.0}, "rotary_base is 1.0; YaRN needs one above 1"),
        ("llama", {"num_key_value_heads": 5}, "n_head 9 is not a multiple of model.n_kv_head 5"),
        ("gptj", {"n_embd": None}, "n_embd is null"),
    ],
)
def test_what_no_arithmetic_here_computes_is_refused_in_one_sentence(family, change, sentence):
    preset = {"gptj": "gpt-j", "gpt2": "gpt2", "gpt_neo": "gpt-neo-125m", "llama": "smollm2-135m"}[family]
    with pytest.raises(ValueError, match=sentence.replace("[", r"\[")):
        from_hugging_face(to_hugging_face(PRESETS[preset], 0, 0, "float32") | change)


VLLM_ASSERTS = {
    "gptj": lambda config: config.rotary_dim % 2 == 0 and not config.tie_word_embeddings,
    "gpt_neox": lambda config: (
        (config.rope_parameters or {}).get("partial_rotary_factor") is not None
        and int(config.hidden_size // config.num_attention_heads * config.rope_parameters["partial_rotary_factor"]) % 2
        == 0
    ),
    "gpt2": lambda config: (
        not config.add_cross_attention
        and not config.scale_attn_by_inverse_layer_idx
        and not config.reorder_and_upcast_attn
    ),
    "llama": lambda config: (
        config.num_attention_heads % config.num_key_value_heads == 0 and config.hidden_act == "silu"
    ),
    "qwen2": lambda config: len({*config.layer_types}) == 1 or config.max_window_layers == config.num_hidden_layers,
}
VLLM_ASSERTS["mistral"] = VLLM_ASSERTS["llama"]
VLLM_ASSERTS["qwen3"] = VLLM_ASSERTS["qwen2"]
"""What vLLM's class of each family asserts of `config.json` (vllm/model_executor/models)."""


@pytest.mark.parametrize(
    "preset",
    [
        "gpt-j-6b",
        "gpt-neox-20b",
        "pythia-70m",
        "gpt2",
        "llama-2-7b",
        "smollm2-135m",
        "mistral-7b-v0.3",
        "qwen2.5-0.5b",
        "qwen3-0.6b",
    ],
)
def test_an_exports_config_has_what_vllms_classes_assert(preset):
    config = PRESETS[preset]
    written = to_hugging_face(config, 0, 0, "bfloat16")
    assert VLLM_ASSERTS[config.family](CONFIGS[config.family](**written)) and written["architectures"]
    assert written["dtype"] == written["torch_dtype"] == "bfloat16"  # the latter before transformers 4.56


def test_every_share_of_a_head_can_be_rotated():
    for head, rotated in ((88, 30), (104, 60), (184, 122), (96, 24), (64, 64)):
        config = dataclasses.replace(
            PRESETS["pythia-70m"], d_model=4 * head, n_head=4, head_dim=None, rotary_dim=rotated
        )
        written = to_hugging_face(config, 0, 0, "float32")
        assert from_hugging_face(written).n_rotary == rotated
        assert int(head * GPTNeoXConfig(**written).rope_parameters["partial_rotary_factor"]) == rotated
