"""Activations that are patched: what comes out equals runs done by hand."""

import pytest
import torch

from bluejay.infer.model import load
from bluejay.lens.patching import head_curve, head_edits, induction_prompts, pair_of, patch, patch_heads
from tests.evals.smollm2 import float32_directory
from tests.lens.families import TOKENS

CLEAN, CORRUPT = TOKENS, [TOKENS[0], 99, *TOKENS[2:]]
LONG = [(TOKENS[at % 7] + at) % 250 for at in range(20)]

TWO_FAMILIES = pytest.mark.parametrize("lens", ["gptj", "gpt_neox_serial"], indirect=True)
"""For what does not depend on where the hooks of a family are."""


@pytest.mark.parametrize("part", ["residual", "attention", "mlp", "heads"])
def test_a_patch_is_a_run_with_one_activation_of_the_other_prompt(part, lens):
    pair = pair_of(lens, CLEAN, CORRUPT, 5, 9)
    found = patch(lens, pair, part)
    assert pair.same == 1, "the first token is the same in both"
    hook = {"residual": "hook_resid_pre", "attention": "hook_attn_out", "mlp": "hook_mlp_out", "heads": "attn.hook_z"}
    name = f"blocks.1.{hook[part]}"
    for column in (0, 1, -1):
        where = (slice(None), slice(None), column) if part == "heads" else (slice(None), column)

        def edit(x, where=where):
            x = x.clone()
            x[where] = pair.clean[name][where]
            return x

        logits = lens.run(CORRUPT, write={name: edit}).logits
        assert float(found.recovered[1, column]) == pytest.approx(float(pair.recovered(logits)), rel=1e-3, abs=1e-3)
    assert found.recovered.shape == (2, lens.config.n_head if part == "heads" else len(TOKENS))
    assert part in found.text() and part in found._repr_html_()


@pytest.mark.parametrize("part", ["attention", "mlp"])
def test_a_patch_far_into_a_prompt_is_a_run_too(part, lens):
    pair = pair_of(lens, LONG, [*LONG[:4], 99, *LONG[5:]], 5, 9, [part])
    found, name = patch(lens, pair, part), f"blocks.0.hook_{'attn' if part == 'attention' else part}_out"

    def edit(x):
        return torch.cat((x[:, :17], pair.clean[name][:, 17:18], x[:, 18:]), 1)

    logits = lens.run(pair.corrupt.tokens, write={name: edit}).logits
    assert float(found.recovered[0, 17]) == pytest.approx(float(pair.recovered(logits)), rel=1e-3, abs=1e-3)


def test_the_changed_position_brings_back_everything(lens):
    pair = pair_of(lens, CLEAN, CORRUPT, 5, 9)
    found = patch(lens, pair, "residual")
    assert float(found.recovered[0, 1]) == pytest.approx(1, abs=1e-3)
    assert found.recovered[0, [0, 2, 3]].abs().max() < 1e-3
    assert found.largest(1) == [(0, 1)] or float(found.recovered.max()) > 1


@TWO_FAMILIES
def test_no_number_of_heads_is_enough_for_more_than_all(lens):
    pair = pair_of(lens, CLEAN, CORRUPT, 5, 9)
    found = head_curve(lens, pair, random_sets=2)
    most = max(found.recovered)
    assert found.enough(most)[0] == found.sizes[found.recovered.index(most)]
    with pytest.raises(ValueError, match="no number of heads brings back"):
        found.enough(most + 1)


def test_heads_together(lens):
    pair = pair_of(lens, CLEAN, CORRUPT, 5, 9)
    one = patch(lens, pair, "heads")
    assert patch_heads(lens, pair, [(1, 0)]) == pytest.approx(float(one.recovered[1, 0]), rel=1e-3, abs=1e-3)
    assert patch_heads(lens, pair, []) == pytest.approx(0, abs=1e-3)
    everything = dict(head_edits(lens, [(layer, head) for layer in (0, 1) for head in (0, 1)], lambda _: 0.0))
    run = lens.run(CLEAN, ["blocks.*.attn.hook_z"], everything)
    assert all(value[:, :, :2].abs().max() == 0 for value in run.values())


@TWO_FAMILIES
def test_more_heads_bring_back_more_and_all_of_them_are_the_last_of_the_curve(lens):
    pair = pair_of(lens, CLEAN, CORRUPT, 5, 9)
    found, n = head_curve(lens, pair, random_sets=3), lens.config.n_layer * lens.config.n_head
    assert found.sizes[-1] == n and sorted(found.order) == sorted(patch(lens, pair, "heads").largest(n))
    assert found.recovered[0] == pytest.approx(float(patch(lens, pair, "heads").recovered.max()), rel=1e-3, abs=1e-3)
    assert found.random[:, -1].tolist() == pytest.approx([found.recovered[-1]] * 3, rel=1e-3, abs=1e-3)
    assert "3 random sets" in found.text() and "best heads" in found._repr_html_()


@TWO_FAMILIES
def test_the_next_head_of_the_curve_is_the_one_that_adds_most(lens):
    pair = pair_of(lens, CLEAN, CORRUPT, 5, 9)
    order = head_curve(lens, pair, random_sets=1).order
    for n in range(3):
        brought_back = [patch_heads(lens, pair, [*order[:n], head]) for head in order[n:]]
        assert brought_back[0] == pytest.approx(max(brought_back), abs=1e-4)


@TWO_FAMILIES
def test_a_curve_of_several_pairs_is_the_mean_of_theirs(lens):
    pairs = [pair_of(lens, CLEAN, CORRUPT, 5, 9), pair_of(lens, CORRUPT, CLEAN, 3, 8)]
    found = head_curve(lens, pairs, random_sets=2)
    for number, size in enumerate(found.sizes):
        each = [patch_heads(lens, pair, found.order[:size]) for pair in pairs]
        assert found.by_pair[:, number].tolist() == pytest.approx(each, abs=1e-3)
        assert found.recovered[number] == pytest.approx(sum(each) / 2, abs=1e-3)
    assert "mean of 2 pairs" in found.text()


@pytest.mark.slow  # three minutes, and SmolLM2 in a package
def test_few_heads_of_a_trained_model_continue_what_was_said_before(tmp_path):
    lens = load(float32_directory(tmp_path)).lens()
    pairs = [pair_of(lens, *induction_prompts(lens, seed=seed), ("heads",)) for seed in range(8)]
    found = head_curve(lens, pairs)
    heads, random = found.enough(0.9)
    assert heads <= lens.config.n_layer * lens.config.n_head / 4
    assert len(found.random) == 20 and random < 0.3
    assert all(float(pair.difference(pair.clean.logits)) > 0 for pair in pairs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda lens: pair_of(lens, [1, 2, 3], [1, 2]),
            "have 3 and 2 tokens; activations are patched between",
        ),
        (lambda lens: pair_of(lens, "abc", "abcdef", 5, 9), "tokens; activations are patched between prompts of equal"),
        (lambda lens: pair_of(lens, [1, 2], [1, 2]), "both prompts are followed by .*; name two tokens"),
        (lambda lens: pair_of(lens, [1, 2], [1, 2], 5, 9), "the same difference of logits"),
        (
            lambda lens: patch(lens, pair_of(lens, CLEAN, CORRUPT, 5, 9), "neurons"),
            "part is 'neurons'; it must be",
        ),
        (lambda lens: patch_heads(lens, pair_of(lens, CLEAN, CORRUPT, 5, 9), [(2, 0)]), "there is no layer 2"),
        (lambda lens: patch_heads(lens, pair_of(lens, CLEAN, CORRUPT, 5, 9), [(0, 2)]), "there is no head 2"),
        (lambda lens: head_curve(lens, []), "there are 0 pairs and 20 random sets; a curve needs one of each"),
    ],
)
def test_what_cannot_be_is_said(call, message, lenses):
    with pytest.raises(ValueError, match=message):
        call(lenses["gpt_neox"])


def test_a_part_that_the_pair_was_not_made_for_is_said(lenses):
    pair = pair_of(lenses["gptj"], CLEAN, CORRUPT, 5, 9, "heads")
    with pytest.raises(ValueError, match=r"the pair was made for heads; make it with parts=\('mlp',\)"):
        patch(lenses["gptj"], pair, "mlp")
    pair = pair_of(lenses["gptj"], CLEAN, CORRUPT, 5, 9, ("mlp", "residual"))
    with pytest.raises(ValueError, match="the pair was made for residual and mlp"):
        patch_heads(lenses["gptj"], pair, [(0, 0)])
