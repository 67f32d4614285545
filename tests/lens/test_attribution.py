"""The terms of an attribution are what each part wrote, and they add up to the logit."""

import dataclasses

import pytest
import torch

from bluejay.lens.attribution import attribute, attribution_needs
from tests.lens.families import TOKENS

PROMPT = torch.tensor([TOKENS])


@pytest.mark.parametrize("position", [0, 3, -1])
def test_the_terms_add_up_to_the_logit(lens, position):
    for target, against in ((None, None), (5, None), (5, 200)):
        found = attribute(lens, PROMPT, position, target, against)
        assert found.error < 1e-5
        logits = lens.run(PROMPT).logits[0, position]
        first = int(logits.argmax()) if target is None else target
        expected = logits[first] - (0 if against is None else logits[against])
        assert found.logit == pytest.approx(float(expected), abs=1e-5)
        assert found.total == pytest.approx(float(expected), abs=1e-4)
        assert torch.allclose(found.neurons.sum(1) + found.mlp_biases, found.mlps)


def test_a_term_is_the_product_of_what_was_written_with_the_tokens_row(lens):
    run = lens.run(PROMPT, ["*"])
    found, norm = attribute(lens, run, -1, 7), lens.gpt.norm
    row = lens.gpt.unembedding[0][7] * norm.weight

    def term(vector):
        centred = vector if norm.bias is None else vector - vector.mean()
        return float(centred @ row / run["ln_final.hook_scale"][0, -1])

    assert found.embedding == pytest.approx(term(run["hook_embed"][0, -1]), abs=1e-5)
    for layer in range(lens.config.n_layer):
        at = f"blocks.{layer}."
        assert float(found.mlps[layer]) == pytest.approx(term(run[at + "hook_mlp_out"][0, -1]), abs=1e-5)
        for head in range(lens.config.n_head):
            assert float(found.heads[layer, head]) == pytest.approx(
                term(run[at + "attn.hook_result"][0, -1, head]), abs=1e-5
            )


def test_an_error_would_be_seen(lens):
    """Where the scale of the last norm is wrong by a thousandth, the terms no longer add up."""
    run = lens.run(PROMPT, ["*"])
    run.found["ln_final.hook_scale"] = run["ln_final.hook_scale"] * 1.0001
    assert attribute(lens, run).error > 1e-5


@pytest.mark.parametrize("name", ["attn.hook_z", "attn.hook_pattern", "mlp.hook_post", "ln1.hook_scale"])
def test_what_was_written_to_the_terms_of_a_run_is_among_them(lens, name):
    run = lens.run(PROMPT, attribution_needs(lens.config), {f"blocks.1.{name}": lambda x: 0.5 * x})
    found = attribute(lens, run)
    assert found.error < 1e-5 and found.logit == pytest.approx(float(run.logits[0, -1].max()), abs=1e-5)


WRITTEN = ("hook_attn_out", "hook_mlp_out", "hook_resid_post", "attn.hook_result")


@pytest.mark.parametrize("name", [*(f"blocks.1.{name}" for name in WRITTEN), "ln_final.hook_out"])
def test_a_run_whose_terms_do_not_add_up_is_refused(lens, name):
    run = lens.run(PROMPT, attribution_needs(lens.config), {name: lambda x: 0 * x})
    with pytest.raises(
        ValueError, match=r"do not add up to its logit: .*; write attn\.hook_z or mlp\.hook_post instead"
    ):
        attribute(lens, run)


def test_a_run_of_another_model_is_refused(lenses):
    run = lenses["gptj"].run(PROMPT, ["*"])
    with pytest.raises(ValueError, match="or another model made it"):
        attribute(lenses["gpt_neox"], run)


def test_largest_terms_and_neurons(lenses):
    found = attribute(lenses["gpt2"], PROMPT)
    largest = found.largest(3)
    assert abs(largest[0][1]) == max(abs(value) for _, value in found.terms())
    layer, neuron, value = found.top_neurons(1)[0]
    assert value == float(found.neurons[layer, neuron]) and abs(value) == float(found.neurons.abs().max())
    assert found.as_dict()["total"] == found.total and "What made the logit" in found._repr_html_()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"position": 7}, "there is no position 7 in a prompt of 7 tokens"),
        ({"position": -8}, "there is no position -8"),
        ({"target": 259}, "there is no token 259"),
        ({"target": "the cat"}, "'the cat' is .* tokens .*; name one token"),
        ({"target": 104, "against": 104}, "target and against are both .*; name two tokens"),
    ],
)
def test_what_is_not_there_is_said(lenses, settings, message):
    with pytest.raises(ValueError, match=message):
        attribute(lenses["gptj"], PROMPT, **settings)


def test_the_likeliest_token_against_itself_is_refused_and_nothing_is_no_error(lenses):
    lens = lenses["gptj"]
    likeliest = int(lens.run(PROMPT).logits[0, -1].argmax())
    with pytest.raises(ValueError, match=r"target and against are both .*; name two tokens"):
        attribute(lens, PROMPT, against=likeliest)
    found = attribute(lens, PROMPT)
    zero = {name: 0 * getattr(found, name) for name in ("heads", "mlps", "neurons", "mlp_biases", "attention_biases")}
    numbers = dict.fromkeys(("logit", "embedding", "positions", "bias"), 0.0)
    assert dataclasses.replace(found, **zero, **numbers).error == 0
