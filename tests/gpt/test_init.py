"""A new model's weights: the same wherever and in whatever pieces they are drawn, and of the stated distributions."""

import math
from statistics import NormalDist

import pytest
import torch

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import DRAWN_AT_ONCE, draw, new_model, split_mix

CONFIG = GPTConfig(n_layer=2, d_model=64, n_head=2, vocab_size=259, n_ctx=64)
SPLIT_MIX_64 = (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431)
"""The first numbers of SplitMix64 from the seed 1234567, as its authors' C code prints them."""


def test_the_bits_are_those_of_the_published_generator():
    bits = split_mix(torch.arange(4), 1234567)
    assert [int(number) % 2**64 for number in bits] == list(SPLIT_MIX_64)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [((0, 259), (0, 64)), ((0, 1), (63, 64)), ((130, 259), (0, 64)), ((7, 200), (16, 48)), ((5, 5), (0, 64))],
)
def test_a_region_drawn_alone_is_that_of_the_whole(rows, columns, monkeypatch):
    whole = new_model(CONFIG, 3).head.weight
    monkeypatch.setitem(DRAWN_AT_ONCE, "cpu", 1000)  # which does not divide a row
    region = (slice(*rows), slice(*columns))
    assert torch.equal(draw(CONFIG, 3, "head.weight", whole.shape, region), whole[region])


def test_tensors_and_seeds_have_weights_of_their_own():
    one, other = new_model(CONFIG, 1), new_model(CONFIG, 2)
    drawn = [block.attention.q.weight.flatten() for model in (one, other) for block in model.blocks]
    correlations = torch.corrcoef(torch.stack([*drawn, one.blocks[0].attention.k.weight.flatten()])).fill_diagonal_(0)
    assert correlations.abs().max() < 5 / math.sqrt(64 * 64)


@pytest.mark.parametrize(
    ("name", "std", "cut"),
    [
        ("blocks.0.attention.q.weight", 1 / 16, 2),
        ("blocks.1.mlp.down.weight", 2 / 2 / 16, 2),
        ("head.weight", 1 / 16, 2),
        ("embed.weight", 0.02, 4),
    ],
)
def test_weights_are_normal_within_the_cut(name, std, cut):
    config = GPTConfig(n_layer=2, d_model=256, n_head=2, vocab_size=1000, n_ctx=64)
    found = new_model(config, 0).get_parameter(name).detach().flatten().double() / std
    assert 0.99 * cut < found.abs().max() <= cut or cut == 4
    normal = NormalDist()
    least = normal.cdf(-cut)
    for place in (-1.9, -1, -0.5, -0.1, 0, 0.3, 1, 1.5):
        expected = (normal.cdf(place) - least) / (1 - 2 * least)
        sigma = math.sqrt(expected * (1 - expected) / len(found))
        assert abs((found < place).double().mean() - expected) < 4.5 * sigma, place


def test_biases_are_zero_and_norms_one():
    model = new_model(CONFIG, 0)
    assert not any(bias.any() for name, bias in model.named_parameters() if name.endswith("bias"))
    assert all((weight == 1).all() for name, weight in model.named_parameters() if name.endswith("norm.weight"))


def test_the_weights_of_a_seed_never_change():
    weight = new_model(CONFIG, 0).head.weight
    assert weight[0, 0].item() == pytest.approx(0.199476, abs=5e-7)
    assert weight[0, 3].item() == pytest.approx(0.170090, abs=5e-7)
