"""Texts that share prefixes get the log-probabilities that each gets alone, and every prefix is computed once."""

import os
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bluejay.infer import trie
from bluejay.infer.backends.native import NativeBackend, available, native_model
from bluejay.infer.backends.torch import TorchBackend
from bluejay.infer.scoring import Window
from bluejay.infer.trie import Trie


@pytest.fixture(scope="module", params=["torch", "native"])
def new_backend(request, tiny_model):
    if request.param == "native" and not available():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("the native engine is not built")

    def make(pages: int):
        if request.param == "torch":
            return TorchBackend(tiny_model.gpt, pages, 8)
        return NativeBackend(native_model(tiny_model.gpt), pages, cache="f32", threads=1)

    return make


def alone(model, text: Window) -> torch.Tensor:
    """The log-probabilities by the model itself, and how far each logit is from the largest."""
    logits = model.gpt(torch.tensor([text.tokens[:-1]]))[0, text.first :]
    target = torch.tensor(text.tokens[text.first + 1 :])[:, None]
    logit = logits.gather(1, target)[:, 0]
    return torch.stack((logits.log_softmax(-1).gather(1, target)[:, 0], logits.amax(-1) - logit), 1)


class CountingBackend:
    """Counts the tokens that a backend computes."""

    def __init__(self, backend) -> None:
        self.backend, self.n_tokens = backend, 0
        self.n_pages, self.page_size, self.config = backend.n_pages, backend.page_size, backend.config
        self.copy_page, self.draw, self.hidden = backend.copy_page, backend.draw, backend.hidden
        self.clear = backend.clear
        self.prompt_factor = backend.prompt_factor

    def step(self, batch):
        self.n_tokens += len(batch.tokens)
        return self.backend.step(batch)

    def score(self, batch, targets):
        self.n_tokens += len(batch.tokens)
        return self.backend.score(batch, targets)


def prefixes(texts: list[Window]) -> set[tuple[int, ...]]:
    return {tuple(text.tokens[: end + 1]) for text in texts for end in range(len(text.tokens) - 1)}


def check(model, texts: list[Window], new_backend, extra: int) -> None:
    tree = Trie(texts)
    backend = CountingBackend(new_backend(1))
    backend = CountingBackend(new_backend(tree.reserve(backend.page_size) + extra))
    found = dict(tree.scores(backend))
    assert found.keys() == set(range(len(texts)))
    assert backend.n_tokens == tree.n_tokens == len(prefixes(texts))
    for number, text in enumerate(texts):
        torch.testing.assert_close(found[number], alone(model, text), atol=1e-4, rtol=0)


tokens = st.lists(st.integers(0, 2), min_size=2, max_size=40)
"""Three different tokens, so that many texts share a prefix."""


@settings(max_examples=5)
@given(st.lists(tokens, min_size=1, max_size=12), st.randoms(use_true_random=False), st.sampled_from([0, 3, 100]))
def test_each_text_gets_what_it_gets_alone(tiny_model, new_backend, lists, draw, extra):
    texts = [Window(0, one, draw.randrange(len(one) - 1)) for one in lists]
    check(tiny_model, texts, new_backend, extra)


def test_examples_before_many_questions_are_read_once(tiny_model, new_backend, monkeypatch):
    monkeypatch.setattr(trie, "TOKENS_PER_STEP", 13)
    draw = random.Random(1)
    examples = [draw.randrange(256) for _ in range(29)]
    questions = [[draw.randrange(256) for _ in range(7)] for _ in range(5)]
    choices = [[draw.randrange(256) for _ in range(n)] for n in (1, 1, 4, 9)]
    texts = [Window(0, examples + q + c, 35) for q in questions for c in choices]
    for extra in (0, 2, 40):
        check(tiny_model, texts, new_backend, extra)
    assert Trie(texts).n_tokens < 29 + 5 * (7 + 13)


def test_a_token_may_have_more_successors_than_a_step_has_tokens(tiny_model, new_backend):
    check(tiny_model, [Window(0, [7, successor], 0) for successor in range(200)], new_backend, 9)


def test_the_same_text_twice_and_a_text_within_another(tiny_model, new_backend):
    check(
        tiny_model,
        [Window(0, [1, 2, 3, 4], 0), Window(0, [1, 2, 3, 4], 2), Window(0, [1, 2], 0), Window(0, [1, 2, 9], 1)],
        new_backend,
        9,
    )


def test_logits_that_are_no_numbers_are_refused(tiny_model):
    backend = TorchBackend(tiny_model.gpt, 20, 8)
    broken = CountingBackend(backend)
    broken.score = lambda batch, targets: torch.full((len(targets), 2), np.nan)
    with pytest.raises(ValueError, match="not numbers"):
        list(Trie([Window(0, [1, 2], 0)]).scores(broken))
