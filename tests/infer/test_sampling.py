"""The sampling distribution equals that of transformers."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from bluejay.infer import sampling
from bluejay.infer.params import SamplingParams
from bluejay.infer.sampling import GREEDY, apply_penalties, bias_of, draw, filters_of, probabilities, uniform
from bluejay.native import native


@pytest.fixture(params=["torch", "native"])
def drawn(request, monkeypatch):
    """The function that draws, by each of its ways."""
    if request.param == "native" and native is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("the native engine is not built")
    monkeypatch.setattr(sampling, "native", native if request.param == "native" else None)
    return lambda logits, params, numbers: draw(logits, np.array([filters_of(one) for one in params]), numbers)


@settings(max_examples=80, deadline=None)
@given(
    vocabulary=st.sampled_from([1, 15, 50, 1000]),
    temperature=st.floats(0.1, 2.0),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.05, 1.0),
    min_p=st.sampled_from([0.0, 0.0, 0.02, 0.3, 1.0]),
    typical_p=st.sampled_from([1.0, 1.0, 0.2, 0.9]),
    seed=st.integers(0, 1000),
)
def test_distribution_equals_transformers(vocabulary, temperature, top_k, top_p, min_p, typical_p, seed):
    logits = (3 if seed % 2 else 0.3) * torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed))
    scores = TemperatureLogitsWarper(temperature)(None, logits[None])
    scores = TopKLogitsWarper(top_k)(None, scores) if top_k else scores
    scores = TopPLogitsWarper(top_p)(None, scores) if top_p < 1 else scores
    scores = MinPLogitsWarper(min_p)(None, scores) if min_p else scores
    scores = TypicalLogitsWarper(typical_p)(None, scores) if typical_p < 1 else scores
    cuts = {"top_k": top_k, "top_p": top_p, "min_p": min_p, "typical_p": typical_p}
    params = SamplingParams(temperature=temperature, **cuts)
    # Beside a row with other parameters.
    rows = np.array([GREEDY, filters_of(params)])
    kept = probabilities(torch.stack((logits, logits)), rows)
    torch.testing.assert_close(kept[1] / kept[1].sum(), scores[0].softmax(-1), atol=1e-6, rtol=1e-4)
    assert kept[0].nonzero().tolist() == [[int(logits.argmax())]]
    # The native engine draws the token at which torch's cumulative probabilities reach the number.
    cumulative = (kept[1].double() / kept[1].double().sum()).cumsum(-1)
    numbers = np.linspace(0, 0.999, 40)
    numbers = numbers[np.abs(cumulative.numpy()[:, None] - numbers).min(0) > 1e-5]  # not on the border of two tokens
    expected = torch.searchsorted(cumulative, torch.from_numpy(numbers), right=True).tolist()
    assert draw(logits.expand(len(numbers), -1), np.tile(rows[1], (len(numbers), 1)), numbers) == expected


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.floats(0.5, 2.0), st.integers(0, 99))
def test_repetition_penalty_equals_transformers(tokens, penalty, seed):
    logits = torch.randn(10, generator=torch.Generator().manual_seed(seed))
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([tokens]), logits[None])[0]
    params = SamplingParams(repetition_penalty=penalty)
    torch.testing.assert_close(apply_penalties(logits, params, bias_of(params), tokens, 1), theirs)


def test_presence_and_frequency_penalties_count_what_was_generated():
    # OpenAI's documentation: logit - count * frequency_penalty - (count > 0) * presence_penalty.
    params = SamplingParams(presence_penalty=0.5, frequency_penalty=0.25, logit_bias={3: -100.0, 0: 1.0})
    found = apply_penalties(torch.zeros(5), params, bias_of(params), [1, 1, 4, 2, 2, 2, 1], n_prompt=3)
    assert found.tolist() == [1.0, -0.75, -1.25, -100.0, 0.0]


def test_draws_follow_the_distribution(drawn):
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    params = SamplingParams(temperature=1.0, top_p=1.0)
    n = 4000
    found = drawn(logits.expand(n, -1), [params] * n, np.array([uniform(7, i) for i in range(n)]))
    counts = torch.bincount(torch.tensor(found), minlength=4)
    torch.testing.assert_close(counts / n, logits.softmax(-1), atol=0.03, rtol=0)


@pytest.mark.parametrize(
    "params",
    [{"temperature": 0.0}, {"temperature": 1e-44}, {"temperature": 5e-324, "top_p": 1.0}, {"top_p": 0.0}, {"top_k": 1}],
)
def test_greedy_is_the_likeliest_token(params, drawn):
    logits = torch.randn(100, generator=torch.Generator().manual_seed(1))
    for number in (0.0, 0.3, 1 - 2.0**-53):
        assert drawn(logits[None], [SamplingParams(**params)], np.array([number])) == [int(logits.argmax())]


def test_top_k_above_the_vocabulary_keeps_all(drawn):
    logits = torch.randn(100, generator=torch.Generator().manual_seed(1)).expand(50, -1)
    numbers = np.linspace(0, 0.999, 50)
    all_kept = drawn(logits, [SamplingParams(top_k=0)] * 50, numbers)
    for top_k in (100, 2**31 - 1, 2**64, 10**400):
        assert drawn(logits, [SamplingParams(top_k=top_k)] * 50, numbers) == all_kept


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [5, 16, 300])
def test_a_logit_that_is_no_number_is_found_and_a_masked_one_is_never_drawn(size, value, drawn):
    for at in (0, size // 2, size - 1):
        logits = torch.zeros(2, size)
        logits[1, at] = value
        numbers = np.array([0.0, at / size])
        for params in (SamplingParams(temperature=0.0), SamplingParams(temperature=1.0, top_p=1.0)):
            found = drawn(logits, [params, params], numbers)
            assert found[0] == 0 and found[1] == -1
        if value == -np.inf:
            filters = np.array([filters_of(SamplingParams(temperature=1.0, top_p=1.0))] * 2)
            assert at not in draw(logits, filters, numbers, masked=True)[1:]


class WithoutFloat64(torch.Tensor):
    """A tensor that claims to be on a device that has no float64, Apple's, and can only be copied from there."""

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> "WithoutFloat64":
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype, device="mps")

    def __init__(self, values: torch.Tensor) -> None:
        self.stored = values

    @classmethod
    def __torch_dispatch__(cls, function, types, args, kwargs):
        assert function is torch.ops.aten._to_copy.default and kwargs["device"] == torch.device("cpu")
        return function(args[0].stored, **kwargs)


def test_a_device_without_float64_draws_what_a_cpu_draws():
    logits, params = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)), SamplingParams(temperature=1.0)
    filters, numbers = np.array([filters_of(params)] * 3), np.array([0.1, 0.5, 0.9])
    assert draw(WithoutFloat64(logits), filters, numbers) == draw(logits, filters, numbers)


def test_numbers_are_uniform_and_depend_on_seed_and_position_alone():
    numbers = np.array([uniform(seed, position) for seed in range(100) for position in range(100)])
    assert numbers.min() >= 0 and numbers.max() < 1 and len(set(numbers)) == len(numbers)
    assert abs(numbers.mean() - 0.5) < 0.01 and abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03
    counts = np.histogram(numbers, 20, (0, 1))[0]
    assert ((counts - 500) ** 2 / 500).sum() < 45  # chi-square with 19 degrees: one in a thousand is above 43.8
    assert 0 <= uniform(2**63 - 1, 3) < 1
    # The first output of SplitMix64 from the state 1234567, by the reference implementation.
    assert sampling.mixed(1234567 + sampling.GOLDEN_GAMMA) == 6457827717110365317


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_p", 2.0),
        ("top_p", -0.1),
        ("temperature", float("nan")),
        ("temperature", 3.0),
        ("max_tokens", 0),
        ("min_p", 1.5),
        ("typical_p", -1.0),
        ("presence_penalty", 3.0),
        ("frequency_penalty", float("nan")),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 1e300),
        ("logprobs", -1),
        ("top_k", -1),
        ("n", 0),
        ("seed", 2**64),
    ],
)
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name} is .*; it must"):
        SamplingParams(**{name: value})
