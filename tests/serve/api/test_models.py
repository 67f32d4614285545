"""The description of the served model, and its tokenizer."""

import httpx
import pytest
import torch

from bluejay.infer import weights
from bluejay.infer.weights import token_bytes
from bluejay.serve.settings import ServeSettings


def test_models_are_listed(client):
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("tiny", "model", "bluejay")
    assert model.max_model_len == 1024
    assert client.models.retrieve("tiny") == model


@pytest.mark.parametrize("text", ["the cat", "", "naïve 日本 <|endoftext|>", "\x00\n"])
def test_tokenize_and_detokenize_are_inverse(server, model, text):
    found = httpx.post(f"{server.url}/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert found["tokens"] == model.tokenizer.encode(text)
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    assert httpx.post(f"{server.url}/detokenize", json={"tokens": found["tokens"]}).json() == {"prompt": text}


def test_tokenize_returns_tokens_as_strings(server):
    body = {"prompt": "the é", "return_token_strs": True}
    assert httpx.post(f"{server.url}/tokenize", json=body).json()["token_strs"] == [
        *("the", " ", r"bytes:\xc3", r"bytes:\xa9")
    ]


@pytest.mark.parametrize("tokens", [[259], [2**70], [-1], ["1"], [True], 5])
def test_an_id_outside_the_vocabulary_is_rejected(server, tokens):
    answer = httpx.post(f"{server.url}/detokenize", json={"tokens": tokens})
    assert answer.status_code == 400 and answer.json()["error"]["param"].startswith("tokens")


def test_no_endpoint_reads_more_than_the_limit_of_the_context(model, running):
    with running(model, ServeSettings(max_context=100)) as server:
        assert httpx.get(f"{server.url}/v1/models").json()["data"][0]["max_model_len"] == 100
        body = {"prompt": "a" * 90, "max_tokens": 1000}
        assert httpx.post(f"{server.url}/v1/completions", json=body).json()["usage"]["total_tokens"] == 100
        for path, body in (("completions", {"prompt": "a" * 101}), ("embeddings", {"input": "a" * 101})):
            refused = httpx.post(f"{server.url}/v1/{path}", json=body).json()["error"]
            assert refused["code"] == "context_length_exceeded"
            assert "101 tokens; this model's maximum context length is 100 tokens" in refused["message"]


def test_where_memory_is_short_the_context_is_as_long_as_the_cache(model, running, monkeypatch, capsys):
    each = token_bytes(model.config, torch.float32)
    monkeypatch.setattr(weights, "free_memory", lambda: 2 * each * 512)  # a half is for the cache
    with running(model) as server:
        assert "there is no memory for 8 samples of 1,024 tokens, so the cache holds 512" in capsys.readouterr().err
        assert httpx.get(f"{server.url}/v1/models").json()["data"][0]["max_model_len"] == 512
        body = {"prompt": "a " * 150, "max_tokens": 1000}
        answer = httpx.post(f"{server.url}/v1/completions", json=body).json()
        assert answer["usage"]["total_tokens"] == 512 and answer["choices"][0]["finish_reason"] == "length"
        refused = httpx.post(f"{server.url}/v1/completions", json={"prompt": "a " * 300}).json()["error"]
        assert refused["code"] == "context_length_exceeded"
