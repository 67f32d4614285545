"""What a client of the completions API relies on, over HTTP, with the official client where it can say it."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from bluejay.infer.sampling import SamplingParams

PROMPT = "the cat"


def complete(client: openai.OpenAI, prompt=PROMPT, **params):
    return client.completions.create(model="tiny", prompt=prompt, **params)


def eventually(condition) -> bool:
    """Whether a condition comes true within some seconds."""
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_streamed_text_equals_whole_text_and_the_library(client, model):
    params = {"max_tokens": 60, "temperature": 0.9, "top_p": 0.95, "seed": 5}
    whole = complete(client, **params)
    parts = list(complete(client, **params, stream=True, stream_options={"include_usage": True}))
    expected = model.generate(PROMPT, SamplingParams(**params))[0]
    assert whole.choices[0].text == "".join(part.choices[0].text for part in parts[:-1]) == expected
    assert parts[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert parts[-1].choices == [] and parts[-1].usage == whole.usage
    assert whole.usage.completion_tokens == 60 == len(parts) - 1
    assert whole.usage.prompt_tokens == len(model.tokenizer.encode(PROMPT))
    assert whole.id.startswith("cmpl-") and whole.object == "text_completion" and whole.model == "tiny"


def test_stream_ends_with_done(server):
    response = httpx.post(f"{server.url}/v1/completions", json={"prompt": PROMPT, "stream": True, "max_tokens": 2})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.strip().split("\n\n")
    assert events[-1] == "data: [DONE]" and all(event.startswith("data: {") for event in events[:-1])


def test_seeds(client):
    texts = [complete(client, seed=seed, max_tokens=20).choices[0].text for seed in (1, 1, 2, None, None)]
    assert texts[0] == texts[1]
    assert len(set(texts[1:])) == 4


def test_choices_are_prompt_major(client, model):
    prompts = ["one", "another"]
    params = {"n": 3, "seed": 9, "max_tokens": 12}
    whole = complete(client, prompts, **params)
    expected = [
        text
        for prompt in prompts
        for text in model.generate(prompt, SamplingParams(temperature=1.0, top_p=1.0, **params))
    ]
    assert [choice.text for choice in whole.choices] == expected
    assert [choice.index for choice in whole.choices] == list(range(6))
    streamed = [""] * 6
    for part in complete(client, prompts, **params, stream=True):
        streamed[part.choices[0].index] += part.choices[0].text
    assert streamed == expected


def test_token_ids_are_prompts(client, model):
    tokens = model.tokenizer.encode(PROMPT)
    texts = [complete(client, prompt, temperature=0).choices[0].text for prompt in (PROMPT, tokens, [tokens], [PROMPT])]
    assert len(set(texts)) == 1


def test_stop_and_echo(client):
    text = complete(client, temperature=0, max_tokens=40).choices[0].text
    stop = text[10:13]
    stopped = complete(client, temperature=0, max_tokens=40, stop=stop, echo=True).choices[0]
    assert stopped.text == PROMPT + text[: text.index(stop)] and stopped.finish_reason == "stop"


def test_answer_that_does_not_fit_ends_with_length(client, model):
    choice = complete(client, list(range(65, 75)) * 102, max_tokens=500).choices[0]
    assert choice.finish_reason == "length"


def test_concurrent_answers_equal_lone_ones(client):
    prompts = [f"{i} times the cat" for i in range(12)]
    alone = [complete(client, prompt, temperature=0, max_tokens=16).choices[0].text for prompt in prompts]
    with ThreadPoolExecutor(len(prompts)) as pool:
        together = pool.map(
            lambda prompt: complete(client, prompt, temperature=0, max_tokens=16).choices[0].text, prompts
        )
        assert list(together) == alone


NEVER_ENDING_PARAMS = {"max_tokens": 1000, "n": 100, "temperature": 1}
NEVER_ENDING = {"prompt": PROMPT, **NEVER_ENDING_PARAMS}


def test_client_that_leaves_a_stream_frees_its_rows(server, worker):
    with httpx.Client() as client:
        body = NEVER_ENDING | {"stream": True}
        with client.stream("POST", f"{server.url}/v1/completions", json=body) as response:
            next(response.iter_lines())
            assert not worker.engine.idle
    assert eventually(lambda: worker.engine.idle and not worker.owners)


def test_client_that_does_not_wait_for_its_answer_frees_its_rows(server, worker):
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/completions", json=NEVER_ENDING, timeout=httpx.Timeout(10, read=0.5))
    assert eventually(lambda: worker.engine.idle and not worker.owners)


def test_full_queue_turns_clients_away(client, worker):
    # The first eight take all places for a long time and still have samples waiting; 56 more wait behind them.
    first = complete(client, [PROMPT] * 8, stream=True, **NEVER_ENDING_PARAMS)
    with first, complete(client, [PROMPT] * 56, stream=True):
        with pytest.raises(openai.RateLimitError) as refused:
            complete(client)
        assert int(refused.value.response.headers["retry-after"]) > 0
    assert eventually(lambda: worker.engine.idle)
    assert complete(client).choices[0].text


def test_failed_step_fails_the_requests_in_flight_only(client, worker, monkeypatch, caplog):
    def explode():
        raise RuntimeError("out of memory")

    stream = complete(client, max_tokens=1000, stream=True)
    next(stream)
    monkeypatch.setattr(worker.engine, "step", explode)
    with pytest.raises(openai.APIError, match="generation failed"):
        list(stream)
    assert "out of memory" in caplog.text
    assert complete(client).choices[0].text

    monkeypatch.setattr(worker.engine, "step", explode)
    with pytest.raises(openai.InternalServerError, match="generation failed"):
        complete(client)
    assert complete(client).choices[0].text


def post(server, body) -> httpx.Response:
    content = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return httpx.post(f"{server.url}/v1/completions", content=content, headers={"Content-Type": "application/json"})


def check_error(response: httpx.Response, status: int) -> dict:
    """The error object of an answer that must be one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and "\n" not in error["message"] and "/src/" not in error["message"]
    return error


REFUSED = [
    ({"top_p": 2}, "top_p", "top_p is 2.0; it must be between 0 and 1"),
    ({"temperature": -1}, "temperature", "between 0 and 2"),
    ({"temperature": "hot"}, "temperature", "temperature must be a valid number"),
    ({"n": 0}, "n", "at least 1"),
    ({"n": 129}, "n", "at most 128"),
    ({"max_tokens": 0}, "max_tokens", "at least 1"),
    ({"max_tokens": True}, "max_tokens", "max_tokens must be a valid integer"),
    ({"seed": 2**64}, "seed", "64 bits"),
    ({"stop": ["a"] * 5}, "stop", "at most 4"),
    ({"stop": ""}, "stop", "empty string"),
    ({"logprobs": 1}, "logprobs", "not supported"),
    ({"suffix": "x"}, "suffix", "not supported"),
    ({"presence_penalty": 0.5}, "presence_penalty", "not supported"),
    ({"tempreature": 1}, "tempreature", "did you mean temperature?"),
    ({"stream_options": {"usage": True}}, "stream_options.usage", "no parameter"),
    ({"prompt": []}, "prompt", "prompt must be a string"),
    ({"prompt": ["a", 1]}, "prompt", "prompt must be a string"),
    ({"prompt": [1, 99999]}, "prompt", "outside 0..258"),
    ({"prompt": ["a"] * 65}, "prompt", "at most 64"),
    ({"prompt": "x" * 2000}, "prompt", "2000 tokens; this model reads 1024"),
    ('{"top_p": NaN}', "top_p", "between 0 and 1"),
    ("[]", None, "JSON object"),
    ("", None, "JSON object"),
    ("{", None, "not valid JSON"),
    (b"\xff", None, "not valid JSON"),
    ("[" * 100_000, None, "not valid JSON"),
]


@pytest.mark.parametrize("body, param, message", REFUSED, ids=[str(body)[:30] for body, _, _ in REFUSED])
def test_bad_request_is_one_clear_sentence(server, body, param, message):
    error = check_error(post(server, body), 400)
    assert error["param"] == param and message in error["message"]
    assert error["type"] == "invalid_request_error"


def test_neutral_values_of_other_parameters_are_accepted(server):
    neutral = {"best_of": 1, "logit_bias": {}, "logprobs": None, "suffix": None, "presence_penalty": 0.0, "user": "me"}
    assert post(server, {"prompt": PROMPT, "frequency_penalty": 0, "stop": None, **neutral}).status_code == 200


def test_unknown_model(client, server):
    with pytest.raises(openai.NotFoundError) as refused:
        client.completions.create(model="gpt-5", prompt=PROMPT)
    assert refused.value.code == "model_not_found"
    check_error(post(server, '{"model": "\\ud800"}'), 404)


def test_body_that_is_not_declared_as_json_is_refused(server):
    # Browsers send such requests from any page without asking; JSON they must ask for.
    response = httpx.post(
        f"{server.url}/v1/completions", content='{"prompt": "x"}', headers={"Content-Type": "text/plain"}
    )
    assert "Content-Type: application/json" in check_error(response, 400)["message"]


@pytest.mark.parametrize("body", [b"x" * 1_000_001, iter([b"x" * 600_000] * 2)], ids=["length", "chunks"])
def test_large_body(server, body):
    response = httpx.post(f"{server.url}/v1/completions", content=body, headers={"Content-Type": "application/json"})
    check_error(response, 413)


def test_thread_sleeps_when_there_is_nothing_to_do(worker, model):
    assert eventually(lambda: worker.engine.idle)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.2
    assert sum(thread.name == "engine" for thread in threading.enumerate()) == 1
