"""A GGUF file gives transformers' logits; what is damaged or beyond the model is one sentence."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, PreTrainedModel

from bluejay.gpt.formats.gguf import field, open_gguf
from bluejay.gpt.formats.gguf_file import read_gguf
from bluejay.gpt.formats.layouts import open_model, read_model
from bluejay.infer.model import Model, load
from bluejay.infer.needs import is_plain_directory
from bluejay.infer.params import SamplingParams
from tests.gpt.random_models import family_fields, random_model

ARCHITECTURES = {"gpt2": gguf.MODEL_ARCH.GPT2, "gpt_neox": gguf.MODEL_ARCH.GPTNEOX, "llama": gguf.MODEL_ARCH.LLAMA}
ARCHITECTURES |= {"mistral": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}
F32, F16, Q8_0 = GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.Q8_0
Q4_0, BF16 = GGMLQuantizationType.Q4_0, GGMLQuantizationType.BF16
COMPUTED = {  # what llama.cpp computes: these activations, and no window
    "gpt2": {"activation_function": "gelu_new"},
    "gpt_neox": {"hidden_act": "gelu_new"},
    "llama": {"hidden_act": "silu"},
    "mistral": {"sliding_window": None},
    "qwen2": {"use_sliding_window": False},
    "qwen3": {"use_sliding_window": False, "attention_bias": False},
}
FIELDS = {
    "gpt2": {"n_layer": 2, "n_head": 4, "n_embd": 64, "n_positions": 32, "vocab_size": 96},
    "gpt_neox": {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "intermediate_size": 96}
    | {"vocab_size": 96, "max_position_embeddings": 32},
    "llama": {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64}
    | {"intermediate_size": 96, "vocab_size": 96, "max_position_embeddings": 32, "tie_word_embeddings": True},
}
FIELDS |= {"mistral": FIELDS["llama"] | {"head_dim": 24}, "qwen2": FIELDS["llama"]}
FIELDS |= {"qwen3": FIELDS["mistral"]}
YARN = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4}
NO_TOKENS = {"bos_token_id": 0, "eos_token_id": 0}


def drawn(data: st.DataObject, family: str) -> dict:
    """What a small model of a family that llama.cpp computes may be."""
    fields = data.draw(family_fields(family)) | COMPUTED[family]
    kind = (rope := fields.get("rope_parameters", {})).get("rope_type")
    if kind == "yarn":
        for name in ("truncate", "beta_fast", "attention_factor", "mscale"):
            rope.pop(name, None)
    if kind == "llama3":
        if family in ("qwen2", "qwen3"):
            return fields | {"rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}}
        # As in every published model: a context of 8,192 that was lengthened, and heads wide enough for slow pairs.
        fields["rope_parameters"] |= {"original_max_position_embeddings": 8192, "rope_theta": 500000.0}
        fields |= {"max_position_embeddings": 16384, "head_dim": max(8, fields["head_dim"])}
    return fields


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    kind: GGMLQuantizationType = F32,
    more: Callable[[GGUFWriter], None] = lambda writer: None,
    split: int = 0,
    **extra: str | int,
) -> None:
    """What llama.cpp's convert_hf_to_gguf.py makes of a model; matrices but those of positions are quantised. `more`
    may add fields; with `split` there are files of so many tensors."""
    config, family = model.config, model.config.model_type
    arch = ARCHITECTURES[family]
    writer = GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch], split_max_tensors=split)
    width = config.hidden_size // config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_license("apache-2.0")
    if family == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    if family == "gpt_neox":
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_rope_dimension_count(int(config.rope_parameters["partial_rotary_factor"] * width))
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_parallel_residual(config.use_parallel_residual)
    if family in ("llama", "mistral", "qwen2", "qwen3"):
        width = getattr(config, "head_dim", width)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_rope_dimension_count(width)
        writer.add_key_length(width)
        writer.add_value_length(width)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        if config.rope_parameters["rope_type"] == "llama3":
            writer.add_tensor("rope_freqs.weight", llama3_factors(config.rope_parameters, width))
    if (rope := getattr(config, "rope_parameters", {})).get("rope_type") == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    more(writer)
    for key, value in extra.items():
        {str: writer.add_string, int: writer.add_uint32}[type(value)](key, value)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if name in ("lm_head.weight", "embed_out.weight") and config.tie_word_embeddings:
            continue
        array = as_rows(name, weight).numpy()
        if "query_key_value" in name:
            parts = array.reshape(config.num_attention_heads, 3, width, *array.shape[1:])
            array = np.concatenate([parts[:, i].reshape(-1, *array.shape[1:]) for i in range(3)])
        for part, heads in (
            ("q_proj", config.num_attention_heads),
            ("k_proj", getattr(config, "num_key_value_heads", 0)),
        ):
            if part in name and arch == gguf.MODEL_ARCH.LLAMA:
                shape = array.shape
                array = array.reshape(heads, 2, width // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert theirs is not None, name
        if array.ndim == 2 and "wpe" not in name:
            writer.add_tensor(theirs, gguf.quants.quantize(np.ascontiguousarray(array), kind), raw_dtype=kind)
        else:
            writer.add_tensor(theirs, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def as_rows(name: str, weight: torch.Tensor) -> torch.Tensor:
    """A matrix as (out, in): GPT-2's are the other way round."""
    return weight.T if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else weight


def llama3_factors(rope: dict, width: int) -> np.ndarray:
    """How much slower each pair turns (Llama 3.1's `apply_scaling`)."""
    factors = []
    for pair in range(0, width, 2):
        wavelength = 2 * np.pi * rope["rope_theta"] ** (pair / width)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        turns = rope["original_max_position_embeddings"] / wavelength
        smooth = (turns - low) / (high - low)
        factor = 1 / ((1 - smooth) / rope["factor"] + smooth)
        factors.append(rope["factor"] if turns < low else 1.0 if turns > high else factor)
    return np.array(factors, dtype=np.float32)


def quantised(model: PreTrainedModel, kind: GGMLQuantizationType) -> PreTrainedModel:
    """The same model with its matrices rounded to what a file of a kind can hold."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "wpe" not in name:
                rows = np.ascontiguousarray(as_rows(name, weight).numpy())
                rounded = gguf.quants.dequantize(gguf.quants.quantize(rows, kind), kind)
                weight.copy_(as_rows(name, torch.from_numpy(rounded)))
    return model


def difference(path: Path, theirs: PreTrainedModel) -> float:
    ours = read_model(open_gguf(path)).float()
    tokens = torch.randint(0, theirs.config.vocab_size, (2, 30))
    with torch.no_grad():
        return float((ours(tokens) - theirs(tokens).logits).abs().max())


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A small Llama in a file."""
    write_gguf(tmp_path / "model.gguf", random_model("llama", FIELDS["llama"] | NO_TOKENS, 0))
    return tmp_path / "model.gguf"


@pytest.mark.parametrize("family", ARCHITECTURES)
@settings(max_examples=8, deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_logits_equal_transformers(family, data, seed, tmp_path_factory):
    theirs = random_model(family, drawn(data, family), seed)
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_gguf(path, theirs)
    assert open_gguf(path).dtype == torch.float32
    assert open_gguf(path).licence == "apache-2.0"
    assert difference(path, theirs) < 1e-4


@pytest.mark.parametrize("family", ARCHITECTURES)
@pytest.mark.parametrize("kind", [F16, BF16, Q8_0, Q4_0])
def test_logits_of_a_quantised_model_equal_those_of_its_numbers_in_transformers(family, kind, tmp_path):
    theirs = random_model(family, FIELDS[family] | COMPUTED[family] | NO_TOKENS, 0)
    write_gguf(tmp_path / "model.gguf", theirs, kind)
    stored = open_gguf(tmp_path / "model.gguf")
    assert stored.dtype == {F16: torch.float16, BF16: torch.bfloat16}.get(kind, torch.float32)
    with torch.no_grad():
        for weight in quantised(theirs, kind).parameters():
            weight.copy_(weight.to(stored.dtype))  # vectors too
    assert difference(tmp_path / "model.gguf", theirs) < 1e-4


def test_the_header_is_what_the_packages_own_reader_finds(llama):
    ours, theirs = read_gguf(llama), GGUFReader(llama)
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.fields == pytest.approx(fields)
    assert [(name, t.kind, [*reversed(t.shape)]) for name, t in ours.tensors.items()] == [
        (t.name, t.tensor_type, t.shape.tolist()) for t in theirs.tensors
    ]


@pytest.mark.parametrize("kind", GGMLQuantizationType)
def test_every_quantisation_is_read_or_refused_by_name(kind, tmp_path):
    block, size = gguf.GGML_QUANT_SIZES[kind]
    writer = GGUFWriter(tmp_path / "file.gguf", "llama")
    writer.add_tensor("matrix", np.zeros((3, 2 * size), np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensor = read_gguf(tmp_path / "file.gguf").tensors["matrix"]
    assert tensor.shape == (3, 2 * block)
    try:
        assert tensor.read(slice(1, 3)).shape == (2, 2 * block)
    except ValueError as error:
        assert kind.name in str(error)


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Model:
    return load(smollm2_path)


def test_smollm2_knows_a_capital(smollm2):
    assert smollm2.gpt.config.n_parameters == 134_515_008
    (text,) = smollm2.generate("The capital of France is", SamplingParams(max_tokens=8, temperature=0.0))
    assert text.startswith(" Paris.")


def test_smollm2s_ids_and_logits_are_those_that_transformers_gave(smollm2):
    golden = json.loads(Path(__file__).with_name("smollm2.json").read_text(encoding="utf-8"))
    assert smollm2.tokenizer.encode_prompt(golden["text"]) == golden["ids"]
    with torch.no_grad():
        logits = smollm2.gpt(torch.tensor([golden["ids"]]))[0]
    theirs = torch.tensor(golden["top_logits"])
    assert (logits.gather(1, torch.tensor(golden["top_ids"])) - theirs).abs().max() < 1e-3


@pytest.mark.slow  # transformers takes half a minute to read the file
def test_smollm2s_logits_equal_transformers(smollm2, smollm2_path):
    theirs = AutoModelForCausalLM.from_pretrained(smollm2_path.parent, gguf_file=smollm2_path.name)
    tokens = torch.tensor([smollm2.tokenizer.encode(Path(__file__).read_text(encoding="utf-8"))[:512]])
    with torch.no_grad():
        assert (smollm2.gpt(tokens) - theirs(tokens).logits).abs().max() < 1e-3


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> bytes:
    """The bytes of a small file."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    fields = {"num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "hidden_size": 4}
    fields |= {"intermediate_size": 4, "vocab_size": 8, "max_position_embeddings": 8, "tie_word_embeddings": True}
    write_gguf(path, random_model("llama", fields | NO_TOKENS, 0))
    return path.read_bytes()


def refusal(path: Path, data: bytes) -> str:
    """What opening and reading a file says; "" where nothing is wrong. Whatever it is is a sentence."""
    path.write_bytes(data)
    try:
        read_model(open_gguf(path))
    except ValueError as error:
        message = str(error)
        assert str(path) in message
        assert "\n" not in message
        return message
    return ""


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_file_that_ends_early_is_one_sentence(small, data, tmp_path_factory):
    end = data.draw(st.integers(0, len(small) - 32))  # the file is padded to 32 bytes
    assert "is not a whole GGUF file" in refusal(tmp_path_factory.mktemp("cut") / "model.gguf", small[:end])


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_damaged_header_is_one_sentence_or_harmless(small, data, tmp_path_factory):
    at = data.draw(st.integers(0, small.index(b"output_norm") + 60))
    value = data.draw(st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]) | st.integers(0, 255))
    number = struct.pack("<Q", value) if value > 255 else bytes([value])
    refusal(tmp_path_factory.mktemp("damaged") / "model.gguf", small[:at] + number + small[at + len(number) :])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"GGUF\x03", b"GGUF\x01", "its version is 1"),
        (b"GGUF\x03", b"\x80\x04.\x00\x00", "does not begin with GGUF"),
        (b"\x05\x00\x00\x00\x00\x00\x00\x00llama", b"\x05\x00\x00\x00\x00\x00\x00\x00mamba", "architecture is 'mamba'"),
        (b"blk.0.ffn_up.", b"blk.9.ffn_up.", "has no blk.0.ffn_up.weight"),
        (b"output_norm.weight\x01", b"output_norm.weight\x02", "is not a whole GGUF file"),
        (
            b"llama.block_count\x04\x00\x00\x00\x01\x00\x00\x00",
            b"llama.block_count\x04\x00\x00\x00\xff\xff\xff\x7f",
            "llama.block_count is 2147483647",
        ),
        (b"head_count\x04\x00\x00\x00\x01", b"head_count\x04\x00\x00\x00\x03", "blk.0.attn_q.weight is [4, 4]"),
    ],
)
def test_what_is_wrong_is_named(small, old, new, message, tmp_path):
    assert small.count(old) == 1
    assert message in refusal(tmp_path / "model.gguf", small.replace(old, new))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"llama.rope.scaling.type": "longrope"}, "llama.rope.scaling.type is 'longrope'"),
        (YARN | {"llama.rope.scaling.yarn_beta_fast": 8}, "llama.rope.scaling.yarn_beta_fast is 8"),
        (YARN | {"llama.rope.scaling.yarn_attn_factor": 2}, "yarn_attn_factor is 2; with the factor 4, .* compute 1.1"),
        ({"llama.expert_count": 8}, "llama.expert_count is 8"),
        ({"llama.rope.scaling.attn_factor": 2}, "llama.rope.scaling.attn_factor is 2"),
        ({"llama.final_logit_softcapping": 30}, "llama.final_logit_softcapping is 30; bluejay does not know"),
        ({"split.count": 3}, "is one of 3 parts; they must have the names"),
        ({"general.type": "adapter"}, "its general.type is 'adapter'; bluejay reads a 'model'"),
    ],
)
def test_a_setting_that_the_model_has_no_arithmetic_for_is_refused(extra, message, tmp_path):
    write_gguf(tmp_path / "model.gguf", random_model("llama", FIELDS["llama"] | NO_TOKENS, 0), **extra)
    with pytest.raises(ValueError, match=message):
        open_gguf(tmp_path / "model.gguf")


def test_a_gguf_file_is_told_by_its_first_bytes(tmp_path):
    write_gguf(tmp_path / "model.gguf", random_model("llama", FIELDS["llama"] | NO_TOKENS, 0))
    data = (tmp_path / "model.gguf").read_bytes()
    for place in ("UPPER.GGUF", "blob", "folder/other.gguf"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(data)
        assert open_model(tmp_path / place).config.family == "llama"
    assert open_model(tmp_path / "folder").config.family == "llama"
    (tmp_path / "folder" / "config.json").write_text('{"model_type": "llama"}')
    assert open_model(tmp_path / "folder").config.family == "llama"
    assert not is_plain_directory(tmp_path / "folder")
    (tmp_path / "folder" / "config.json").unlink()
    (tmp_path / "folder" / "second.gguf").write_bytes(data)
    with pytest.raises(ValueError, match=r"name one of other\.gguf, second\.gguf"):
        open_model(tmp_path / "folder")
    (tmp_path / "blob").write_bytes(b"GGUF\0\0\0\3" + data[8:])
    with pytest.raises(ValueError, match="blob is big-endian"):
        open_model(tmp_path / "blob")
    (tmp_path / "blob").write_bytes(b"something else")
    with pytest.raises(ValueError, match="is a file, and not a GGUF file"):
        open_model(tmp_path / "blob")


def test_tensors_of_another_shape_or_without_a_place_are_named(tmp_path):
    model = random_model("llama", FIELDS["llama"] | NO_TOKENS, 0)
    down = model.model.layers[1].mlp.down_proj
    down.weight = torch.nn.Parameter(down.weight[:, :64].clone())
    write_gguf(tmp_path / "narrow.gguf", model)
    with pytest.raises(ValueError, match=r"narrow\.gguf: blk\.1\.ffn_down\.weight is \[64, 64\]; .* \[64, 96\]"):
        open_gguf(tmp_path / "narrow.gguf")
    biased = random_model("llama", FIELDS["llama"] | NO_TOKENS, 0)
    biased.model.layers[1].self_attn.q_proj.bias = torch.nn.Parameter(torch.ones(64))
    write_gguf(tmp_path / "spare.gguf", biased)
    with pytest.raises(ValueError, match=r"spare\.gguf: blk\.1\.attn_q\.bias has no place in a llama model"):
        open_gguf(tmp_path / "spare.gguf")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, True, "a", None])
def test_a_field_that_is_no_positive_number_is_named(value):
    with pytest.raises(ValueError, match=rf"^llama\.context_length is {value!r}; it must be a positive number"):
        field({"context_length": value}, "llama", "context_length")
