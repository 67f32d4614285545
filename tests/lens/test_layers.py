"""Both lenses: the last place is the model itself, and a tuned lens comes nearer than none."""

import math

import numpy as np
import pytest
import torch

from bluejay.gpt.formats.companions import TUNED_LENS
from bluejay.infer.model import Model
from bluejay.lens import layers
from bluejay.lens.activations import Lens
from bluejay.lens.layers import TunedLens, logit_lens, tune
from bluejay.lens.prediction import look
from tests.lens.families import TOKENS, random_gpt

PROMPT = torch.tensor([TOKENS])


def test_each_place_is_the_head_on_the_residual_stream(lens):
    run = lens.run(PROMPT, ["*"])
    found = logit_lens(lens, PROMPT)
    final = run.logits[0].log_softmax(-1)
    for place in range(lens.config.n_layer + 1):
        name = "blocks.0.hook_resid_pre" if place == 0 else f"blocks.{place - 1}.hook_resid_post"
        logprobs = lens.gpt.logits(lens.gpt.norm(run[name]))[0].log_softmax(-1)
        assert torch.equal(found.top_ids[place], logprobs.argmax(-1))
        assert torch.allclose(found.probability[place], logprobs.max(-1).values.exp(), atol=1e-5)
        entropy = -(logprobs.exp() * logprobs).sum(-1) / math.log(2)
        kl = (final.exp() * (final - logprobs)).sum(-1) / math.log(2)
        rank = (logprobs > logprobs.gather(1, final.argmax(-1)[:, None])).sum(-1)
        assert torch.allclose(found.entropy[place], entropy, atol=1e-4)
        assert torch.allclose(found.kl[place], kl, atol=1e-4)
        assert torch.equal(found.rank[place], rank)
    assert found.rank[-1].max() == 0 and found.kl[-1].abs().max() < 1e-5
    assert "logit lens" in found._repr_html_()


def test_some_positions_are_as_in_all(lenses):
    lens = lenses["llama"]
    every, some = logit_lens(lens, PROMPT), logit_lens(lens, PROMPT, positions=[2, -1])
    assert some.tokens == [every.tokens[2], every.tokens[-1]]
    assert torch.equal(some.top_ids, every.top_ids[:, [2, -1]])
    with pytest.raises(ValueError, match="no position 9"):
        logit_lens(lens, PROMPT, positions=[9])
    with pytest.raises(ValueError, match="there is no position to read the layers at"):
        logit_lens(lens, PROMPT, positions=[])


def test_a_tuned_lens_comes_nearer_and_is_read_again(byte_tokenizer, tmp_path):
    lens = Lens(Model(random_gpt("gpt2"), byte_tokenizer, "small", path=tmp_path))
    tokens = torch.randint(256, (3000,), generator=torch.Generator().manual_seed(0))
    tuned = tune(lens, tokens, steps=60)
    assert all(after < 0.8 * before for before, after in zip(tuned.logit_kl, tuned.tuned_kl, strict=True))
    assert tuned.text().splitlines()[1].startswith("embedding  ") and "<td" in tuned._repr_html_()
    assert tuned.lens.save(lens) == tmp_path / TUNED_LENS
    (tmp_path / "other").touch()
    assert (tmp_path / TUNED_LENS).stat().st_mode == (tmp_path / "other").stat().st_mode
    again = TunedLens.load(lens)
    assert torch.equal(again.weight, tuned.lens.weight)
    found = logit_lens(lens, PROMPT, again)
    assert found.kind == "tuned" and found.kl[0].mean() < logit_lens(lens, PROMPT).kl[0].mean()
    zero = TunedLens(torch.zeros_like(again.weight), torch.zeros_like(again.bias))
    assert torch.allclose(logit_lens(lens, PROMPT, zero).kl, logit_lens(lens, PROMPT).kl)


def test_a_tuned_lens_of_another_model_is_refused(byte_tokenizer, tmp_path):
    lens = Lens(Model(random_gpt("gpt2"), byte_tokenizer, "small", path=tmp_path))
    with pytest.raises(FileNotFoundError, match="small has no tuned lens; train one"):
        TunedLens.load(lens)
    TunedLens(torch.zeros(2, 8, 8), torch.zeros(2, 8)).save(lens)
    with pytest.raises(ValueError, match="is not the tuned lens of these weights"):
        TunedLens.load(lens)
    zeros = TunedLens(torch.zeros(2, 16, 16), torch.zeros(2, 16))
    for name in ("embed.weight", "blocks.0.attention.q.weight", "blocks.1.mlp.up.bias", "norm.weight"):
        other = random_gpt("gpt2")
        other.get_parameter(name).mul_(1.01)
        zeros.save(Lens(Model(other, byte_tokenizer, "other", path=tmp_path)))
        with pytest.raises(ValueError, match="is not the tuned lens of these weights; train it again with --tune"):
            TunedLens.load(lens)
    assert zeros.save(lens) == tmp_path / TUNED_LENS and TunedLens.load(lens).weight.shape == (2, 16, 16)
    (tmp_path / TUNED_LENS).write_bytes((tmp_path / TUNED_LENS).read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged; train it again with --tune"):
        TunedLens.load(lens)
    (tmp_path / "small.gguf").touch()
    lens.path = tmp_path / "small.gguf"
    assert zeros.save(lens).name == "small.tuned_lens.safetensors" and TunedLens.load(lens)
    with pytest.raises(ValueError, match="the text has 40 tokens; a tuned lens needs at least 48"):
        tune(lens, torch.zeros(40, dtype=torch.long))


@pytest.mark.parametrize("kind", [list, np.array])
def test_a_tuned_lens_is_trained_on_ids_of_any_kind(lenses, kind):
    ids = [number % 250 for number in range(100)]
    found, same = (tune(lenses["gpt2"], given, steps=2, length=10) for given in (kind(ids), torch.tensor(ids)))
    assert found.as_dict() == same.as_dict()
    text = "the cat sat on the mat " * 6
    texts = (text, lenses["gpt2"].tokenizer.encode(text))
    found, same = (tune(lenses["gpt2"], given, steps=2, length=10) for given in texts)
    assert found.as_dict() == same.as_dict()
    with pytest.raises(ValueError, match=r"the token ids have the shape \(1, 100\); a tuned lens takes one list"):
        tune(lenses["gpt2"], torch.tensor([ids]))
    for name in ("steps", "length", "batch"):
        with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
            tune(lenses["gpt2"], kind(ids), **{name: 0})


def test_a_tuned_lens_that_cannot_be_saved_is_not_trained(byte_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "tune", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(ValueError, match="small has no folder to save a tuned lens in"):
        layers.tune_and_save(Lens(Model(random_gpt("gpt2"), byte_tokenizer, "small")), "the cat")
    (tmp_path / TUNED_LENS).mkdir()
    with pytest.raises(ValueError, match="is a folder; name a file"):
        layers.tune_and_save(Lens(Model(random_gpt("gpt2"), byte_tokenizer, "small", path=tmp_path)), "the cat")


def test_a_look_at_one_position_is_one_run_and_says_what_the_look_at_all_says(lens, monkeypatch):
    runs, run = [], lens.run
    monkeypatch.setattr(lens, "run", lambda *given, **named: runs.append(1) or run(*given, **named))
    one, whole = look(lens, TOKENS, 2, everywhere=False), look(lens, TOKENS, 2)
    assert len(runs) == 2 and one.layers.top == [[row[2]] for row in whole.layers.top]
    assert torch.allclose(one.layers.kl[:, 0], whole.layers.kl[:, 2], atol=1e-4)
    assert one.attribution.logit == pytest.approx(whole.attribution.logit, abs=1e-4)
    assert one.text().splitlines()[0] == whole.text().splitlines()[0]
