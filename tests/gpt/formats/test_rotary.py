"""Rotary settings are computed as transformers computes them, from `config.json` and from GGUF files."""

import pytest
import torch

from bluejay.gpt.formats.gguf import open_gguf
from bluejay.gpt.formats.layouts import convert, open_model, read_model
from tests.gpt.formats.test_gguf import FIELDS, NO_TOKENS, write_gguf
from tests.gpt.formats.test_what_files_say import directory, same, set_json
from tests.gpt.random_models import random_model

SCALED = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 2.0}


def test_yarn_is_computed_as_users_add_it_and_a_limit_below_its_context_is_said(byte_tokenizer, tmp_path, capsys):
    path = directory(tmp_path / "m", "llama", byte_tokenizer)
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    set_json(path / "config.json", rope_parameters=None, rope_scaling=yarn)
    same(path)
    assert "YaRN makes contexts of 128 tokens, but max_position_embeddings is 32" in capsys.readouterr().err
    set_json(path / "config.json", max_position_embeddings=128, rope_scaling=yarn | {"factor": None})
    same(path)
    assert open_model(path).config.rotary_scaling.factor == 4 and "YaRN" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"rope_scaling": {"rope_type": "linear", "type": "default", "factor": 4.0}}),
        ("llama", {"rope_scaling": {"type": "default", "rope_type": "linear", "factor": 4.0}}),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
        ("llama", {"rope_scaling": {"rope_type": "llama3", **SCALED}}),
        ("llama", {"rope_scaling": {"rope_type": "llama3", **SCALED}, "original_max_position_embeddings": 8}),
        ("gpt_neox", {"rotary_pct": 0.5, "partial_rotary_factor": 1.0, "rope_parameters": None}),
        ("gpt_neox", {"rotary_pct": 0.5, "rope_scaling": {"rope_type": "default", "partial_rotary_factor": 1.0}}),
    ],
)
def test_rotary_settings_are_read_as_transformers_reads_them(family, changes, byte_tokenizer, tmp_path, capsys):
    path = directory(tmp_path / "m", family, byte_tokenizer)
    set_json(path / "config.json", **changes)
    same(path)
    assert ("partial_rotary_factor is 1; GPT-NeoX's is rotary_pct" in capsys.readouterr().err) == (
        "partial_rotary_factor" in changes
    )


@pytest.mark.parametrize(("family", "factor"), [("llama", 1.0), ("llama", 4.0), ("gpt_neox", 2.0)])
def test_linear_scaling_of_positions_is_computed_and_kept(family, factor, byte_tokenizer, tmp_path):
    rope = {"rope_type": "linear", "factor": factor, "rope_theta": 10000.0}
    share = {"partial_rotary_factor": 0.5} if family == "gpt_neox" else {}
    path = directory(tmp_path / "m", family, byte_tokenizer, rope_parameters=rope | share)
    same(path)
    convert(path, tmp_path / "copy")
    same(tmp_path / "copy")


@pytest.mark.parametrize(
    ("extra", "factor"),
    [
        ({"llama.rope.scale_linear": 4}, 4.0),  # the older name
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2}, 2.0),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 1}, 1.0),
        ({"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4}, 1.0),
    ],
)
def test_linear_scaling_of_positions_in_a_gguf_file_is_computed(extra, factor, tmp_path):
    rope = {"rope_type": "linear", "factor": factor, "rope_theta": 10000.0}
    model = random_model("llama", FIELDS["llama"] | NO_TOKENS | {"rope_parameters": rope}, 0)
    write_gguf(tmp_path / "model.gguf", model, **extra)
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        found = read_model(open_gguf(tmp_path / "model.gguf"))(tokens)
        assert (found - model(tokens).logits).abs().max() < 1e-4


def test_a_scaling_of_positions_that_is_not_llama_3s_is_refused(tmp_path):
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 1e4}
    fields = FIELDS["llama"] | NO_TOKENS | {"rope_parameters": rope | {"original_max_position_embeddings": 32}}
    write_gguf(tmp_path / "model.gguf", random_model("llama", fields, 0))
    with pytest.raises(ValueError, match=r"model\.gguf: rope_freqs\.weight is not Llama 3\.1's"):
        open_gguf(tmp_path / "model.gguf")
