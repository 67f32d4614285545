"""Quantised directories: written whole, read as they are, and refused in one line where something is off."""

import dataclasses
import json
import shutil
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bluejay
from bluejay.cli import main
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.families import from_hugging_face
from bluejay.gpt.formats.layouts import open_model, read_model, save_model
from bluejay.gpt.formats.quantized import matrix_formats, matrix_names, write_quantized
from bluejay.gpt.init import new_model
from bluejay.gpt.presets import GPT2, GPT_J, sized
from bluejay.gpt.quantization.packing import QUANTISED
from bluejay.infer.backends.native import available
from bluejay.infer.model import load
from tests.gpt.random_models import CONFIGS, family_fields

needs_native = pytest.mark.skipif(not available(), reason="built without the native engine")


@pytest.fixture(scope="module", params=["q8", "q4"])
def format(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def plain(byte_tokenizer, tmp_path_factory):
    """A model directory to quantise, all of its weights random."""
    config = GPTConfig(n_layer=2, d_model=72, n_head=3, vocab_size=259, n_ctx=64, rotary_dim=8)
    path = tmp_path_factory.mktemp("plain") / "model"
    save_model(new_model(config, seed=0), byte_tokenizer, path)
    return path


@pytest.fixture(scope="module")
def quantised(plain, format, tmp_path_factory):
    path = tmp_path_factory.mktemp("quantised") / format
    main(["convert", str(plain), str(path), "--quantize", format])
    return path


ERRORS = {"q8": 3e-4, "q4": 2e-2}
"""Most relative squared error of a matrix: a few times that of Gaussian weights."""


def relative_error(weight: torch.Tensor, stored: torch.Tensor) -> float:
    return ((weight - stored).square().sum() / weight.square().sum()).item()


def test_every_weight_is_what_its_format_makes_of_it(plain, quantised, format):
    stored = open_model(quantised)
    for name, weight in read_model(open_model(plain)).state_dict().items():
        if weight.dim() == 1:
            assert torch.equal(stored.read(name).float(), weight.float())
        else:
            kind = "q8" if name == "embed.weight" else format
            assert relative_error(weight, stored.read(name)) < ERRORS[kind], name


@pytest.mark.parametrize("preset", [GPT2, GPT_J])
def test_an_embedding_is_never_below_8_bits(preset, byte_tokenizer, tmp_path):
    config = sized(preset, 1, 64, 2, vocab_size=259, n_ctx=64)
    save_model(new_model(config, seed=0), byte_tokenizer, tmp_path / "plain")
    main(["convert", str(tmp_path / "plain"), str(tmp_path / "q4"), "--quantize", "q4"])
    packed = open_model(tmp_path / "q4").packed
    assert packed is not None
    assert (packed("embed.weight").format.name, packed("blocks.0.mlp.up.weight").format.name) == ("q8", "q4")
    assert packed("norm.weight") is None


def test_an_embedding_that_an_earlier_version_left_in_bfloat16_is_read(byte_tokenizer, tmp_path):
    config = sized(GPT_J, 1, 64, 2, vocab_size=259, n_ctx=64)
    save_model(new_model(config, seed=0), byte_tokenizer, tmp_path / "plain")
    plain, matrices = open_model(tmp_path / "plain"), dict.fromkeys(matrix_names(config), QUANTISED["q4"])
    with mock.patch("bluejay.gpt.formats.quantized.matrix_formats", lambda *_: matrices):
        write_quantized(plain, tmp_path / "earlier", QUANTISED["q4"])
    stored = open_model(tmp_path / "earlier")
    assert stored.packed is not None and stored.packed("embed.weight") is None
    assert torch.equal(stored.read("embed.weight"), plain.read("embed.weight").bfloat16())
    if available():
        assert np.isfinite(load(tmp_path / "earlier").score("the cat").bits_per_byte)


@pytest.mark.parametrize("family", CONFIGS)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_a_mix_of_formats_is_read_as_it_was_written(family, data, byte_tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("mix")
    fields = data.draw(family_fields(family)) | {"vocab_size": 259}
    config = from_hugging_face(CONFIGS[family](**fields).to_dict())
    save_model(new_model(config, seed=0), byte_tokenizer, path / "plain")
    plain = open_model(path / "plain")
    names = dict.fromkeys([*matrix_names(config), "embed.weight"])
    mix = {name: QUANTISED[data.draw(st.sampled_from(["q8", "q4"]))] for name in names}
    with mock.patch("bluejay.gpt.formats.quantized.matrix_formats", lambda *_: mix):
        write_quantized(plain, path / "mixed", QUANTISED["q4"])
    stored = open_model(path / "mixed")
    assert stored.packed is not None
    for name, kind in mix.items():
        assert stored.packed(name).format is kind
        assert relative_error(plain.read(name), stored.read(name)) < ERRORS[kind.name], name
    if available():
        assert np.isfinite(load(path / "mixed").score("the cat").bits_per_byte)


def test_shared_keys_and_values_have_8_bits_in_q4():
    config = GPTConfig(n_layer=1, d_model=64, n_head=4, n_kv_head=2, vocab_size=259)
    formats = matrix_formats(config, QUANTISED["q4"])
    assert {name.split(".")[-2] for name, kind in formats.items() if kind.name == "q8"} == {"k", "v", "embed"}
    unshared = matrix_formats(dataclasses.replace(config, n_kv_head=None), QUANTISED["q4"])
    assert [name for name, kind in unshared.items() if kind.name == "q8"] == ["embed.weight"]


@needs_native
def test_text_from_a_quantised_directory_is_what_torch_makes_of_its_weights(quantised):
    model = load(quantised)
    score = model.score("the cat and the cat and the hat")
    reference = load(quantised, dtype=torch.float32).score("the cat and the cat and the hat")
    # What is left is the rounding of the engine's inputs, which the words of an untrained model feel most.
    assert np.abs(np.subtract(score.logprobs, reference.logprobs)).mean() < 0.05
    assert len(model.generate("the", bluejay.SamplingParams(max_tokens=5, temperature=0.0))) == 1


@needs_native
def test_weights_are_mapped_at_multiples_of_a_cache_line(quantised):
    packed = open_model(quantised).packed
    assert packed is not None
    assert packed("blocks.1.mlp.up.weight").data.data_ptr() % 64 == 0


def refused(path) -> str:
    """The one line that a directory is refused with."""
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        load(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("format", "q2", "must be q8 or q4"),
        ("block", 32, "quantization.block is 32; this version reads 16"),
        ("half", 16, "quantization.half is 16; this version reads 32"),
        ("code", [1, 2], "convert the model again"),
        ("smoothing", "log", "quantization.smoothing is log; this version reads True"),
        ("mix", None, "it must map names of matrices to formats"),
        ("mix", ["q8"], "it must map names of matrices to formats"),
        ("mix", {"norm.weight": "q8"}, "names 'norm.weight', which is not a matrix"),
        ("mix", {"head.weight": "q3"}, "stores head.weight as 'q3'; it must be q8 or q4"),
        ("mix", {"head.weight": ["q8"]}, "stores head.weight as ['q8']; it must be q8 or q4"),
    ],
)
def test_a_layout_of_another_version_is_named(quantised, tmp_path, key, value, says):
    shutil.copytree(quantised, tmp_path / "m")
    config = json.loads((tmp_path / "m/config.json").read_text())
    config["quantization"][key] = value
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    assert says in refused(tmp_path / "m")


def test_more_layers_than_tensors_are_named(quantised, tmp_path):
    shutil.copytree(quantised, tmp_path / "m")
    config = json.loads((tmp_path / "m/config.json").read_text())
    (tmp_path / "m/config.json").write_text(json.dumps(config | {"n_layer": 10**9}))
    assert "names 1000000000 layers" in refused(tmp_path / "m")


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_truncated_file_is_named(quantised, tmp_path, kept):
    shutil.copytree(quantised, tmp_path / "m")
    whole = (tmp_path / "m/model.safetensors").read_bytes()
    (tmp_path / "m/model.safetensors").write_bytes(whole[:kept])
    assert "model.safetensors" in refused(tmp_path / "m")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_header_is_refused_or_harmless(quantised, tmp_path_factory, data):
    """Fuzz: whatever is in the length, the header and `config.json`, no crash and one line, or a model that runs."""
    path = tmp_path_factory.mktemp("damaged") / "m"
    shutil.copytree(quantised, path)
    file = path / data.draw(st.sampled_from(["model.safetensors", "config.json"]))
    damaged = bytearray(file.read_bytes())
    header = 8 + int.from_bytes(damaged[:8], "little") if file.suffix == ".safetensors" else len(damaged)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(damaged)
    try:
        load(path).score("the cat")
    except (ValueError, FileNotFoundError) as error:
        assert "\n" not in str(error)


def test_a_text_to_calibrate_with_brings_the_model_nearer(plain, byte_tokenizer, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("def mean(values):\n    return sum(values) / len(values)\n" * 60)
    weights, tokens = read_model(open_model(plain)), torch.tensor([byte_tokenizer.encode(text.read_text())[:64]])
    errors = []
    for options in ([], ["--overwrite", "--calibrate", str(text)]):
        main(["convert", str(plain), str(tmp_path / "q4"), "--quantize", "q4", *options])
        with torch.inference_mode():
            found = read_model(open_model(tmp_path / "q4"), dtype=torch.float32).hidden(tokens)
            errors.append((found - weights.hidden(tokens)).square().sum().item())
    assert errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quantize", "q4", "--calibrate", "short.txt"], "has 5 tokens; it needs at least 64"),
        (["--quantize", "q8", "--calibrate", "short.txt"], "only used with --quantize q4"),
        (["--quantize", "q4", "--calibrate", "none.txt"], "none.txt"),
    ],
)
def test_what_cannot_calibrate_is_said_in_one_line(plain, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("short")
    with pytest.raises(SystemExit) as stopped:
        main(["convert", str(plain), "target", *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "target").exists()
