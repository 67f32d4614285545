"""`/v1/trace`: a text that a client sends leads to its documents, within limits, and only where it is switched on."""

import shutil

import httpx
import pytest

from bluejay.infer.model import Model
from bluejay.native import native
from bluejay.serve.api.model_catalogue import Catalogue, catalogue_of
from bluejay.serve.settings import PublicSettings, ServeSettings
from bluejay.tokens import TokenShard
from bluejay.trace.indexing import index
from tests.trace.conftest import write_corpus
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(not hasattr(native, "first_rows"), reason="built without the native part")

TEXT = "a sentence of a document that the model has read"
LOCAL = "notes that lie on the disk of whoever made the corpus"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, byte_tokenizer):
    folder = tmp_path_factory.mktemp("trace") / "corpus"
    texts = (f"before {TEXT} after", "another", LOCAL)
    ids = [[*byte_tokenizer.encode(text), byte_tokenizer.eot] for text in texts]
    rows = [{"licence": "MIT", "url": "https://example.org"}, {}, {"url": "/home/ann/private/notes.txt"}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLUEJAY_CACHE", str(folder.parent / "cache"))
        index(write_corpus(folder, {"train": ids}, rows={"train": rows}))
    byte_tokenizer.save(folder)
    return folder


def n_tokens(corpus) -> int:
    """The tokens of the corpus."""
    return len(TokenShard(corpus / "tokens" / "train").tokens)


@pytest.fixture(scope="module")
def traced(running, model, byte_tokenizer, corpus, tmp_path_factory):
    """A server that has the corpus, for questions that change nothing."""
    served = Model(model.weights, byte_tokenizer, "tiny")
    served.path = tmp_path_factory.mktemp("served")
    byte_tokenizer.save(served.path)
    with running(served, ServeSettings(corpus=(str(corpus),))) as server:
        yield server


def answer_of(server, path, body):
    return httpx.get(f"{server.url}{path}") if body is None else httpx.post(f"{server.url}{path}", json=body)


@pytest.fixture
def ask(running, model, byte_tokenizer, corpus, tmp_path, traced):
    """Asks a server that has the corpus."""

    def send(body, path="/v1/trace", public=None, corpora=(str(corpus),)):
        if public is None and corpora == (str(corpus),):
            return answer_of(traced, path, body)
        served = Model(model.weights, byte_tokenizer, "tiny")
        byte_tokenizer.save(tmp_path)
        served.path = tmp_path
        with running(served, ServeSettings(corpus=corpora, public=public)) as server:
            return answer_of(server, path, body)

    return send


def test_a_sentence_leads_to_its_document_and_what_is_around_it(ask, corpus):
    answer = ask({"input": f"so: {TEXT}!", "infinigram": True}).json()
    [span] = answer["spans"]
    assert TEXT in span["text"] and span["count"] == 1
    [document] = span["documents"]
    assert document["licence"] == "MIT" and document["corpus"] == "corpus" and document["url"] == "https://example.org"
    assert len(answer["infinigram"]) == len(answer["tokens"]) and set(answer["shares"]) >= {"quoted", "new"}
    place = {name: document[name] for name in ("corpus", "split", "position")}
    snippet = ask({**place, "length": span["end"] - span["start"], "around": 5}, "/v1/trace/snippet").json()
    assert snippet["match"] == span["text"] and snippet["before"].endswith("fore")
    status = {"available": True, "reason": None, "charged": False}
    assert ask(None).json() == {**status, "corpora": [{"name": "corpus", "tokens": n_tokens(corpus)}]}


def test_a_snippet_is_of_the_corpus_that_the_document_names(ask, corpus, tmp_path, byte_tokenizer, monkeypatch):
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))
    other = tmp_path / "other" / "corpus"
    ids = [*byte_tokenizer.encode(f"elsewhere there is {TEXT}, too"), byte_tokenizer.eot]
    byte_tokenizer.save(write_corpus(other, {"train": [ids]}))
    index(other)
    corpora = (str(corpus), str(other))
    named = [one["name"] for one in ask(None, corpora=corpora).json()["corpora"]]
    [span] = ask({"input": TEXT}, corpora=corpora).json()["spans"]
    assert [document["corpus"] for document in span["documents"]] == named
    for document, begins in zip(span["documents"], ("before ", "elsewhere there is "), strict=True):
        place = {name: document[name] for name in ("corpus", "split", "position")}
        snippet = ask({**place, "length": span["end"] - span["start"]}, "/v1/trace/snippet", corpora=corpora).json()
        assert (snippet["before"], snippet["match"]) == (begins, TEXT)


def test_strangers_may_only_ask_where_it_is_switched_on_and_pay_for_it(ask):
    assert ask({"input": TEXT}, public=PublicSettings()).status_code in (404, 405)
    on = PublicSettings(trace=True, tokens_per_hour=200)
    answer = ask({"input": TEXT}, public=on)
    assert answer.status_code == 200 and answer.json()["notes"] == []
    assert answer.json()["spans"][0]["documents"][0]["url"] == "https://example.org"
    assert "ann" not in ask({"input": LOCAL}, public=on).text
    assert "/home/ann" in ask({"input": LOCAL}).text
    refused = ask({"input": TEXT * 20}, public=on)
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "token_budget_exceeded"


def test_a_model_that_is_added_later_is_traced_as_any(running, model, byte_tokenizer, corpus, tmp_path):
    settings = ServeSettings(corpus=(str(corpus),))
    byte_tokenizer.save(tmp_path)
    first, later = (Model(model.weights, byte_tokenizer, name) for name in ("first", "later"))
    later.path = tmp_path
    models = Catalogue([catalogue_of(first, settings).first], settings, may_grow=True)
    with running(models, settings) as server:
        models.add(catalogue_of(later, settings).first)
        assert httpx.get(f"{server.url}/v1/trace?model=later").json()["available"]
        assert httpx.post(f"{server.url}/v1/trace/index?model=later").json()["making"] is False
        [span] = httpx.post(f"{server.url}/v1/trace", json={"input": TEXT, "model": "later"}).json()["spans"]
        place = {name: span["documents"][0][name] for name in ("corpus", "split", "position")}
        asked = {**place, "length": 5, "model": "later"}
        assert httpx.post(f"{server.url}/v1/trace/snippet", json=asked).json()["match"] == TEXT[:5]


@pytest.mark.parametrize(
    "body, param",
    [
        ({"input": "a" * 5000}, "input"),
        ({"input": [1, -1]}, "input"),
        ({"input": [1, 99_999]}, "input"),
        ({"input": [1, 10**30]}, "input"),
        ({"input": [1, -(10**400)]}, "input"),
        ({"input": "abc", "logprobs": [0.0, -1e308, -1e308]}, "logprobs.1"),
        ({"input": "abc", "min_tokens": 10**400}, "min_tokens"),
        ({"input": {"a": 1}}, "input"),
        ({"input": "abc", "logprobs": [0.0]}, "logprobs"),
        ({"input": "abc", "documents": 11}, "documents"),
    ],
)
def test_what_cannot_be_traced_is_refused_by_its_parameter(ask, body, param):
    refused = ask(body)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == param


def test_a_missing_index_is_made_on_request_but_not_for_strangers(
    running, model, byte_tokenizer, corpus, tmp_path, monkeypatch
):
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))
    bare = tmp_path / "bare"
    shutil.copytree(corpus, bare)
    shutil.rmtree(bare / "index")
    served = Model(model.weights, byte_tokenizer, "tiny")
    byte_tokenizer.save(tmp_path)
    served.path = tmp_path
    with running(served, ServeSettings(corpus=(str(bare),), public=PublicSettings(trace=True))) as server:
        assert httpx.get(f"{server.url}/v1/trace").json()["index"] is None
        assert httpx.post(f"{server.url}/v1/trace/index").status_code == 403
    assert not (bare / "index").exists()
    with running(served, ServeSettings(corpus=(str(bare),))) as server:
        status = httpx.get(f"{server.url}/v1/trace").json()
        assert (
            status["index"]["tokens"] == n_tokens(bare)
            and status["index"]["bytes"] > 0
            and status["index"]["done"] is None
        )
        assert httpx.post(f"{server.url}/v1/trace/index").status_code == 202
        assert eventually(lambda: httpx.get(f"{server.url}/v1/trace").json()["available"])
        assert httpx.post(f"{server.url}/v1/trace", json={"input": TEXT}).json()["spans"]
        assert httpx.post(f"{server.url}/v1/trace/index").json()["making"] is False


def test_without_a_corpus_the_answer_says_why(ask):
    answer = ask({"input": TEXT}, corpora=())
    assert answer.status_code == 404 and "--corpus" in answer.json()["error"]["message"]
    status = ask(None, corpora=()).json()
    assert not status["available"] and "--corpus" in status["reason"]
