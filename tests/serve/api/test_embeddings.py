"""Embeddings over HTTP are those of the library, in both encodings, to clients that exist."""

import time

import httpx
import numpy as np
import openai
import pytest

from bluejay.serve.settings import PublicSettings, ServeSettings

TEXTS = ["the cat", "naïve 日本", "the cat sat on the mat " * 9, ""]


@pytest.mark.parametrize("form", ["float", "base64"])
def test_vectors_are_the_librarys(client, model, form):
    answer = client.embeddings.create(model="tiny", input=TEXTS, encoding_format=form)
    vectors = [one.embedding for one in answer.data]
    if form == "base64":
        assert all(isinstance(vector, str) for vector in vectors)
        answer = client.embeddings.create(model="tiny", input=TEXTS)  # asks for base64 and decodes it
        vectors = [one.embedding for one in answer.data]
    assert np.allclose(vectors, model.embed(TEXTS).numpy(), atol=1e-6)
    assert [one.index for one in answer.data] == [0, 1, 2, 3] and answer.model == "tiny"
    n_tokens = sum(len(model.tokenizer.encode_prompt(text)) for text in TEXTS)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == n_tokens


def test_a_text_may_be_alone_or_token_ids_or_one_of_many(client, model):
    ids = model.tokenizer.encode("the cat")
    expected = model.embed("the cat").numpy()
    for given in ("the cat", ids, [ids], ["the cat"] * 40):
        data = client.embeddings.create(model="tiny", input=given, dimensions=64).data
        assert all(np.allclose(one.embedding, expected, atol=1e-6) for one in data)
        assert len(data) == (40 if len(given) == 40 else 1)


def test_langchain_embeds(server, model):
    from langchain_openai import OpenAIEmbeddings  # takes a second, in every process that collects these tests

    with httpx.Client() as http:
        place = {"base_url": f"{server.url}/v1", "api_key": "none", "max_retries": 0, "http_client": http}
        embeddings = OpenAIEmbeddings(model="tiny", check_embedding_ctx_length=False, **place)
        assert np.allclose(embeddings.embed_documents(TEXTS[:2]), model.embed(TEXTS[:2]).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "input", "missing"),
        ({"input": []}, "input", "input is empty"),
        ({"input": 5}, "input", "must be a string"),
        ({"input": [["a"]]}, "input", "input.0 must be a string or a list of token ids"),
        ({"input": ["a", 5]}, "input", "input.1 must be a string or a list of token ids"),
        ({"input": ["a", None]}, "input", "input.1 must be a string or a list of token ids"),
        ({"input": [1, True]}, "input", "input.0 must be a string or a list of token ids"),
        ({"input": [[1], [2**70]]}, "input", "input.1 holds a token id outside 0..258"),
        ({"input": [-1]}, "input", "input holds a token id outside 0..258"),
        ({"input": ["a"] * 2049}, "input", "holds 2049 texts; at most 2048"),
        ({"input": ["a"] * 20 + ["a " * 2000]}, "input", "input.20 has 4000 tokens; this model's maximum context"),
        ({"input": "a", "dimensions": 8}, "dimensions", "this model's embeddings have 64"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "float"),
        ({"input": "a", "modl": "x"}, "modl", "did you mean model?"),
    ],
)
def test_mistakes_get_a_sentence_and_the_name_of_the_parameter(server, body, param, message):
    answer = httpx.post(f"{server.url}/v1/embeddings", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param and message in error["message"]


def test_a_shutdown_is_noticed_between_two_groups_of_texts(running, model, monkeypatch):
    embed, groups = model.embed, []
    with running(model) as server:

        def embed_and_stop(ids, **options):
            groups.append(len(ids))
            server.models.stopping = True
            return embed(ids, **options)

        monkeypatch.setattr(model, "embed", embed_and_stop)
        answer = httpx.post(f"{server.url}/v1/embeddings", json={"input": ["the cat"] * 40})
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "shutting_down"
    assert groups == [16]


def test_a_request_that_takes_too_long_is_answered_and_ends(running, model, monkeypatch):
    embed, groups = model.embed, []

    def embed_slowly(ids, **options):
        groups.append(len(ids))
        time.sleep(0.3)
        return embed(ids, **options)

    monkeypatch.setattr(model, "embed", embed_slowly)
    whole = 40 * len(model.tokenizer.encode("the cat"))
    limits = PublicSettings(tokens_per_hour=whole * 8 // 5)  # too few for two, unless what is not read is refunded
    with running(model, ServeSettings(port=0, time_limit=0.2, public=limits)) as server:
        for _ in range(2):
            answer = httpx.post(f"{server.url}/v1/embeddings", json={"input": ["the cat"] * 40})
            assert answer.status_code == 503 and answer.json()["error"]["code"] == "time_limit"
    assert groups == [16, 16]


def test_another_models_name_is_refused(client):
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="text-embedding-3-small", input="a")
