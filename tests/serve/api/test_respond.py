"""How requests end: complete, abandoned, rejected or failed."""

import threading
import time

import httpx
import openai
import pytest

from tests.waiting import PATIENCE, eventually

PROMPT = "the cat"


def complete(client: openai.OpenAI, prompt=PROMPT, **params):
    return client.completions.create(model="tiny", prompt=prompt, **params)


NEVER_ENDING_PARAMS = {"max_tokens": 1000, "n": 100, "temperature": 1}
NEVER_ENDING = {"prompt": PROMPT, **NEVER_ENDING_PARAMS}


def test_client_that_leaves_a_stream_frees_its_rows(server, engine_thread):
    with httpx.Client() as client:
        body = NEVER_ENDING | {"stream": True}
        with client.stream("POST", f"{server.url}/v1/completions", json=body) as response:
            next(response.iter_lines())
            assert not engine_thread.engine.idle
    assert eventually(lambda: engine_thread.engine.idle and not engine_thread.owners)


def test_client_that_does_not_wait_for_its_answer_frees_its_rows(server, engine_thread):
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/completions", json=NEVER_ENDING, timeout=httpx.Timeout(PATIENCE, read=0.5))
    assert eventually(lambda: engine_thread.engine.idle and not engine_thread.owners)


def test_full_queue_turns_clients_away(client, engine_thread):
    # The first eight take all places for a long time and still have samples waiting; 56 more wait behind them.
    first = complete(client, [PROMPT] * 8, stream=True, **NEVER_ENDING_PARAMS)
    with first, complete(client, [PROMPT] * 56, stream=True):
        with pytest.raises(openai.RateLimitError) as refused:
            complete(client)
        assert int(refused.value.response.headers["retry-after"]) > 0
    assert eventually(lambda: engine_thread.engine.idle)
    assert complete(client).choices[0].text


def test_failed_step_fails_the_requests_in_flight_only(client, engine_thread, monkeypatch, caplog):
    def explode():
        raise RuntimeError("out of memory")

    stream = complete(client, max_tokens=1000, stream=True)
    next(stream)
    monkeypatch.setattr(engine_thread.engine, "step", explode)
    with pytest.raises(openai.APIError, match="generation failed"):
        list(stream)
    assert "out of memory" in caplog.text
    assert complete(client).choices[0].text

    monkeypatch.setattr(engine_thread.engine, "step", explode)
    with pytest.raises(openai.InternalServerError, match="generation failed"):
        complete(client)
    assert complete(client).choices[0].text


def test_thread_sleeps_when_there_is_nothing_to_do(engine_thread, model):
    assert eventually(lambda: engine_thread.engine.idle)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.2
    assert sum(thread.name == "engine" for thread in threading.enumerate()) == 1
