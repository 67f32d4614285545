"""Clients of the APIs of 2021 and 2022 get the responses that they expect."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from bluejay.infer.params import SamplingParams
from bluejay.serve.api import legacy
from tests.waiting import eventually


def post(server, path, **body) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body)


GREEDY = {"top_p": 0.9, "temp": 0}


def test_complete_continues_a_context(server, model):
    answer = post(server, "/complete", context="the cat", **GREEDY)
    expected = model.generate("the cat", SamplingParams(max_tokens=256, temperature=0.0))[0]
    assert answer.status_code == 200 and answer.json() == {"completion": expected}
    assert len(post(server, "/complete", context="the cat", top_p=0.9, temp=1.0).json()["completion"]) > 100


def test_completion_of_2022_continues_a_context(server, model):
    expected = model.generate("the cat", SamplingParams(max_tokens=7, temperature=0.0))[0]
    body = {"context": "the cat", "response_length": 7, **GREEDY}
    assert post(server, "/completion", **body, remove_input=True).json() == [{"generated_text": expected}]
    assert post(server, "/completion", **body, remove_input=False).json() == [{"generated_text": "the cat" + expected}]


def test_the_end_of_a_long_context_is_read(server, model):
    context = "x" * 5000 + "the cat"
    tokens = model.tokenizer.encode(context)
    answer = post(server, "/complete", context=context, **GREEDY).json()["completion"]
    end = model.tokenizer.decode(tokens[-(1024 - 256) :])
    assert answer == post(server, "/complete", context=end, **GREEDY).json()["completion"]


def test_predictions_can_be_fetched(server, model):
    expected = model.generate("the cat", SamplingParams(max_tokens=20, temperature=0.0))[0]
    ticket = post(server, "/model/predict", context="the cat", length=20, **GREEDY).json()
    assert set(ticket) == {"qid"}
    with ThreadPoolExecutor(2) as pool:  # as often as one likes
        for answer in pool.map(lambda _: post(server, "/model/get_prediction", **ticket), range(2)):
            assert answer.json() | {"time": 0} == {"context": "the cat", "completion": expected, "time": 0}
            assert answer.json()["time"] > 0
    refused = post(server, "/model/get_prediction", qid=ticket["qid"] ^ 1)
    assert refused.status_code == 404 and set(refused.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("body", [{}, {"context": 5}, {"context": "x", "temp": "hot"}, {"context": "x", "topp": 1}])
def test_invalid_requests_are_rejected_with_a_sentence(server, body):
    refused = post(server, "/complete", **body)
    assert refused.status_code == 400 and refused.json()["error"]["message"]


def test_predictions_expire(running, model, monkeypatch):
    monkeypatch.setattr(legacy, "PREDICTION_SECONDS", 0.1)
    monkeypatch.setattr(legacy, "MAX_PREDICTED_CHARACTERS", 100)
    with running(model) as server:
        ticket = post(server, "/model/predict", context="the cat", length=20, **GREEDY).json()
        assert post(server, "/model/get_prediction", **ticket).status_code == 200
        assert eventually(lambda: post(server, "/model/get_prediction", **ticket).status_code == 404)
        monkeypatch.setattr(legacy, "PREDICTION_SECONDS", 600)
        ticket = post(server, "/model/predict", context="x" * 90, length=2, **GREEDY).json()
        assert post(server, "/model/get_prediction", **ticket).status_code == 200
        assert "qid" in post(server, "/model/predict", context="y" * 90, length=2, **GREEDY).json()
        assert post(server, "/model/get_prediction", **ticket).status_code == 404  # it had to make room
