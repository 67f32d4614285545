"""Several models on one server: each is loaded when it is asked for, and goes when another needs its room, but never
while it answers."""

import gc
import json
import re
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import save_model
from bluejay.gpt.init import new_model
from bluejay.infer.model import Model, load
from bluejay.infer.needs import INSIDE, MODEL
from bluejay.serve.api import offered as offering
from bluejay.serve.api.model_catalogue import Catalogue
from bluejay.serve.api.offered import offer, room_for_models
from bluejay.serve.settings import PublicSettings, ServeSettings
from tests.waiting import PATIENCE, eventually

NAMES = ("ada", "bob", "cyd", "dan")
SETTINGS = ServeSettings(max_sequences=2)
LONG = 4000
"""Tokens of each of many samples, which do not end while a test looks at others."""
STREAMED = 1500
"""Tokens of an answer that lasts while other models are loaded."""
http = httpx.Client(timeout=PATIENCE)
CARD = "---\nlicense: mit\n---\n# Ada\n\nA model.\n\n## Intended use\n\nWrites **nonsense** in [bytes](x). More.\n"


@pytest.fixture(scope="module")
def folders(byte_tokenizer, tmp_path_factory) -> list[str]:
    """Four models that never end a text; the first has a card."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(NAMES):
        gpt = new_model(GPTConfig(n_layer=2, d_model=32, n_head=2, vocab_size=259, n_ctx=4096), seed)
        gpt.head.bias.data[byte_tokenizer.eot] = -1e4
        save_model(gpt.requires_grad_(False), byte_tokenizer, folder / name)
    (folder / "ada" / "README.md").write_text(CARD)
    return [str(folder / name) for name in NAMES]


@pytest.fixture(scope="module", autouse=True)
def closing():
    yield
    http.close()


@pytest.fixture
def serving(running, folders):
    """A server with room for so many of the four models, of which the first is loaded."""

    def serve(n: int = 3, settings: ServeSettings = SETTINGS, more: int = 0):
        offered = offer(folders, settings, "cpu", False)
        return running(Catalogue(offered, settings, n * offered[0].needs[MODEL] + more), settings)

    return serve


def ask(server, model: str | None = None, **body) -> httpx.Response:
    named = {} if model is None else {"model": model}
    body = {"prompt": "the", "max_tokens": 5, "temperature": 0, **named, **body}
    return http.post(f"{server.url}/v1/completions", json=body)


def text(model: Model, max_tokens: int) -> str:
    """What `ask` and `Stream` must get from a model."""
    return model.generate("the", max_tokens=max_tokens, temperature=0)[0]


def loaded(server) -> list[str]:
    return [one["id"] for one in http.get(f"{server.url}/v1/models").json()["data"] if one["loaded"]]


class Stream:
    """A stream that has begun, and is read to its end by `finish`."""

    def __init__(self, stack: ExitStack, server, model: str, max_tokens: int) -> None:
        body = {"model": model, "prompt": "the", "max_tokens": max_tokens, "temperature": 0, "stream": True}
        body["n"] = 100 if max_tokens == LONG else 1
        response = stack.enter_context(http.stream("POST", f"{server.url}/v1/completions", json=body))
        assert response.status_code == 200
        self.response, self.lines = response, (line[6:] for line in response.iter_lines() if line)
        self.first = json.loads(next(self.lines))

    def finish(self) -> tuple[str, str | None]:
        """The whole text, and why it ended."""
        events = [json.loads(line) for line in self.lines if line != "[DONE]"]
        choices = [event["choices"][0] for event in (self.first, *events)]
        return "".join(choice["text"] for choice in choices), choices[-1]["finish_reason"]


def test_a_fourth_model_takes_the_place_of_the_one_unused_for_longest_while_streams_run(serving, folders):
    alone = {name: load(folder) for name, folder in zip(NAMES, folders, strict=True)}
    with serving() as server, ExitStack() as stack:
        assert loaded(server) == ["ada"]
        streams = {name: Stream(stack, server, name, STREAMED) for name in ("ada", "bob")}
        assert ask(server, "cyd").status_code == 200
        assert loaded(server) == ["ada", "bob", "cyd"]
        assert ask(server, "dan").json()["choices"][0]["text"] == text(alone["dan"], 5)
        assert loaded(server) == ["ada", "bob", "dan"]
        for name, stream in streams.items():
            assert stream.finish() == (text(alone[name], STREAMED), "length")
        # The memory that is set aside never exceeds the room, and what was counted stays counted.
        metrics = http.get(f"{server.url}/metrics").text
        families = {family.name: family.samples for family in text_string_to_metric_families(metrics)}
        bytes_of = {sample.labels["model"]: sample.value for sample in families["bluejay_model_bytes"]}
        assert bytes_of["cyd"] == 0 and 0 < sum(bytes_of.values()) <= server.models.room
        loads = {s.labels["model"]: s.value for s in families["bluejay_model_loads"] if s.name.endswith("total")}
        assert loads == dict.fromkeys(NAMES, 1)
        places = {sample.labels["model"]: sample.value for sample in families["bluejay_samples_limit"]}
        assert places == {"ada": 2, "bob": 2, "cyd": 0, "dan": 2}
        drawn = {s.labels["model"]: s.value for s in families["bluejay_tokens"] if s.labels.get("kind") == "generated"}
        assert drawn == {"ada": STREAMED, "bob": STREAMED, "cyd": 5, "dan": 5}
        # It comes back, in the place of the one whose last use is longest ago, and answers as before.
        assert ask(server, "ada").status_code == ask(server, "dan").status_code == 200
        assert ask(server, "cyd").json()["choices"][0]["text"] == text(alone["cyd"], 5)
        assert loaded(server) == ["ada", "cyd", "dan"]


@pytest.mark.slow
def test_a_model_waits_while_all_others_answer_and_is_told_so(serving):
    with serving(2, ServeSettings(max_sequences=2, model_wait=1.5)) as server, ExitStack() as stack:
        streams = [Stream(stack, server, name, LONG) for name in ("ada", "bob")]
        refused = ask(server, "dan")
        assert refused.status_code == 503 and refused.headers["retry-after"]
        error = refused.json()["error"]
        assert error["code"] == "model_not_ready"
        assert error["message"].startswith("dan could not be made ready within 1.5 s: the models in memory are all")
        assert ask(server, "bob").status_code == 200  # nobody waits behind it
        streams[1].response.close()
        assert eventually(lambda: ask(server, "dan").status_code == 200)
        assert loaded(server) == ["ada", "dan"]


def test_a_waiting_request_is_answered_as_soon_as_there_is_room(serving):
    with serving(1) as server, ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        stream = Stream(stack, server, "ada", 200)
        waiting = [pool.submit(ask, server, name) for name in ("bob", "cyd")]
        assert eventually(lambda: sum(one.users for one in server.models.offered.values()) == 3)
        assert stream.finish()[1] == "length"
        assert [one.result(PATIENCE).status_code for one in waiting] == [200, 200]


def test_models_whose_requests_only_wait_make_room_for_each_other(serving):
    with serving(2) as server, ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        streams = [Stream(stack, server, name, LONG) for name in ("ada", "bob")]

        def embed(name: str) -> int:
            return http.post(f"{server.url}/v1/embeddings", json={"input": "the", "model": name}).status_code

        waiting = [pool.submit(embed, name) for name in ("ada", "bob")]  # for each the other would have to go
        models = [server.models.offered[name] for name in ("ada", "bob")]
        assert eventually(lambda: [one.waiting for one in models] == [1, 1])
        for stream in streams:
            stream.response.close()
        assert [one.result(PATIENCE) for one in waiting] == [200, 200]
        assert [one.waiting for one in models] == [0, 0]


def test_nothing_is_loaded_for_a_client_that_went_away(serving):
    with serving(1) as server, ExitStack() as stack:
        stream = Stream(stack, server, "ada", LONG)
        with pytest.raises(httpx.ReadTimeout):
            http.post(f"{server.url}/v1/completions", json={"model": "bob"}, timeout=httpx.Timeout(PATIENCE, read=0.2))
        assert eventually(lambda: not server.models.offered["bob"].users)
        stream.response.close()
        assert eventually(lambda: not server.models.offered["ada"].users)
        assert loaded(server) == ["ada"]


def test_requests_that_wait_for_a_model_are_told_of_a_shutdown(serving):
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        with serving(1, ServeSettings(max_sequences=2, drain=0.0)) as server:
            stream = Stream(stack, server, "ada", LONG)  # which is closed when nobody holds it
            waiting = pool.submit(ask, server, "bob")
            assert eventually(lambda: server.models.offered["bob"].users)
        assert waiting.result(PATIENCE).json()["error"]["code"] == "shutting_down"
        assert stream.first["model"] == "ada"


def test_memory_of_a_model_that_went_is_free(serving):
    with serving(1) as server:
        service = server.models.first.service
        parts = service, service.model, service.model.weights, service.engine_thread.engine
        known = [weakref.ref(part) for part in parts]
        del service, parts
        assert ask(server, "bob").status_code == 200
        gc.collect()
        assert [part() for part in known] == [None] * len(known)


def test_a_model_is_named_in_the_body_or_in_the_query_and_else_the_first_answers(serving, folders):
    with serving(4) as server:
        assert {name: ask(server, name).json()["model"] for name in NAMES} == {name: name for name in NAMES}
        assert ask(server).json()["model"] == "ada"
        prints = {ask(server, name).json()["system_fingerprint"] for name in NAMES}
        assert len(prints) == 4
        by_query = http.post(f"{server.url}/v1/completions?model=cyd", json={"prompt": "the"})
        assert by_query.json()["model"] == "cyd"
        in_both = http.post(f"{server.url}/v1/completions?model=cyd", json={"prompt": "the", "model": "bob"})
        assert in_both.json()["model"] == "bob"
        queries = ("", "?model=bob")
        legacy = [http.post(f"{server.url}/complete{q}", json={"context": "the", "temp": 0}).json() for q in queries]
        expected = [text(load(folder), 256) for folder in folders[:2]]
        assert [one["completion"] for one in legacy] == expected
        for path, body in [
            ("/v1/completions", {"prompt": "the"}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "the"}]}),
            ("/v1/embeddings", {"input": "the"}),
            ("/v1/lens", {"input": "the"}),
            ("/v1/trace", {"input": "the"}),
            ("/tokenize", {"prompt": "the"}),
        ]:
            error = http.post(f"{server.url}{path}", json={**body, "model": "eve"}).json()["error"]
            assert error["code"] == "model_not_found" and error["param"] == "model", path
            assert error["message"] == "there is no model 'eve' here; this server has 'ada', 'bob', 'cyd' and 'dan'"
        for path in ("/card", "/v1/trace", "/v1/lens/checkpoints"):
            assert http.get(f"{server.url}{path}?model=eve").status_code == 404, path
            assert http.get(f"{server.url}{path}?model=dan").status_code == 200, path
        assert http.get(f"{server.url}/v1/models/eve").status_code == 404


def test_models_are_listed_with_what_they_are_good_for_before_they_are_loaded(serving):
    with serving() as server:
        listed = http.get(f"{server.url}/v1/models").json()["data"]
        assert [one["id"] for one in listed] == list(NAMES)
        assert [one["good_for"] for one in listed] == ["Writes nonsense in bytes.", *["Continues texts."] * 3]
        assert [one["loaded"] for one in listed] == [True, False, False, False]
        assert all(one["memory_bytes"] == server.models.first.needs[MODEL] for one in listed)
        assert http.get(f"{server.url}/v1/models/cyd").json() == listed[2]
        card = http.get(f"{server.url}/card").json()
        assert card["text"].startswith("# Ada") and card["facts"]["Licence"] == "mit"
        assert http.get(f"{server.url}/card?model=bob").json()["text"] == ""
        assert loaded(server) == ["ada"]


@pytest.mark.slow
def test_embeddings_and_the_lens_go_with_the_model_and_need_room_of_their_own(serving):
    with serving(1, more=1000) as server:
        refused = http.post(f"{server.url}/v1/lens", json={"input": "the"})
        assert refused.status_code == 400 and refused.json()["error"]["code"] == "memory_too_small"
        said = refused.json()["error"]["message"]
        assert re.match(r"looking inside with ada needs .* of memory; this server has", said)
    with serving(2) as server:
        bodies = [{"input": "the", "model": name} for name in ("ada", "bob")]
        answers = [http.post(f"{server.url}/v1/embeddings", json=body).json() for body in bodies]
        vectors = [answer["data"][0]["embedding"] for answer in answers]
        assert vectors[0] != vectors[1]
        assert loaded(server) == ["bob"]  # with the cache that embeddings are read with, two do not fit
        seen = http.post(f"{server.url}/v1/lens", json={"input": "the cat", "model": "cyd"}).json()
        assert seen["model"] == "cyd"
        assert server.models.offered["cyd"].n_bytes > server.models.offered["cyd"].needs[INSIDE]
        assert sum(one.n_bytes for one in server.models.offered.values()) <= server.models.room


def test_a_model_that_cannot_be_loaded_any_more_is_said_and_the_others_go_on(running, folders):
    def broken():
        raise FileNotFoundError(2, "No such file or directory", "/srv/bob/model.safetensors")

    for public, why in ((None, "No such file or directory: /srv/bob"), (PublicSettings(), "the server's log says why")):
        settings = ServeSettings(max_sequences=2, public=public)
        offered = offer(folders[:2], settings, "cpu", False)
        offered[1].load = broken
        with running(Catalogue(offered, settings, 10**9), settings) as server:
            refused = ask(server, "bob")
            assert refused.status_code == 503 and why in refused.json()["error"]["message"]
            assert ask(server, "ada").status_code == ask(server).status_code == 200
            assert not offered[1].n_bytes


def test_another_model_in_the_place_of_the_one_that_was_offered_is_not_loaded(running, folders, tmp_path):
    shutil.copytree(folders[1], tmp_path / "bob")
    offered = offer([folders[0], str(tmp_path / "bob")], SETTINGS, "cpu", False)
    larger = new_model(GPTConfig(n_layer=4, d_model=64, n_head=2, vocab_size=259, n_ctx=64), 0)
    save_model(larger.requires_grad_(False), load(folders[1]).tokenizer, tmp_path / "bob")
    with running(Catalogue(offered, SETTINGS, 10**9), SETTINGS) as server:
        refused = ask(server, "bob")
        assert refused.status_code == 503 and "another model than when" in refused.json()["error"]["message"]
        assert ask(server, "ada").status_code == 200


def test_models_that_cannot_be_served_together_are_refused_at_the_start(folders, byte_tokenizer, tmp_path):
    save_model(load(folders[0]).gpt, byte_tokenizer, tmp_path / "ada")
    with pytest.raises(ValueError, match=r"ada and .*ada are both called ada; .* rename one of the folders$"):
        offer([folders[0], str(tmp_path / "ada")], SETTINGS, "cpu", False)
    with pytest.raises(FileNotFoundError, match="no model at"):
        offer([folders[0], str(tmp_path / "nothing")], SETTINGS, "cpu", False)
    offered = offer(folders, SETTINGS, "cpu", False)
    for given, said in (("1 MB", "the server has 1 MB"), ("0 GB", "the server has 0 kB")):
        with pytest.raises(ValueError, match=rf"^{said} of memory, of which .*; \w+ alone needs .* and room"):
            room_for_models(offered, ServeSettings(memory=given), "cpu")
    assert room_for_models(offered, SETTINGS, "cpu") > 4 * offered[0].needs[MODEL]
    with pytest.raises(ValueError, match=r"^memory is '4'; write a number and a unit"):
        ServeSettings(memory="4")


def test_a_model_whose_whole_cache_does_not_fit_has_a_smaller_one(running, folders, monkeypatch):
    monkeypatch.setattr(offering, "resident_memory", lambda: 0)
    offered = offer(folders[:2], SETTINGS, "cpu", False)
    need = offered[1].memory
    settings = replace(SETTINGS, memory=f"{(need.weights + need.work + need.cache // 2) // 1000 + 1} kB")
    room = room_for_models(offered, settings, "cpu")
    with running(Catalogue(offered, settings, room), settings) as server:
        before = http.get(f"{server.url}/v1/models/bob").json()
        assert before["max_model_len"] == 2048 and before["memory_bytes"] <= room  # a half of the half
        assert ask(server, "bob").json()["choices"][0]["text"] == text(load(folders[1]), 5)
        assert http.get(f"{server.url}/v1/models/bob").json() == {**before, "loaded": True}


def test_a_limit_of_the_context_makes_room(folders):
    needs = [offer(folders[:1], replace(SETTINGS, max_context=n), "cpu", False)[0].memory for n in (None, 9999, 1024)]
    assert [need.cache for need in needs] == [needs[0].cache, needs[0].cache, needs[0].cache // 4]
