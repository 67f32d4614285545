"""A lens of a model: its weights, its threads, what it saves, and what it refuses."""

import dataclasses
import inspect
import re
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import bluejay
import bluejay.lens
from bluejay.gpt.formats.layouts import convert, save_model
from bluejay.gpt.init import new_model
from bluejay.infer.exceptions import ContextLengthError
from bluejay.infer.model import Model, load
from bluejay.lens import activations as activations_module
from bluejay.lens.ablation import without_tokens
from bluejay.lens.activations import Lens, integer
from bluejay.lens.attribution import attribute
from bluejay.lens.heads import patterns
from bluejay.lens.layers import logit_lens
from bluejay.lens.prediction import look
from tests.lens.families import TOKENS, random_gpt


def test_the_lens_says_what_the_served_model_says(tiny_model):
    lens, text = tiny_model.lens(), "the cat"
    assert isinstance(lens, bluejay.Lens)
    assert torch.allclose(lens.run(text).logits[0], tiny_model.logits(text), atol=1e-4)
    assert lens.gpt.embed.weight.data_ptr() == tiny_model.gpt.embed.weight.data_ptr(), "float32 weights are shared"
    assert lens.gpt is not tiny_model.gpt, "its hooks are its own"


def test_weights_of_other_types_are_converted(byte_tokenizer, tiny_config):
    gpt = new_model(tiny_config, seed=0).requires_grad_(False)
    half = Model(gpt.to(torch.bfloat16), byte_tokenizer, "half")
    lens = half.lens()
    assert lens.run("the").logits.dtype == torch.float32 and half.gpt.embed.weight.dtype == torch.bfloat16
    assert torch.allclose(lens.run("the").logits[0], half.logits("the"), atol=0.05)


def test_a_packed_model_is_unpacked_or_its_bytes_are_said(tmp_path, byte_tokenizer, monkeypatch):
    config = dataclasses.replace(random_gpt("gptj").config, d_model=64, rotary_dim=16)
    save_model(new_model(config, seed=0), byte_tokenizer, tmp_path / "whole")
    convert(tmp_path / "whole", tmp_path / "packed", quantize="q8")
    packed, whole = load(tmp_path / "packed"), load(tmp_path / "whole")
    assert torch.allclose(packed.lens().run("the").logits, whole.lens().run("the").logits, atol=0.05)
    monkeypatch.setattr(activations_module, "free_memory", lambda: 1000)
    n_bytes = 4 * config.n_parameters / 1e9
    with pytest.raises(ValueError, match=rf"needs its weights in float32, {n_bytes:.1f} GB; 0.0 GB are free"):
        packed.lens()


def test_threads_do_not_see_each_others_hooks(tiny_model):
    lens = tiny_model.lens()
    plain, wrong = lens.run("the cat").logits, []

    def disturb():
        for _ in range(20):
            lens.run("the cat", write={"hook_embed": torch.zeros_like})

    thread = threading.Thread(target=disturb)
    thread.start()
    for _ in range(20):
        wrong.append(not torch.equal(lens.run("the cat").logits, plain))
        wrong.append(not torch.allclose(tiny_model.logits("the cat"), plain[0], atol=1e-4))
    thread.join()
    assert not any(wrong)


@pytest.mark.parametrize("kind", [Path, str])
def test_activations_are_saved_by_their_names(lenses, tmp_path, kind):
    lens = lenses["llama"]
    run = lens.run(TOKENS, ["blocks.*.attn.hook_pattern", "blocks.*.hook_resid_p*"])
    run.save(kind(tmp_path / "found.safetensors"))
    read = load_file(tmp_path / "found.safetensors")
    (tmp_path / "other").touch()
    assert (tmp_path / "found.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert set(read) == {*run, "tokens", "logits"} and read["tokens"].tolist() == [TOKENS]
    assert all(torch.equal(read[name], run[name]) for name in run)


def test_a_run_that_has_what_is_needed_is_not_repeated(lenses):
    run = lenses["gpt2"].run(TOKENS, ["hook_embed"])
    assert lenses["gpt2"].read(run, ["hook_embed"]) is run
    assert set(lenses["gpt2"].read(run, ["hook_pos_embed"])) == {"hook_pos_embed"}


def test_a_run_from_a_layer_on_and_its_last_logits_are_those_of_the_whole(lens):
    whole = lens.run(TOKENS, ["*"])
    name = "blocks.1.hook_resid_pre"
    part = lens.run(TOKENS, ["blocks.1.*"], {name: lambda _: whole[name]}, first_layer=1, only=-1)
    assert part.logits.shape == (1, 1, lens.config.vocab_size)
    assert torch.allclose(part.logits, whole.logits[:, -1:], atol=1e-5)
    assert all(torch.allclose(part[one], whole[one], atol=1e-5) for one in part)
    assert torch.equal(lens.run(TOKENS).logits, lens.run(TOKENS).logits) and "forward" not in vars(lens.gpt.blocks[0])


def test_the_layers_of_one_name_and_no_other_are_stacked(lenses):
    lens = lenses["gpt2"]
    run = lens.run(TOKENS, ["*"])
    assert torch.equal(run.layers("ln1.hook_out"), torch.stack([run[f"blocks.{i}.ln1.hook_out"] for i in range(2)]))
    for name in ("hook_out", "pattern"):
        with pytest.raises(ValueError, match=f"this run has no {name}; it was read with hook_embed, .* more"):
            run.layers(name)
    with pytest.raises(KeyError, match=r"this run has no blocks\.0\.hook_mlp_out; it was read with hook_embed"):
        lens.run(TOKENS, "hook_embed")["blocks.0.hook_mlp_out"]


@pytest.mark.parametrize("five", [5, np.int64(5), torch.tensor(5)])
def test_numbers_of_arrays_are_numbers(lenses, five):
    lens, one = lenses["gptj"], five // 5
    assert attribute(lens, TOKENS, five, five).as_dict() == attribute(lens, TOKENS, 5, 5).as_dict()
    assert (lens.layer(one), lens.head(one), lens.neuron(five), lens.token(five)) == (1, 1, 5, 5)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (partial(attribute, target=torch.ones(3)), r"a token is a text or an id, not tensor\(\[1., 1., 1.\]\)"),
        (partial(attribute, target=True), "a token is a text or an id, not True"),
        (partial(patterns, layer=torch.tensor(1.0)), r"a layer is an integer, not tensor\(1.\)"),
        (lambda lens, _: lens.head(True), "a head is an integer, not True"),
        (lambda _, __: integer("1", "a layer is an integer"), "a layer is an integer, not '1'"),
        (lambda _, __: integer(1.0, "a layer is an integer"), "a layer is an integer, not 1.0"),
    ],
)
def test_what_is_no_number_is_said(lenses, method, message):
    with pytest.raises(ValueError, match=message):
        method(lenses["gptj"], TOKENS)


@pytest.mark.parametrize("method", [logit_lens, partial(patterns, layer=0)])
def test_a_position_of_a_result_counts_from_the_end_where_it_is_negative(lenses, method):
    found, n_tokens = method(lenses["gptj"], TOKENS), len(TOKENS)
    assert found.as_dict(-1) == found.as_dict(n_tokens - 1) != found.as_dict(0)
    for number in (n_tokens, -n_tokens - 1):
        with pytest.raises(ValueError, match=f"there is no position {number} in a prompt of {n_tokens} tokens"):
            found.as_dict(number)


def test_several_prompts_of_one_length(lenses):
    run = lenses["gptj"].run([[1, 2, 3], [4, 5, 6]], ["hook_embed"])
    assert run["hook_embed"].shape == (2, 3, 16)
    with pytest.raises(ValueError, match="the prompts have 2 and 3 tokens; they must have equally many"):
        lenses["gptj"].run([[1, 2], [4, 5, 6]])
    with pytest.raises(ValueError, match="one prompt is looked into at a time; there are 2"):
        lenses["gptj"].read([[1, 2], [4, 5]], ["hook_embed"])
    with pytest.raises(ValueError, match="there is no prompt"):
        lenses["gptj"].run([])
    with pytest.raises(ContextLengthError, match="has 25 tokens; this model's maximum context length is 24"):
        lenses["gptj"].run([1] * 25)


@pytest.mark.parametrize("method", [look, logit_lens, attribute, without_tokens, partial(patterns, layer=0)])
def test_of_a_run_of_several_prompts_none_is_chosen_silently(lenses, method):
    run = lenses["gptj"].run([[1, 2, 3], [4, 5, 6]], ["*"])
    with pytest.raises(ValueError, match="one prompt is looked into at a time; there are 2"):
        method(lenses["gptj"], run)


def test_a_changed_run_is_explained_as_it_was_or_not_at_all(lenses):
    lens, zero = lenses["gptj"], {"blocks.0.attn.hook_z": torch.zeros_like}
    whole, part = lens.run(TOKENS, ["*"], zero), lens.run(TOKENS, ["hook_embed"], zero)
    found = attribute(lens, whole)
    assert found.logit == pytest.approx(float(whole.logits[0, -1].max()), abs=1e-5) and found.error < 1e-5
    assert not found.heads[0].any() and found.heads[1].all()
    for method in (look, logit_lens, attribute):
        with pytest.raises(ValueError, match="this run was changed by write or past and lacks blocks"):
            method(lens, part)
    with pytest.raises(ValueError, match="give a prompt, whose tokens are left out in other runs"):
        without_tokens(lens, whole)


def test_one_name_of_an_activation_is_a_list_of_it(lenses):
    assert set(lenses["gptj"].run(TOKENS, "hook_embed")) == {"hook_embed"}


def test_a_look_says_which_engine_else_computes(lenses, monkeypatch):
    monkeypatch.setenv("BLUEJAY_ISA", "torch")
    model = Model(random_gpt("gptj"), lenses["gptj"].tokenizer)
    assert model.lens().note == "" and not look(model.lens(), TOKENS).text().endswith("differently")
    half = Model(random_gpt("gptj").to(torch.bfloat16), lenses["gptj"].tokenizer)
    assert (
        look(half.lens(), TOKENS).text().endswith("torch in bfloat16, which generates and serves, rounds differently")
    )
    found = look(half.lens(), TOKENS)
    assert found.as_dict()["note"] == half.lens().note and found._repr_html_().endswith(f"<p>{half.lens().note}</p>")


def test_a_closed_model_is_not_looked_into(byte_tokenizer):
    model = Model(random_gpt("gpt2"), byte_tokenizer)
    model.close()
    with pytest.raises(bluejay.ModelClosedError):
        model.lens()


def test_public_names_exist():
    import bluejay.lens as wing

    assert all(getattr(wing, name) is not None for name in wing.PUBLIC) and set(wing.PUBLIC) <= set(dir(wing))
    assert Lens is wing.Lens
    with pytest.raises(AttributeError, match="no attribute 'lense'"):
        _ = wing.lense


def test_parameters_are_called_as_the_documentation_calls_them():
    page = Path(__file__).parents[2] / "docs" / "lens.md"
    methods = page.read_text(encoding="utf-8").partition("## Methods")[2].partition("Each result")[0]
    shown = re.findall(r"`(?:TunedLens\.)?(\w+)\((\w[^)`]*)\)", methods)
    assert len(shown) > 12
    for name, given in shown:
        function = getattr(bluejay.lens, name, None) or getattr(bluejay.lens.TunedLens, name)
        names = list(inspect.signature(function).parameters)
        places = [names.index(one) for one in given.split(", ")]
        assert places[0] == 0 and places == sorted(places)
