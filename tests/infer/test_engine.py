"""What the engine generates is what the model says, however the work is shared."""

import pytest
import torch

from bluejay.infer.engine import Engine
from bluejay.infer.sampling import SamplingParams

GREEDY = SamplingParams(max_tokens=20, temperature=0.0)


def run(engine, *requests):
    """The tokens and texts of each request's samples, once all have ended."""
    results = {request: {} for request in requests}
    while not engine.idle:
        for request, chunk in engine.step():
            tokens, texts, reasons = results[request].setdefault(chunk.index, ([], [], []))
            tokens.append(chunk.token)
            texts.append(chunk.text)
            reasons.append(chunk.finish_reason)
    return [{i: (t, "".join(x), r[-1]) for i, (t, x, r) in results[request].items()} for request in requests]


def without_cache(model, prompt, n_tokens):
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(n_tokens):
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


def test_the_cache_changes_no_token(tiny_model):
    prompt = tiny_model.tokenizer.encode("The cat sat")
    engine = Engine(tiny_model.gpt, tiny_model.tokenizer)
    [result] = run(engine, engine.submit(prompt, GREEDY))
    assert result[0][0] == without_cache(tiny_model.gpt, prompt, 20)


def test_ragged_requests_that_come_and_go_get_what_they_get_alone(tiny_model):
    prompts = ["a", "The cat", "x" * 30, "def f(x):\n", "the the the", "q"]
    lengths = [20, 3, 25, 11, 7, 16]
    engine = Engine(tiny_model.gpt, tiny_model.tokenizer, max_sequences=3)
    encoded = [tiny_model.tokenizer.encode(prompt) for prompt in prompts]
    params = [SamplingParams(max_tokens=length, temperature=0.0) for length in lengths]
    together = run(engine, *[engine.submit(*pair) for pair in zip(encoded, params, strict=True)])
    for prompt, length, result in zip(encoded, lengths, together, strict=True):
        assert result[0][0] == without_cache(tiny_model.gpt, prompt, length)


def test_a_seed_gives_the_same_text_whoever_else_runs(tiny_model):
    prompt = tiny_model.tokenizer.encode("once")
    params = SamplingParams(max_tokens=15, seed=7, n=3)
    engine = Engine(tiny_model.gpt, tiny_model.tokenizer)
    [alone] = run(engine, engine.submit(prompt, params))
    engine = Engine(tiny_model.gpt, tiny_model.tokenizer, max_sequences=2)
    _, crowded = run(engine, engine.submit(prompt, GREEDY), engine.submit(prompt, params))
    assert crowded == alone
    assert len({tuple(tokens) for tokens, _, _ in alone.values()}) == 3


def test_generation_ends_at_the_context_and_says_so(tiny_model):
    engine = Engine(tiny_model.gpt, tiny_model.tokenizer)
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


def test_a_cancelled_request_frees_its_rows_and_disturbs_nobody(tiny_model):
    prompt = tiny_model.tokenizer.encode("The cat sat")
    engine = Engine(tiny_model.gpt, tiny_model.tokenizer, max_sequences=4)
    gone = engine.submit(prompt, SamplingParams(max_tokens=50, n=6, seed=0))
    stays = engine.submit(prompt, GREEDY)
    engine.step()
    engine.cancel(gone)
    assert engine.running == []
    tokens = [chunk.token for _ in range(20) for request, chunk in engine.step() if request is stays]
    assert tokens == without_cache(tiny_model.gpt, prompt, 20)
    assert engine.idle


def test_a_prompt_that_fills_the_context_is_refused_with_the_figures(tiny_model):
    engine = Engine(tiny_model.gpt, tiny_model.tokenizer)
    with pytest.raises(ValueError, match="the prompt has 64 tokens; this model reads 64 in all"):
        engine.submit([1] * 64, GREEDY)
    with pytest.raises(ValueError, match="outside"):
        engine.submit([259], GREEDY)


def test_score_is_the_models_log_probability_of_every_token(tiny_model):
    text = "The cat sat on the mat, the other cat did not. " * 4
    score = tiny_model.score(text)
    tokens = [tiny_model.tokenizer.eot, *tiny_model.tokenizer.encode(text)]
    assert score.tokens == tokens[1:] and len(score.logprobs) == len(score.tokens)
    n_ctx = tiny_model.gpt.config.n_ctx
    with torch.no_grad():
        for at, logprob in list(enumerate(score.logprobs))[::3]:
            # A token of the first window has all before it; a later one between half a context and a whole one.
            sizes = [at + 1] if at < n_ctx else range(n_ctx // 2, n_ctx + 1)
            contexts = [torch.tensor([tokens[at + 1 - size : at + 1]]) for size in sizes]
            found = [tiny_model.gpt(context)[0, -1].log_softmax(-1)[tokens[at + 1]].item() for context in contexts]
            assert min(abs(logprob - one) for one in found) < 1e-5
