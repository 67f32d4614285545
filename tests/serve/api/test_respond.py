"""How requests end: complete, abandoned, rejected or failed."""

import asyncio
import json
import threading
import time

import httpx
import openai
import pytest

from bluejay.infer.params import SamplingParams
from bluejay.infer.samples import Chunk
from bluejay.infer.sampling import Logprob
from bluejay.serve.api import respond
from bluejay.serve.api.chat import ChatWriter
from bluejay.serve.api.completions import best
from bluejay.serve.engine_thread import Job
from bluejay.serve.settings import PublicSettings, ServeSettings
from tests.serve.conftest import engine_thread_of
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


def test_client_that_leaves_a_stream_before_its_first_token_is_noticed(server, engine_thread, monkeypatch):
    """Reading a long prompt may take minutes, and nothing is written meanwhile that would fail."""
    monkeypatch.setattr(respond, "SILENT_SECONDS", 2 * PATIENCE)
    step, turn = engine_thread.engine.step, threading.Event()
    monkeypatch.setattr(engine_thread.engine, "step", lambda: turn.wait() and step())
    try:
        with httpx.stream("POST", f"{server.url}/v1/completions", json=NEVER_ENDING | {"stream": True}):
            assert engine_thread.jobs
        assert eventually(lambda: not engine_thread.jobs)
    finally:
        turn.set()


def test_client_that_does_not_wait_for_its_answer_frees_its_rows(server, engine_thread):
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/completions", json=NEVER_ENDING, timeout=httpx.Timeout(PATIENCE, read=0.5))
    assert eventually(lambda: engine_thread.engine.idle and not engine_thread.owners)


def test_stream_that_waits_sends_comments_which_clients_read_over(server, client, engine_thread, monkeypatch):
    """A proxy would close a connection on which nothing comes."""
    wanted = {"max_tokens": 3, "seed": 1}
    whole = complete(client, **wanted).choices[0].text
    monkeypatch.setattr(respond, "SILENT_SECONDS", 0.01)
    step, turn = engine_thread.engine.step, threading.Event()
    monkeypatch.setattr(engine_thread.engine, "step", lambda: turn.wait() and step())
    try:
        with client.completions.with_streaming_response.create(
            model="tiny", prompt=PROMPT, stream=True, **wanted
        ) as response:
            lines = response.iter_lines()
            assert [next(lines) for _ in range(6)] == [": waiting", ""] * 3
            turn.set()
            assert list(filter(None, lines))[-1] == "data: [DONE]"
        turn.clear()
        stream = complete(client, stream=True, **wanted)
        threading.Timer(0.1, turn.set).start()
        assert "".join(part.choices[0].text for part in stream) == whole
    finally:
        turn.set()


def test_full_queue_turns_clients_away(client, engine_thread):
    # The first eight take all places for a long time and still have samples waiting; 56 more wait behind them.
    first = complete(client, [PROMPT] * 8, stream=True, **NEVER_ENDING_PARAMS)
    with first, complete(client, [PROMPT] * 56, stream=True):
        with pytest.raises(openai.RateLimitError) as refused:
            complete(client)
        assert int(refused.value.response.headers["retry-after"]) > 0
    assert eventually(lambda: engine_thread.engine.idle)
    assert complete(client).choices[0].text


@pytest.mark.parametrize(
    ("path", "param"), [("/v1/completions", "prompt"), ("/v1/embeddings", "input"), ("/v1/lens/completions", "prompt")]
)
@pytest.mark.parametrize("public", [False, True])
def test_many_texts_are_no_long_text(running, model, monkeypatch, path, param, public):
    """Each has a context of its own; strangers may have so much tokenized, and no more, in one request."""
    if public and "lens" in path:
        return  # which strangers do not have
    monkeypatch.setattr(respond, "MAX_TEXT_BYTES", 0)  # so that eight bytes for each of the 1024 tokens are the bound
    limits = PublicSettings(tokens_per_hour=100_000) if public else None
    more = {} if "embeddings" in path else {"max_tokens": 1}
    if "lens" in path:
        more["steering"] = {"toward": ["good"], "away": ["bad"]}
    with running(model, ServeSettings(port=0, public=limits)) as server:

        def answer(texts: list[str]) -> tuple[int, dict[str, str]]:
            found = httpx.post(f"{server.url}{path}", json={param: texts, **more})
            return found.status_code, found.json().get("error")

        status, error = answer(["the " * 257] * 8)
        assert status == (400 if public else 200), error
        if public:
            assert error["code"] == "text_too_long" and error["param"] == param
            assert error["message"].startswith(f"{param} has 8,224 bytes in all; at most 8,192 are read")
        status, error = answer(["x", "y" * 8193])
        assert status == 400 and error["code"] == "context_length_exceeded" and error["param"] == param
        assert "has a text of 8,193 bytes; at most 8,192 are read, because this model's maximum" in error["message"]


def test_more_prompts_than_ever_find_room_in_the_queue_are_refused_for_good(running, model):
    with running(model, ServeSettings(port=0, max_waiting=4)) as server:
        statuses = []
        for n in (4, 5):
            answer = httpx.post(f"{server.url}/v1/completions", json={"prompt": ["a"] * n, "max_tokens": 1})
            statuses.append(answer.status_code)
        error = answer.json()["error"]
        assert statuses == [200, 400] and error["param"] == "prompt"
        assert error["message"] == "the request holds 5 prompts; this server queues 4, so send fewer"


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


@pytest.fixture
def short_of_time(running, model):
    """A server that takes 0.2 s for a step, of up to 256 tokens of prompts, and ends a request after half a second."""
    with running(model, ServeSettings(port=0, time_limit=0.5, max_sequences=2)) as server:
        engine = engine_thread_of(server).engine
        step = engine.step
        engine.step = lambda: time.sleep(0.2) or step()
        yield server


SCORED = {"prompt": [[5] * 500] * 16, "max_tokens": 1, "echo": True, "logprobs": 1}


@pytest.mark.parametrize("body", [SCORED, SCORED | {"max_tokens": 0}, {"prompt": [[5], *[[6] * 1000] * 8], "n": 2}])
def test_prompts_that_are_not_read_in_time_are_an_error_for_the_whole_request(short_of_time, body):
    """An answer without them would be taken for one: a text of no tokens has the probability 1."""
    refused = httpx.post(f"{short_of_time.url}/v1/completions", json=body)
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "time_limit"
    with httpx.stream("POST", f"{short_of_time.url}/v1/completions", json=body | {"stream": True}) as stream:
        events = [line for line in stream.iter_lines() if line]
    assert json.loads(events[-1].removeprefix("data: "))["error"] == refused.json()["error"]
    assert eventually(lambda: engine_thread_of(short_of_time).engine.idle)


def test_an_answer_whose_prompt_was_read_ends_early(short_of_time):
    body = {"prompt": [5] * 9, "max_tokens": 500, "echo": True, "logprobs": 1}
    answer = httpx.post(f"{short_of_time.url}/v1/completions", json=body)
    (choice,) = answer.json()["choices"]
    assert answer.status_code == 200 and choice["finish_reason"] == "length"
    assert 9 <= len(choice["logprobs"]["token_logprobs"]) < 100


def test_a_proxy_is_told_to_pass_on_each_token_at_once(server):
    answer = httpx.post(f"{server.url}/v1/completions", json={"prompt": "the", "max_tokens": 1, "stream": True})
    assert answer.headers["x-accel-buffering"] == "no"


def test_between_two_events_that_wait_the_loss_of_a_connection_is_noticed(byte_tokenizer):
    """A server under load has many at once; each would be written to a connection that is lost."""

    async def turns_at_each_event() -> list[int]:
        job, turns = Job([[1]], SamplingParams(max_tokens=3), None, None, 0), 0
        for reason in (None, None, "length"):
            job.events.put_nowait((0, Chunk(0, "a", 5, reason)))

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        others_run = asyncio.create_task(others())
        seen = [turns async for _ in respond.events(job, ChatWriter(byte_tokenizer), {}, False)]
        others_run.cancel()
        return seen

    seen = asyncio.run(turns_at_each_event())
    assert len(seen) == 4 and seen == sorted(set(seen))


def test_a_sample_that_never_began_is_not_the_best():
    began = [Chunk(0, "good", 5, None, Logprob(5, -0.5, ())), Chunk(0, "", None, "length")]
    never = [Chunk(1, "", None, "length")]
    assert best([never, began], 2) == [1, 0]


def test_thread_sleeps_when_there_is_nothing_to_do(engine_thread, model):
    assert eventually(lambda: engine_thread.engine.idle)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.2
    assert sum(thread.name == "engine" for thread in threading.enumerate()) == 1
