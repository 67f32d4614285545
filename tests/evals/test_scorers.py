"""What answers the requests of tasks: a model here, or one behind an address."""

from typing import ClassVar

import pytest
import torch

from bluejay.evals.answers import AnswerFile
from bluejay.evals.scorers import LocalScorer, batches_of, open_scorer
from bluejay.evals.tasks import Continuation, Generation
from bluejay.gpt.init import new_model
from bluejay.infer.model import Model
from tests.serve.conftest import run_server


def test_likelihoods_are_those_of_the_model(tiny_model):
    scorer = LocalScorer(tiny_model, "tiny", "1")
    requests = [Continuation("the cat", " sat"), Continuation("the cat", " the"), Generation("the", (), 4)]
    found = dict(scorer.answers(requests))
    (pair,) = tiny_model.loglikelihood([("the cat", " sat")])
    assert found[0].logprob == pytest.approx(pair.logprob, abs=1e-5)
    assert found[2] == tiny_model.generate("the", max_tokens=4, temperature=0.0)[0]


def test_samples_that_are_drawn_together_are_those_of_their_seeds(tiny_model):
    scorer = LocalScorer(tiny_model, "tiny", "1")
    requests = [
        *(Generation(prompt, (), 6, 1.0, seed) for seed in (3, 0, 1) for prompt in ("the cat", "who")),
        Generation("the cat", (), 6, 1.0, 2),
        Generation("the cat", (), 6),
        Generation("the cat", (".",), 5, 1.0, 2),
    ]
    sizes = [(len(batch), len(batch[0])) for batch in batches_of(list(enumerate(requests)))]
    assert sorted(sizes) == [(1, 1), (1, 1), (1, 1), (1, 2), (1, 4)]  # prompts, samples of each
    found = dict(scorer.answers(requests))
    for number, one in enumerate(requests):
        (alone,) = dict(scorer.answers([one])).values()
        assert found[number] == alone
    assert len({found[number] for number in range(6)}) == 6


def test_samples_of_different_prompts_do_not_share_their_random_numbers(tiny_config, byte_tokenizer):
    gpt = new_model(tiny_config, seed=0).requires_grad_(False)
    for weights in gpt.parameters():
        weights.zero_()  # every token is as likely as any other, whatever the prompt
    scorer = LocalScorer(Model(gpt, byte_tokenizer), "flat", "1")
    found = dict(scorer.answers([Generation(prompt, (), 8, 1.0) for prompt in ("the cat", "who", "a")]))
    assert len(set(found.values())) == 3


def test_many_requests_are_answered_in_parts_which_changes_no_answer(tmp_path):
    class Counting:
        name, identity, n_ctx = "counting", "1", None
        sizes: ClassVar[list[int]] = []

        def answers(self, requests):
            self.sizes.append(len(requests))
            yield from reversed([(number, request.prompt) for number, request in enumerate(requests)])

    requests = [Generation(f"{number % 4500}", (), 1) for number in range(5000)]
    found = AnswerFile.of(Counting(), tmp_path).ask(Counting(), requests, "test")
    assert found == [request.prompt for request in requests]
    assert max(Counting.sizes) <= 2000 and sum(Counting.sizes) == 4500


def test_a_model_behind_an_address_gives_the_same_likelihoods(tiny_model):
    requests = [Continuation("the cat", " sat on"), Continuation("who ", "knew"), Generation("the", (), 4)]
    with run_server(tiny_model) as server:
        remote = open_scorer(server.url)
        found = dict(remote.answers(requests))
        remote.client.close()
    wanted = dict(LocalScorer(tiny_model, "tiny", "1").answers(requests))
    for number in (0, 1):
        assert found[number].logprob == pytest.approx(wanted[number].logprob, abs=1e-4)
        assert found[number][1:] == wanted[number][1:]
    assert found[2] == wanted[2]
    torch.set_num_threads(1)
