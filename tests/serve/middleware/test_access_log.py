"""The request log and the metrics for Prometheus."""

import json
import logging
import re

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bluejay.serve.settings import ServeSettings
from tests.waiting import PATIENCE, eventually

SECRET = "my diary of the cat"


@pytest.fixture
def log(caplog):
    """The request log."""
    with caplog.at_level(logging.INFO, "bluejay.requests"):
        yield caplog


def lines(log, count: int) -> list[dict]:
    """The lines of the request log, once there are `count`: a line is written after its response was sent."""

    def written() -> list[dict]:
        return [json.loads(record.message) for record in log.records if record.name == "bluejay.requests"]

    assert eventually(lambda: len(written()) >= count)
    return written()


def ask(server, body) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/completions", json=body)


def test_every_request_is_logged_without_its_prompt(server, model, log):
    whole = ask(server, {"prompt": SECRET, "max_tokens": 7, "user": SECRET})
    ask(server, {"prompt": SECRET, "max_tokens": 7, "stream": True})
    refused = ask(server, {"prompt": [SECRET, 1]})
    httpx.post(f"{server.url}/nowhere/{'x' * 5000}?prompt={SECRET}")
    httpx.get(server.url)  # the page is no news
    first, second, third, fourth = lines(log, 4)
    assert first["id"] == whole.headers["x-request-id"] != second["id"]
    assert (first["method"], first["path"], first["client"]) == ("POST", "/v1/completions", "127.0.0.1")
    assert first["prompt_tokens"] == second["prompt_tokens"] == len(model.tokenizer.encode(SECRET))
    assert first["generated_tokens"] == second["generated_tokens"] == 7
    assert 0 < first["first_token_seconds"] < first["seconds"]
    assert first["complete"] and second["complete"] and first["status"] == second["status"] == 200
    assert third["status"] == refused.status_code == 400 and "prompt_tokens" not in third
    assert fourth["status"] == 404 and len(fourth["path"]) == 200
    assert "diary" not in log.text and "the cat" not in log.text


def test_the_log_has_a_line_for_every_request_to_the_api_and_none_for_the_page_and_probes(server, log):
    page = httpx.get(server.url)
    file = re.search(r'src="([^"]+)"', page.text)[1]
    for path in (file, "healthz", "readyz", "metrics"):
        assert httpx.get(f"{server.url}/{path}").status_code == 200
    assert lines(log, 0) == []
    posted = {"/tokenize": {"prompt": SECRET}, "/detokenize": {"tokens": [5]}, "/v1/lens": {"input": SECRET}}
    got = ["/v1/models", "/card", "/v1/trace", "/v1/lens/checkpoints"]
    for path, body in posted.items():
        assert httpx.post(f"{server.url}{path}", json=body).status_code == 200
    for path in got:
        assert httpx.get(f"{server.url}{path}").status_code == 200
    asked = [*posted, *got]
    assert [(line["path"], line["status"]) for line in lines(log, len(asked))] == [(path, 200) for path in asked]
    assert "diary" not in log.text


def test_a_client_that_disconnects_is_logged_with_status_499(server, log):
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{server.url}/v1/completions",
            json={"prompt": "the", "max_tokens": 1000, "n": 100},
            timeout=httpx.Timeout(PATIENCE, read=0.3),
        )
    ask(server, {"prompt": "the", "max_tokens": 100})  # by then the first has been forgotten
    assert sorted((line["status"], line["complete"]) for line in lines(log, 2)) == [(200, True), (499, False)]


def test_a_stream_that_fails_is_logged_with_its_error(server, engine_thread, monkeypatch, log):
    monkeypatch.setattr(engine_thread.engine, "step", lambda: 1 / 0)
    ask(server, {"prompt": "the", "max_tokens": 2, "stream": True})
    ask(server, {"prompt": "the", "max_tokens": 2, "stream": True})
    failed, whole = lines(log, 2)
    assert (failed["status"], failed["error"]) == (200, "generation_failed")
    assert whole["status"] == 200 and "error" not in whole


def test_prompts_are_logged_on_request(running, model, log):
    with running(model, ServeSettings(port=0, log_prompts=True)) as server:
        ask(server, {"prompt": [SECRET, "x"], "max_tokens": 2})
    assert lines(log, 1)[0]["prompts"] == [SECRET, "x"]


def figures(server) -> dict[str, float]:
    """The metrics as Prometheus reads them."""
    text = httpx.get(f"{server.url}/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}


def test_prometheus_metrics_count_requests_and_tokens(running, model):
    with running(model, ServeSettings(port=0)) as server:
        before = figures(server)
        assert before["bluejay_samples_limit"] == 8 and before["bluejay_cache_pages_limit"] > 0
        ask(server, {"prompt": "the cat the cat the cat", "max_tokens": 20, "n": 2})
        ask(server, {"prompt": "the cat the cat the cat", "max_tokens": 20})
        ask(server, {"prompt": 5})
        body = {"prompt": "the", "max_tokens": 1000, "n": 100, "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body) as response:
            lines = response.iter_lines()  # held, because a generator that nobody holds closes the connection
            for _ in range(20):
                next(lines)
            during = figures(server)
            assert during["bluejay_samples_running"] >= 1 and during["bluejay_cache_pages_held"] > 0
        ask(server, {"prompt": "the", "max_tokens": 100})
        assert eventually(lambda: figures(server)["bluejay_requests_total /v1/completions 200"] == 4)
        assert eventually(lambda: figures(server)["bluejay_samples_running"] == 0)  # the stream is forgotten
        after = figures(server)
    assert (
        after["bluejay_samples_running"] == after["bluejay_cache_pages_held"] == 0 < after["bluejay_cache_pages_kept"]
    )
    assert after["bluejay_requests_total /v1/completions 400"] == 1
    n_prompt = len(model.tokenizer.encode("the cat the cat the cat"))
    assert during["bluejay_tokens_total prompt"] + during["bluejay_tokens_total reused"] >= 3 * n_prompt
    assert during["bluejay_tokens_total reused"] >= n_prompt
    assert after["bluejay_tokens_total generated"] >= 160
    assert after["bluejay_first_token_seconds_count"] == 4
    assert after["bluejay_inter_token_seconds_count"] >= 19 * 3
    assert after["bluejay_steps_total"] >= 40
