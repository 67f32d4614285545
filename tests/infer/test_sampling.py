"""The sampling distribution equals that of transformers."""

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

from bluejay.infer.params import SamplingParams
from bluejay.infer.sampling import NUCLEUS_SHORTLIST, apply_penalties, candidates, draw_token


def distribution(logits, params):
    probabilities, ids = candidates(logits, params)
    return torch.zeros(len(logits)).scatter(0, ids, probabilities / probabilities.sum())


@settings(max_examples=80, deadline=None)
@given(
    vocabulary=st.sampled_from([1, 50, NUCLEUS_SHORTLIST, NUCLEUS_SHORTLIST + 1, 3 * NUCLEUS_SHORTLIST]),
    temperature=st.floats(0.1, 2.0),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.05, 1.0),
    min_p=st.sampled_from([0.0, 0.0, 0.02, 0.3, 1.0]),
    typical_p=st.sampled_from([1.0, 1.0, 0.2, 0.9]),
    seed=st.integers(0, 1000),
)
def test_distribution_equals_transformers(vocabulary, temperature, top_k, top_p, min_p, typical_p, seed):
    # Logits close together, so that the cut of top-p also falls past the shortlist.
    logits = (3 if seed % 2 else 0.3) * torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed))
    scores = TemperatureLogitsWarper(temperature)(None, logits[None])
    scores = TopKLogitsWarper(top_k)(None, scores) if top_k else scores
    scores = TopPLogitsWarper(top_p)(None, scores) if top_p < 1 else scores
    scores = MinPLogitsWarper(min_p)(None, scores) if min_p else scores
    scores = TypicalLogitsWarper(typical_p)(None, scores) if typical_p < 1 else scores
    cuts = {"top_k": top_k, "top_p": top_p, "min_p": min_p, "typical_p": typical_p}
    ours = distribution(logits, SamplingParams(temperature=temperature, **cuts))
    torch.testing.assert_close(ours, scores[0].softmax(-1), atol=1e-6, rtol=1e-4)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.floats(0.5, 2.0), st.integers(0, 99))
def test_repetition_penalty_equals_transformers(tokens, penalty, seed):
    logits = torch.randn(10, generator=torch.Generator().manual_seed(seed))
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([tokens]), logits[None])[0]
    torch.testing.assert_close(apply_penalties(logits, SamplingParams(repetition_penalty=penalty), tokens, 1), theirs)


def test_presence_and_frequency_penalties_count_what_was_generated():
    # OpenAI's documentation: logit - count * frequency_penalty - (count > 0) * presence_penalty.
    params = SamplingParams(presence_penalty=0.5, frequency_penalty=0.25, logit_bias={3: -100.0, 0: 1.0})
    found = apply_penalties(torch.zeros(5), params, [1, 1, 4, 2, 2, 2, 1], n_prompt=3)
    assert found.tolist() == [1.0, -0.75, -1.25, -100.0, 0.0]


def test_draws_follow_the_distribution():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    params, generator = SamplingParams(temperature=1.0, top_p=1.0), torch.Generator().manual_seed(0)
    counts = torch.zeros(4)
    for _ in range(4000):
        counts[draw_token(logits, params, generator)] += 1
    torch.testing.assert_close(counts / 4000, logits.softmax(-1), atol=0.03, rtol=0)


@pytest.mark.parametrize(
    "params",
    [{"temperature": 0.0}, {"temperature": 1e-44}, {"temperature": 5e-324, "top_p": 1.0}, {"top_p": 0.0}, {"top_k": 1}],
)
def test_greedy_is_the_likeliest_token(params):
    logits = torch.randn(100, generator=torch.Generator().manual_seed(1))
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        assert draw_token(logits, SamplingParams(**params), generator) == int(logits.argmax())


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
