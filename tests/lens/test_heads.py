"""Patterns in their parts, and scores that find the heads that a model was built with."""

import dataclasses

import pytest
import torch

from bluejay.cli import main
from bluejay.evals.evaluation_file import identity_at
from bluejay.gpt.formats.layouts import save_model
from bluejay.gpt.init import new_model
from bluejay.gpt.model import GPT
from bluejay.gpt.presets import GPT2
from bluejay.infer.model import Model
from bluejay.lens.activations import Lens
from bluejay.lens.heads import SCORES, head_scores, heads_over_training, patterns, repeat_gain
from bluejay.lens.layers import logit_lens
from bluejay.lens.patching import head_edits, pair_of, patch
from bluejay.lens.prediction import look
from tests.lens.families import FAMILIES, TOKENS, random_gpt

PROMPT = torch.tensor([TOKENS])


def test_value_weighted_is_the_length_of_what_each_position_adds(lens):
    run = lens.run(PROMPT, ["*"])
    found, group = patterns(lens, run, 1), lens.config.n_head // lens.config.kv_heads
    for head in range(lens.config.n_head):
        width = lens.config.d_head
        out = lens.gpt.blocks[1].attention.out.weight[:, head * width : (head + 1) * width]
        added = run["blocks.1.attn.hook_v"][0, :, head // group] @ out.T  # (T D)
        expected = run["blocks.1.attn.hook_pattern"][0, head] * added.norm(dim=-1)
        assert torch.allclose(found.value_weighted[head], expected, atol=1e-5)
    assert torch.allclose(found.pattern.sum(-1), torch.ones(lens.config.n_head, len(TOKENS)))
    assert "head 1.0" in found._repr_html_()


def test_of_a_long_prompt_the_last_tokens_are_shown_and_it_is_said(byte_tokenizer):
    gpt = new_model(dataclasses.replace(FAMILIES["gpt2"], n_ctx=200), seed=0).requires_grad_(False)
    lens = Lens(Model(gpt, byte_tokenizer, "long"))
    ids = [97 + number % 26 for number in range(200)]
    shown, said = patterns(lens, ids, 0)._repr_html_(), "Of 200 tokens, those from 136 to 199 are shown."
    assert said in shown and shown.count("<td") == 2 * 64 * 64
    patched = patch(lens, pair_of(lens, ids, [5, *ids[1:]], 5, 9), "mlp")._repr_html_()
    assert said in patched and patched.count("<td") == 2 * 64
    assert said in logit_lens(lens, ids)._repr_html_() and said in logit_lens(lens, ids).html(-1)
    found = look(lens, ids, 99)._repr_html_()
    assert "Of 200 tokens, those from 36 to 99 are shown." in found and found.count(">layer 1<") == 2


def test_the_rotary_part_and_the_rest_add_up_to_the_scores(lens):
    for layer in (0, 1):
        found, name = patterns(lens, PROMPT, layer), f"blocks.{layer}.attn.hook_attn_scores"
        scores = lens.run(PROMPT, [name])[name][0]
        seen = torch.isfinite(scores)
        assert torch.allclose((found.rotary + found.content)[seen], scores[seen], atol=1e-5)
        assert (found.rotary.abs().max() > 0) == (lens.config.rotary != "none")
        assert (found.content.abs().max() > 0) == (lens.config.n_rotary < lens.config.d_head), "Llama rotates all"


def built(length: int, byte_tokenizer) -> Lens:
    """A model of one layer whose four heads look at fixed distances: 1, `length` and `length - 1`; the fourth looks
    nowhere in particular. The first copies what it looks at, the second takes it away."""
    config = dataclasses.replace(
        GPT2, n_layer=1, d_model=128, n_head=4, head_dim=128, vocab_size=259, n_ctx=2 * length + 2, d_ff=1, tied=False
    )
    gpt, n = GPT(config), config.n_ctx
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.zero_()
        for norm in (gpt.norm, gpt.blocks[0].norm, gpt.blocks[0].mlp_norm):
            norm.weight.fill_(1)
        gpt.embed.weight.copy_(0.01 * torch.randn(259, 128, generator=generator))
        gpt.head.weight.copy_(gpt.embed.weight)
        gpt.position.weight[:, :n] = torch.eye(n)
        attention = gpt.blocks[0].attention
        for head, distance in enumerate((1, length, length - 1)):
            shift = torch.zeros(128, 128)
            shift[:n, :n] = 3 * torch.diag(torch.ones(n - distance), distance)
            attention.q.weight[head * 128 : (head + 1) * 128] = shift
            attention.k.weight[head * 128 : (head + 1) * 128] = torch.eye(128)
        for head, sign in ((0, 1), (1, -1)):
            attention.v.weight[head * 128 : (head + 1) * 128] = torch.eye(128)
            attention.out.weight[:, head * 128 : (head + 1) * 128] = sign * torch.eye(128)
    return Lens(Model(gpt.requires_grad_(False), byte_tokenizer, "built"))


def test_scores_find_the_heads_that_a_model_was_built_with(byte_tokenizer):
    scores = head_scores(built(12, byte_tokenizer), length=12, sequences=2)
    assert scores.largest("previous_token", 1)[0][:2] == (0, 0) and scores.previous_token[0, 0] > 0.9
    assert scores.largest("duplicate_token", 1)[0][:2] == (0, 1) and scores.duplicate_token[0, 1] > 0.9
    assert scores.largest("induction", 1)[0][:2] == (0, 2) and scores.induction[0, 2] > 0.9
    assert scores.induction[0, [0, 1, 3]].max() < 0.2
    assert scores.copying[0, 0] > 0.99 and scores.copying[0, 1] < -0.99
    assert set(scores.as_dict()) == set(SCORES) and "induction" in scores.text()


def test_a_copy_is_easier_to_predict_only_where_heads_copy(byte_tokenizer):
    lens = built(12, byte_tokenizer)
    # The head that looks at the token after the earlier copy writes it.
    out = lens.gpt.blocks[0].attention
    out.v.weight[256:384] = out.out.weight[:, 256:384] = 3 * torch.eye(128)
    gain = repeat_gain(lens, 12, 4)
    without = repeat_gain(lens, 12, 4, write=dict(head_edits(lens, [(0, 2)], lambda _: 0.0)))
    assert gain > without + 0.001


def test_heads_over_the_checkpoints_of_a_run(tmp_path, byte_tokenizer, capsys):
    with pytest.raises(FileNotFoundError, match="has no models"):
        heads_over_training(tmp_path)
    for name in ("model-step-10", "model-step-2", "model"):
        save_model(random_gpt("gptj"), byte_tokenizer, tmp_path / name)
    for name in ("model-step-2-q4", "model-step-10.partial", "model-final"):
        (tmp_path / name).mkdir()
    (tmp_path / "model-step-10.gguf").touch()
    found = heads_over_training(str(tmp_path))
    assert found.as_dict()["identity"] == identity_at(tmp_path / "model")
    assert found.steps == ["step-2", "step-10", "model"] and len(found.scores) == len(found.repeat_gain) == 3
    assert torch.equal(found.scores[0].induction, found.scores[2].induction)
    main(["lens", str(tmp_path), "--heads"])
    assert capsys.readouterr().out.count("\nstep-") == 2 and "step-10" in found._repr_html_()


def test_a_random_model_has_no_induction_heads(lens):
    scores = head_scores(lens, length=11, sequences=8)
    assert scores.induction.max() < 0.4 and scores.copying.abs().max() <= 1


def test_what_is_not_there_is_said(lenses):
    with pytest.raises(ValueError, match="there is no layer 2; the layers of this model are 0 to 1"):
        patterns(lenses["gptj"], PROMPT, 2)
    with pytest.raises(ValueError, match="the length is 12; for this model it must be from 2 to 11"):
        head_scores(lenses["gptj"], length=12)
