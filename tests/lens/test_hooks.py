"""Activations equal TransformerLens's, and what is written is what the model goes on with."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bluejay.infer.model import Model
from bluejay.lens.activations import Lens
from bluejay.lens.hooks import block_names, expand
from tests.lens.families import FAMILIES, TOKENS, random_gpt

DATA = Path(__file__).with_name("data")
PROMPT = torch.tensor([TOKENS])


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, relative to the scale of what it should be."""
    seen = torch.isfinite(ours)
    return float((ours[seen] - theirs[seen]).abs().max() / theirs[seen].abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_all_activations_equal_transformer_lens(family, lenses):
    golden, run = load_file(DATA / f"{family}.safetensors"), lenses[family].run(PROMPT, ["*"])
    assert len(golden) > 30 and relative(run.logits, golden.pop("logits")) < 1e-5
    for name, theirs in golden.items():
        assert run[name].shape == theirs.shape, name
        assert relative(run[name], theirs) < 1e-5, name


def identities(lens: Lens) -> float:
    """The largest failure of the identities of the residual stream, relative to its scale."""
    run, found = lens.run(PROMPT, ["*"]), []
    stream = run["hook_embed"] + (run["hook_pos_embed"] if lens.config.learned_positions else 0)
    for layer, block in enumerate(lens.gpt.blocks):
        of = {name: run[f"blocks.{layer}.{name}"] for name in block_names(lens.config)}
        found.append(relative(of["hook_resid_pre"], stream))
        if not lens.config.parallel:
            found.append(relative(of["hook_resid_mid"], of["hook_resid_pre"] + of["hook_attn_out"]))
        stream = of["hook_resid_pre"] + of["hook_attn_out"] + of["hook_mlp_out"]
        found.append(relative(of["hook_resid_post"], stream))
        bias = block.attention.out.bias
        found.append(relative(of["attn.hook_result"].sum(2) + (0 if bias is None else bias), of["hook_attn_out"]))
        found.append(relative(of["attn.hook_attn_scores"].softmax(-1), of["attn.hook_pattern"]))
        of_heads = (("attn.q_norm", block.attention.q_norm), ("attn.k_norm", block.attention.k_norm))
        for prefix, norm in (("ln1", block.norm), *of_heads, ("ln2", block.mlp_norm)):
            if norm is not None:
                bias = 0 if norm.bias is None else norm.bias
                found.append(relative(of[f"{prefix}.hook_normalized"] * norm.weight + bias, of[f"{prefix}.hook_out"]))
        stream = of["hook_resid_post"]
    found.append(relative(lens.gpt.logits(run["ln_final.hook_out"]), run.logits))
    return max(found)


def test_the_residual_stream_is_the_sum_of_what_was_written_to_it(lens):
    assert identities(lens) < 1e-6


@pytest.mark.parametrize("change", ["scale", "norm"])
def test_the_identities_find_a_wrong_scale_and_a_folded_norm(change, byte_tokenizer, monkeypatch):
    lens = Lens(Model(random_gpt("gpt_neox_serial"), byte_tokenizer))
    if change == "scale":  # attention adds 0.1 % more to the stream than it says
        block = type(lens.gpt.blocks[1])
        monkeypatch.setattr(block, "_forward", lambda self, x, *rest: wrong(self, x, *rest))
    else:  # the gain of a norm is multiplied into the matrices that follow, as tools that fold norms do
        block = lens.gpt.blocks[0]
        monkeypatch.setattr(block.norm, "forward", lambda x: torch.layer_norm(x, x.shape[-1:], eps=block.norm.eps))
        for matrix in (block.attention.q, block.attention.k, block.attention.v):
            matrix.bias.add_(matrix.weight @ block.norm.bias)
            matrix.weight.mul_(block.norm.weight)
    assert identities(lens) > 1e-4


def wrong(block, x, rotation, visible, cache):
    attended = block.attention(block.norm(x), rotation, visible, cache)
    x = x + 1.001 * attended
    return x + block.mlp(block.mlp_norm(x))


def test_nothing_is_kept_but_what_was_asked_for(lens):
    run = lens.run(PROMPT, ["blocks.1.attn.hook_pattern", "blocks.*.hook_resid_post"])
    assert list(run) == ["blocks.0.hook_resid_post", "blocks.1.attn.hook_pattern", "blocks.1.hook_resid_post"]
    assert list(lens.run(PROMPT)) == [] and not any(module._forward_hooks for module in lens.gpt.modules())
    assert run.layers("hook_resid_post").shape == (2, 1, len(TOKENS), 16)


def test_what_is_written_back_unchanged_changes_nothing(lens):
    every = dict.fromkeys(lens.hooks, lambda x: x.clone())
    plain, written = lens.run(PROMPT), lens.run(PROMPT, ["*"], every)
    assert set(written) == set(lens.hooks) and relative(written.logits, plain.logits) < 1e-5


def test_every_activation_can_be_written(lens):
    plain = lens.run(PROMPT, ["*"])
    for name in lens.hooks:
        noise = torch.zeros_like(plain[name])
        if "attn_scores" in name or "pattern" in name:  # (B N T S): the third query, and a key that it sees
            noise[:, :, 2, 1] = 0.5
        elif "_norm." in name:  # (B N T H): the third token
            noise[:, :, 2] = 0.3
        else:
            noise[:, 2] = 0.1 + torch.randn(noise[:, 2].shape, generator=torch.Generator().manual_seed(1)).abs()
        changed = lens.run(PROMPT, [name], {name: lambda x, noise=noise: x + noise})
        assert relative(changed[name], plain[name] + noise) < 1e-5, name
        difference = (changed.logits - plain.logits).abs().amax(-1)[0]
        assert difference[:2].max() < 1e-5 < difference[2:].max(), f"{name}: only later positions see it"


def test_edits_of_one_activation_follow_each_other(lenses):
    lens, name = lenses["gptj"], "blocks.0.hook_resid_pre"
    plain = lens.run(PROMPT, [name])[name]
    edits = {"blocks.*.hook_resid_pre": lambda x: x + 1, name: lambda x: 2 * x}
    assert torch.equal(lens.run(PROMPT, [name], edits)[name], 2 * (plain + 1))
    assert torch.equal(lens.run(PROMPT, [name], dict(reversed(edits.items())))[name], 2 * plain + 1)


def test_an_edit_in_place_leaves_what_was_read_before_it(lenses):
    lens, read = lenses["gptj"], ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"]
    plain = lens.run(PROMPT, read)
    run = lens.run(PROMPT, read, {read[1]: lambda x: x.mul_(0)})
    assert torch.equal(run[read[0]], plain[read[0]]) and not run[read[1]].any()


def test_a_patched_residual_stream_is_another_prompts(lens):
    other = torch.tensor([[*TOKENS[:-1], 110]])
    for name in ("blocks.1.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"):
        value = lens.run(other, [name])[name]
        assert (
            relative(lens.run(PROMPT, write={name: lambda _, value=value: value}).logits, lens.run(other).logits) < 1e-5
        )


def test_a_middle_that_is_written_is_what_the_mlp_is_added_to(lenses):
    lens, name = lenses["gpt2"], "blocks.0.hook_resid_mid"
    run = lens.run(PROMPT, ["blocks.0.*"], {name: lambda x: 2 * x})
    assert torch.equal(run[name] + run["blocks.0.hook_mlp_out"], run["blocks.0.hook_resid_post"])


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("gptj", "blocks.1.attn.hook_patern", "the nearest is 'blocks.1.attn.hook_pattern'"),
        ("gptj", "blocks.0.hook_resid_mid", "attention and MLP of this model are parallel"),
        ("gptj", "blocks.*.hook_resid_mid", "attention and MLP of this model are parallel"),
        ("gpt2", "blocks.2.hook_resid_post", "the layers of this model are 0 to 1"),
        ("gpt2", "hook_embd", "the nearest is 'hook_embed'"),
        ("gpt2", "blocks.0.attn.hook_rot_q", "the nearest is 'blocks.0.attn.hook_"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(lenses, family, name, message):
    with pytest.raises(ValueError, match=message):
        expand(FAMILIES[family], [name])


def test_what_is_written_must_have_the_shape(lenses):
    with pytest.raises(ValueError, match=r"hook_resid_pre has the shape \(1, 7, 1\), not \(1, 7, 16\)"):
        lenses["gptj"].run(PROMPT, write={"blocks.0.hook_resid_pre": lambda x: x[..., :1]})
    with pytest.raises(ValueError, match="has the shape NoneType"):
        lenses["gptj"].run(PROMPT, write={"hook_embed": lambda _: None})


def test_what_is_written_goes_on_in_the_type_of_the_model(lenses):
    for name in ("hook_embed", "blocks.0.attn.hook_z", "blocks.1.mlp.hook_post"):
        run = lenses["gpt2"].run(PROMPT, [name], {name: lambda x: x.double() * 2})
        assert run[name].dtype == run.logits.dtype == torch.float32
