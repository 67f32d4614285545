"""The engine generates the model's own tokens, however the work is divided."""

import os
from collections import Counter
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bluejay.gpt.init import new_model
from bluejay.infer import samples
from bluejay.infer.backends.native import NativeBackend, available, native_model
from bluejay.infer.backends.torch import TorchBackend
from bluejay.infer.engine import Engine, QueueFull
from bluejay.infer.exceptions import LogitsError
from bluejay.infer.params import SamplingParams
from bluejay.infer.sampling import bias_of

GREEDY = SamplingParams(max_tokens=20, temperature=0.0)


@pytest.fixture(scope="module", params=["torch", "native"])
def new_engine(request, tiny_model):
    """Creates an engine with a new backend of a given capacity in tokens, with small pages if the backend allows it."""
    if request.param == "native" and not available():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("the native engine is not built")

    def make(capacity: int = 512, page: int = 8, **settings) -> Engine:
        if request.param == "torch":
            backend = TorchBackend(tiny_model.gpt, capacity // page, page)
        else:
            backend = NativeBackend(native_model(tiny_model.gpt), capacity // NativeBackend.page_size, cache="f32")
        return Engine(backend, tiny_model.tokenizer, **settings)

    return make


@pytest.fixture(scope="module")
def alone(new_engine):
    """The result of a prompt alone in a new engine, without speculation and without reuse of the cache."""

    @cache
    def result(prompt: tuple[int, ...], max_tokens: int, temperature: float, seed: int, n: int = 1):
        engine = new_engine(speculate=False)
        params = SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=seed, n=n)
        return run(engine, engine.submit(list(prompt), params))[0]

    return result


def collect(results, chunks):
    """Add chunks to {request: {sample: (tokens, text, finish reason)}}."""
    for request, chunk in chunks:
        tokens, text, reason = results[request].get(chunk.index, ([], "", None))
        assert reason is None
        results[request][chunk.index] = [*tokens, chunk.token], text + chunk.text, chunk.finish_reason


def run(engine, *requests):
    """The tokens, text and finish reason of each request's samples, once all have ended."""
    results = {request: {} for request in requests}
    while not engine.idle:
        collect(results, engine.step())
    return [results[request] for request in requests]


def check_no_page_is_lost(engine):
    pool = engine.pool
    cached = [page for siblings in pool.children.values() for page in siblings]
    assert pool.n_held == 0 and set(cached) == set(pool.evictable)
    assert sorted(pool.free + [page.number for page in cached]) == list(range(pool.n_pages))


def without_cache(model, prompt, n_tokens):
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(n_tokens):
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("text", ["a", "The cat sat", "the the the cat the the the ca"])
def test_greedy_tokens_are_the_models_likeliest(tiny_model, new_engine, text):
    prompt = tiny_model.tokenizer.encode(text)
    engine = new_engine()
    [result] = run(engine, engine.submit(prompt, GREEDY))
    assert result[0][0] == without_cache(tiny_model.gpt, prompt, 20)


# Few letters, so that prompts begin alike and texts repeat themselves: pages are shared and guesses come true.
submission = st.tuples(
    st.lists(st.integers(97, 98), min_size=1, max_size=40).map(tuple),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 2),
    st.integers(1, 3),
)
actions = st.lists(st.one_of(submission, st.just("step"), st.tuples(st.just("cancel"), st.integers(0, 9))), max_size=30)


@settings(max_examples=30, deadline=None)
@given(actions, st.integers(1, 4), st.sampled_from([4, 16]), st.integers(80, 300), st.booleans())
def test_a_request_gets_the_same_result_as_alone_whatever_else_runs(
    new_engine, alone, actions, max_sequences, page, capacity, speculate
):
    engine = new_engine(capacity, page, max_sequences=max_sequences, speculate=speculate)
    submitted, results = [], {}
    for action in actions:
        if action == "step":
            collect(results, engine.step())
        elif action[0] == "cancel":
            if submitted:
                request, _ = submitted.pop(action[1] % len(submitted))
                engine.cancel(request)
                results[request] = None
        else:
            prompt, max_tokens, temperature, seed, n = action
            params = SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=seed, n=n)
            request = engine.submit(list(prompt), params)
            submitted.append((request, action))
            results[request] = {}
    while not engine.idle:
        collect(results, engine.step())
    for request, action in submitted:
        assert results[request] == alone(*action)
    check_no_page_is_lost(engine)


def test_drafts_are_computed_and_some_are_accepted(new_engine):
    engine = new_engine()
    run(engine, engine.submit([97, 98, 99] * 5, SamplingParams(max_tokens=40, temperature=0.0)))
    assert 0 < engine.counters.accepted_tokens <= engine.counters.drafted_tokens
    assert engine.counters.steps < engine.counters.generated_tokens


@pytest.mark.slow
@pytest.mark.parametrize("speculate", [True, False])
def test_draws_follow_the_models_distribution_with_and_without_speculation(tiny_model, new_engine, speculate):
    # Three tokens of two letters after a prompt that makes guesses: 8 outcomes, each of a known probability.
    prompt, n = [97, 98] * 6, 800
    letters = dict.fromkeys((97, 98), 100.0)
    with torch.no_grad():
        expected = {}
        for outcome in [(a, b, c) for a in letters for b in letters for c in letters]:
            logits = tiny_model.gpt(torch.tensor([[*prompt, *outcome]]))[0, len(prompt) - 1 : -1, 97:99]
            chosen = logits.log_softmax(-1).gather(1, torch.tensor(outcome)[:, None] - 97)
            expected[outcome] = n * chosen.sum().exp().item()
    engine = new_engine(max_sequences=16, speculate=speculate)
    params = SamplingParams(max_tokens=3, temperature=1.0, top_p=1.0, logit_bias=letters, n=n, seed=0)
    [results] = run(engine, engine.submit(prompt, params))
    counts = Counter(tuple(tokens) for tokens, _, _ in results.values())
    assert counts.keys() <= expected.keys()
    chi_square = sum((counts[outcome] - mean) ** 2 / mean for outcome, mean in expected.items())
    assert chi_square < 24.3  # 7 degrees of freedom: exceeded once in a thousand times by chance, and the seed is fixed
    assert (engine.counters.accepted_tokens > 0) == speculate


def test_a_seed_gives_different_samples(alone):
    assert len({tuple(tokens) for tokens, _, _ in alone((5, 6, 7), 15, 1.0, 7, 3).values()}) == 3


def test_a_long_prompt_does_not_stall_the_others(tiny_model, new_engine, monkeypatch):
    monkeypatch.setattr("bluejay.infer.engine.PROMPT_TOKENS_PER_STEP", 8)
    engine = new_engine(speculate=False)  # drafts would let the first one end early
    first = engine.submit([5], GREEDY)
    engine.step()
    long, short = engine.submit([6] * 50, GREEDY), engine.submit([7] * 8, GREEDY)
    began = {}
    for step in range(12):
        chunks = engine.step()
        assert any(request is first for request, _ in chunks)
        for request, _ in chunks:
            began.setdefault(request, step)
    # Both are read at four tokens a step, until the short one is through.
    assert began[short] == 1 and began[long] == 7


def test_samples_of_a_prompt_share_its_cached_pages(new_engine):
    engine = new_engine()
    run(engine, engine.submit([5] * 33, SamplingParams(max_tokens=4, n=4)))
    assert engine.counters.prompt_tokens == 33 + 3
    assert engine.counters.reused_tokens == 3 * 32
    run(engine, engine.submit([5] * 20, SamplingParams(max_tokens=4)))
    assert engine.counters.reused_tokens == 3 * 32 + 19


def test_requests_take_turns(new_engine):
    engine = new_engine(max_sequences=2)
    many, one = (engine.submit([5 + i], SamplingParams(max_tokens=5, n=n)) for i, n in enumerate((50, 1)))
    ended = []
    while one not in ended:
        ended += [request for request, chunk in engine.step() if chunk.finish_reason]
    assert ended.count(many) <= 3


def test_a_large_request_is_not_starved(new_engine):
    engine = new_engine(capacity=64, max_sequences=4)
    small = [engine.submit([5 + i] * 20, SamplingParams(max_tokens=4, temperature=0.0)) for i in range(2)]
    large = engine.submit([7] * 32, SamplingParams(max_tokens=32, temperature=0.0))
    later = [engine.submit([8 + i] * 20, SamplingParams(max_tokens=4, temperature=0.0)) for i in range(3)]
    order = []
    while not engine.idle:
        order += [request for request, chunk in engine.step() if chunk.finish_reason]
    assert order.index(large) == 2 and set(order) == {*small, large, *later}


def test_generation_ends_at_the_end_of_the_context_with_reason_length(tiny_model, new_engine):
    engine = new_engine()
    prompt = [5] * 60
    [result] = run(engine, engine.submit(prompt, SamplingParams(max_tokens=100, temperature=0.0)))
    tokens, _, reason = result[0]
    assert len(prompt) + len(tokens) == tiny_model.gpt.config.n_ctx
    assert reason == "length"


def test_a_stop_sequence_ends_the_answer_before_it(tiny_model):
    [whole] = tiny_model.generate("The cat", SamplingParams(max_tokens=30, seed=1))
    stop = whole[10:12]
    [cut] = tiny_model.generate("The cat", SamplingParams(max_tokens=30, seed=1, stop=(stop,)))
    assert cut == whole[: whole.find(stop)]


def test_requests_that_can_never_run_are_rejected_with_the_numbers(new_engine):
    engine = new_engine()
    with pytest.raises(ValueError, match="the prompt has 64 tokens; this model's maximum context length is 64 tokens"):
        engine.submit([1] * 64, GREEDY)
    with pytest.raises(ValueError, match="outside"):
        engine.submit([259], GREEDY)
    with pytest.raises(ValueError, match=r"logit_bias holds a token id outside 0\.\.258"):
        engine.submit([1], SamplingParams(logit_bias={259: 1.0}))
    with pytest.raises(ValueError, match="may take 50 tokens, but the cache holds 32"):
        new_engine(capacity=32).submit([1] * 30, GREEDY)


def test_a_full_queue_raises(new_engine):
    engine = new_engine(max_waiting=2)
    requests = [engine.submit([1], GREEDY) for _ in range(2)]
    with pytest.raises(QueueFull):
        engine.submit([1], GREEDY)
    engine.cancel(requests[0])
    engine.submit([1], GREEDY)


def test_logprobs_equal_the_models(tiny_model, new_engine):
    prompt, engine = [97, 98, 99] * 6, new_engine()
    run(engine, engine.submit(prompt, GREEDY))  # leaves the prompt in the cache
    params = SamplingParams(max_tokens=5, temperature=0.0, top_p=0.5, logprobs=3, prompt_logprobs=True, n=2)
    request = engine.submit(prompt, params)
    generated = []
    while not engine.idle:
        generated += [chunk.logprob for _, chunk in engine.step() if chunk.index == 1]
    tokens = prompt + [one.token for one in generated]
    with torch.no_grad():
        expected = tiny_model.gpt(torch.tensor([tokens]))[0].log_softmax(-1)
    found = request.prompt_logprobs + generated
    assert [one.token for one in found] == tokens[1:]
    for one, row in zip(found, expected, strict=False):
        assert one.logprob == pytest.approx(row[one.token].item(), abs=1e-5)
        values, ids = row.topk(3)
        assert [token for token, _ in one.top] == ids.tolist()
        assert [value for _, value in one.top] == pytest.approx(values.tolist(), abs=1e-5)


def test_a_prompt_can_be_scored_without_generating(new_engine):
    engine = new_engine()
    request = engine.submit([5] * 64, SamplingParams(max_tokens=0, prompt_logprobs=True))
    [result] = run(engine, request)
    assert result == {0: ([None], "", "length")} and len(request.prompt_logprobs) == 63
    check_no_page_is_lost(engine)


def test_biases_become_tensors_once_for_all_tokens_of_a_request(new_engine, monkeypatch):
    """Thousands of them take longer than the rest of a step."""
    made = []
    monkeypatch.setattr(samples, "bias_of", lambda params: made.append(params) or bias_of(params))
    engine = new_engine()
    request = engine.submit([5], SamplingParams(max_tokens=4, n=2, logit_bias={97: 100.0, 98: -100.0}))
    [results] = run(engine, request)
    assert [tokens for tokens, _, _ in results.values()] == [[97] * 4] * 2 and made == [request.params]


def test_a_logits_processor_restricts_the_draws(new_engine):
    class Alternating:
        """Allows the tokens 97 and 98 in turn, by its own state."""

        def __init__(self):
            self.calls = 0

        def __call__(self, generated, logits):
            assert len(generated) == self.calls
            self.calls += 1
            return torch.full_like(logits, -torch.inf).index_fill(0, torch.tensor([97 + self.calls % 2]), 0.0)

    engine = new_engine()
    request = engine.submit([97, 98] * 4, SamplingParams(max_tokens=10, n=2), Alternating)
    [results] = run(engine, request)
    assert [tokens for tokens, _, _ in results.values()] == [[98, 97] * 5] * 2
    assert engine.counters.accepted_tokens > 0


def test_score_equals_the_models_log_probability_of_every_token(tiny_model):
    text = "The cat sat on the mat, the other cat did not. " * 4
    score = tiny_model.score(text)
    tokens = [tiny_model.tokenizer.eot, *tiny_model.tokenizer.encode(text)]
    assert score.tokens == tokens[1:] and len(score.logprobs) == len(score.tokens)
    n_ctx = tiny_model.gpt.config.n_ctx
    with torch.no_grad():
        for at, logprob in list(enumerate(score.logprobs))[::11]:
            # A token of the first window has all before it; a later one between half a context and a whole one.
            sizes = [at + 1] if at < n_ctx else range(n_ctx // 2, n_ctx + 1)
            contexts = [torch.tensor([tokens[at + 1 - size : at + 1]]) for size in sizes]
            found = [tiny_model.gpt(context)[0, -1].log_softmax(-1)[tokens[at + 1]].item() for context in contexts]
            assert min(abs(logprob - one) for one in found) < 1e-5


def test_a_text_whose_logits_are_no_numbers_leaves_nothing_in_the_cache(tiny_config, byte_tokenizer):
    gpt = new_model(tiny_config, seed=0).requires_grad_(False)
    gpt.embed.weight[5] = torch.inf
    engine = Engine(TorchBackend(gpt, 32, 8), byte_tokenizer)
    expected = run(engine, engine.submit([7] * 20, GREEDY))
    for prompt in ([7] * 20, [7] * 10 + [5] * 10):
        engine.submit(prompt, GREEDY)
    with pytest.raises(LogitsError, match=r"embed\.weight holds infinity"):
        engine.step()
    assert engine.idle
    check_no_page_is_lost(engine)
    assert run(engine, engine.submit([7] * 20, GREEDY)) == expected
