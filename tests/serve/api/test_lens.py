"""`/v1/lens`: what is inside the served model, for the people of this machine only."""

import json
import threading
from itertools import pairwise

import httpx
import pytest

from bluejay import load
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import save_model
from bluejay.gpt.init import new_model
from bluejay.lens.steering import steering_cost, steering_vector
from bluejay.serve.api import lens as routes
from bluejay.serve.errors import APIError
from bluejay.serve.settings import PublicSettings, ServeSettings
from tests.waiting import PATIENCE, eventually

TEXT = "the cat the"


def ask(server, **body) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/lens", json=body)


def test_a_look_says_what_the_model_says(server, model):
    answer = ask(server, input=TEXT, without=True).json()
    likeliest = int(model.logits(TEXT)[-1].argmax())
    lens = model.lens()
    assert answer["probabilities"][0]["token"] == lens.text(likeliest) == answer["attribution"]["target"]
    assert answer["attribution"]["total"] == pytest.approx(answer["attribution"]["logit"], abs=1e-4)
    n_tokens, n_layer = len(answer["ids"]), model.config.n_layer
    assert len(answer["layers"]["top"]) == n_layer + 1 and len(answer["layers"]["top"][0]) == n_tokens
    assert [len(layer["pattern"][0][0]) for layer in answer["patterns"]] == [n_tokens] * n_layer
    assert answer["object"] == "lens" and len(answer["without"]["effect"]) == n_tokens


def test_a_look_that_takes_too_long_is_answered(running, model):
    with running(model, ServeSettings(port=0, time_limit=0.0)) as server:
        answer = ask(server, input=TEXT)
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "time_limit"


def test_activations_are_patched_between_two_texts(server, model):
    answer = ask(server, input="the cat", corrupt="the mat", target=5, against=9, part="residual").json()
    recovered = answer["patched"]["recovered"]
    assert len(recovered) == model.config.n_layer and len(recovered[0]) == len(answer["ids"])


def test_the_place_of_each_token_is_told(server):
    answer = ask(server, input="the 日 cat", everywhere=False).json()
    assert answer["text"] == "the 日 cat" and len(answer["layers"]["top"][0]) == 1
    text, starts = answer["text"], answer["starts"]
    pieces = [text[a:b] for a, b in pairwise(starts)]
    assert "".join(pieces) == text and pieces.count("日") == 1 and len(pieces) == len(answer["ids"])


DIRECTION = {"toward": ["the cat", "the mat"], "away": ["zq xv"], "layer": 2}


def test_steering_changes_what_is_written_and_its_cost_is_that_of_the_library(server, model):
    def write(strength: float, **more) -> dict:
        steering = DIRECTION | {"strength": strength}
        body = {"prompt": TEXT, "max_tokens": 6, "temperature": 0, "steering": steering, **more}
        return httpx.post(f"{server.url}/v1/lens/completions", json=body).json()

    plain = model.generate(TEXT, max_tokens=6, temperature=0.0)[0]
    assert write(0.0)["choices"][0]["text"] == plain
    lens = model.lens()
    steering = steering_vector(lens, DIRECTION["toward"], DIRECTION["away"], 2)
    first = int(lens.run(TEXT, write=steering.write(40.0)).logits[0, -1, :259].argmax())
    found = write(40.0, n=2, logprobs=0)
    expected = model.tokenizer.token_bytes()[first]
    token = found["choices"][0]["logprobs"]["tokens"][0]
    assert token == (lens.text(first) if expected.isascii() else f"bytes:\\x{expected.hex()}")
    assert found["choices"][0]["text"] == found["choices"][1]["text"] != plain
    assert found["usage"]["completion_tokens"] == 12
    costs = ask(server, input=TEXT, steering=DIRECTION | {"strength": 40.0}).json()["steering"]
    expected = steering_cost(lens, steering, [0.0, 40.0], [TEXT])
    assert [costs["plain"], costs["steered"]] == pytest.approx(expected) and costs["layer"] == 2


def test_a_steered_stream_ends_with_an_error_event_when_the_server_stops(running, model):
    body = {"prompt": ["the"] * 2, "max_tokens": 1000, "temperature": 0, "stream": True, "steering": DIRECTION}
    with running(model, ServeSettings(drain=0.2)) as server:
        with httpx.stream("POST", f"{server.url}/v1/lens/completions", json=body, timeout=PATIENCE) as response:
            lines = filter(None, response.iter_lines())
            next(lines)
            server.should_exit = True
            last = list(lines)[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steering": DIRECTION | {"layer": 60}}, "there is no layer 60; the layers of this model are 0 to 5"),
        ({"steering": DIRECTION | {"away": [""]}}, "the text '' has one token"),
        ({"steering": DIRECTION | {"away": []}}, "steering.away"),
        ({"steering": DIRECTION | {"strength": 1e9}}, "steering.strength"),
        ({"steering": DIRECTION | {"strenght": 1}}, "did you mean strength?"),
        ({"n": 100}, "at most 8 samples are steered at a time"),
        ({"prompt": "the cat " * 400}, "this model's maximum context length is 1024 tokens"),
        ({"steering": None}, "steering is missing"),
    ],
)
def test_a_mistake_in_steering_is_one_sentence(server, change, message):
    body = {"prompt": TEXT, "steering": DIRECTION} | change
    response = httpx.post(f"{server.url}/v1/lens/completions", json=body)
    assert response.status_code in (400, 422) and message in response.json()["error"]["message"]


def test_a_run_that_kept_models_shows_its_heads_being_born(running, tmp_path, byte_tokenizer):
    config = GPTConfig(n_layer=2, d_model=32, n_head=2, vocab_size=259, n_ctx=64)
    for seed, name in enumerate(("model-step-5", "model-step-20", "model")):
        save_model(new_model(config, seed=seed), byte_tokenizer, tmp_path / "run" / name)
    (tmp_path / "run" / "model-step-20-q4").mkdir()
    rows = [{"step": step, "loss": 5 - step / 10} for step in range(1, 31)]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with running(load(tmp_path / "run" / "model-step-20")) as server:
        at = f"{server.url}/v1/lens/checkpoints"
        answer = httpx.get(at).json()
        assert answer["run"] == "run"
        assert [one["name"] for one in answer["data"]] == ["step-5", "step-20", "model"]
        assert [one["loss"] for one in answer["data"]] == pytest.approx([4.7, 3.45, 2.45])
        first, second = (httpx.get(f"{at}/{name}").json() for name in ("step-5", "step-20"))
        assert len(first["induction"]) == 2 and first["induction"] != second["induction"]
        assert httpx.get(f"{at}/step-6").status_code == 404
        assert [one["share"] for one in answer["data"]] == pytest.approx([5 / 30, 20 / 30, 1])


def test_a_model_that_a_run_kept_continues_a_text(running, tmp_path, byte_tokenizer):
    config = GPTConfig(n_layer=2, d_model=32, n_head=2, vocab_size=259, n_ctx=64)
    for seed, name in enumerate(("model-step-5", "model")):
        save_model(new_model(config, seed=seed), byte_tokenizer, tmp_path / "run" / name)
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 9, "loss": 4}\n')
    asked = {"temperature": 0.7, "top_p": 0.9, "seed": 5}
    with running(load(tmp_path / "run" / "model")) as server:

        def write(name: str, **body) -> httpx.Response:
            return httpx.post(f"{server.url}/v1/lens/checkpoints/{name}/completions", json=body)

        for name in ("step-5", "model"):
            kept = load(tmp_path / "run" / f"model-{name}".removesuffix("-model"))
            answer = write(name, prompt=TEXT, max_tokens=8, **asked).json()
            assert answer["text"] == kept.generate(TEXT, max_tokens=8, **asked)[0]
        assert write("model", prompt="").status_code == 200
        assert write("model", prompt="the cat " * 12, max_tokens=60).status_code == 200  # its end is read
        assert write("step-6", prompt=TEXT).status_code == 404
        refused = write("step-5", prompt=TEXT, max_tokens=10_000)
        assert refused.status_code == 400 and "max_tokens" in refused.json()["error"]["message"]


def test_a_model_without_a_run_has_no_checkpoints(server):
    assert httpx.get(f"{server.url}/v1/lens/checkpoints").json()["data"] == []


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"input": ["the", "cat"]}, "input", "one prompt is looked into at a time; there are 2"),
        ({"input": "the", "target": [5]}, "target", "a token is a text or an id, not [5]"),
        ({"input": 5}, "input", "input must be a string, a list of token ids"),
        ({"input": [None]}, "input", "input.0 must be a string or a list of token ids"),
        ({"input": "the", "corrupt": [True]}, "corrupt", "corrupt.0 must be a string or a list of token ids"),
        ({"input": "the", "position": 40}, "position", "there is no position 40"),
        ({"input": "the cat", "corrupt": "the"}, None, "patched between prompts of equal length"),
        ({"input": "the cat", "corrupt": "the cat " * 400}, "corrupt", "this model's maximum context length is 1024"),
        ({"input": "the", "target": "the cat the cat"}, "target", "name one token"),
        ({"input": "the", "against": 9999}, "against", "there is no token 9999"),
        ({"input": "the", "tuned": True}, "tuned", "has no tuned lens"),
        ({"input": "the", "steering": DIRECTION | {"layer": 60}}, "steering", "there is no layer 60"),
    ],
)
def test_a_mistake_is_one_sentence_that_blames_its_field(server, body, param, message):
    response = ask(server, **body)
    error = response.json()["error"]
    assert response.status_code == 400 and message in error["message"]
    assert (error["param"], error["code"]) == (param, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [("the cat " * 400, "this model's maximum context length"), ("the cat " * 120, "at most 512 are looked at")],
)
def test_a_text_that_is_too_long_is_known_by_its_code(server, text, message):
    error = ask(server, input=text).json()["error"]
    assert (error["param"], error["code"]) == ("input", "text_too_long") and message in error["message"]


def test_for_a_client_that_has_left_nothing_is_computed(server, monkeypatch):
    begun, left, gone_on = [], [], threading.Event()
    look, unless_gone = routes.look, routes.unless_gone

    def slow(lens, ids, *rest):
        begun.append(len(ids))
        assert len(begun) > 1 or gone_on.wait(PATIENCE)
        return look(lens, ids, *rest)

    async def noted(request, work):
        try:
            return await unless_gone(request, work)
        except APIError as error:
            left.append(error.status_code)
            raise

    monkeypatch.setattr(routes, "look", slow)
    monkeypatch.setattr(routes, "unless_gone", noted)
    n_asked = 0
    while not begun or n_asked < 3:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/lens", json={"input": "the cat"}, timeout=0.3)
        n_asked += 1
    assert eventually(lambda: left == [499] * n_asked)
    gone_on.set()
    answer = ask(server, input=TEXT, everywhere=False).json()
    assert len(begun) == 2 and begun[1] == len(answer["ids"])


@pytest.mark.parametrize(
    ("more", "param", "message"),
    [
        ({"corrupt": "the mat", "position": 0}, "position", "position does not go with corrupt; leave one of them out"),
        ({"corrupt": "the mat", "tuned": True}, "tuned", "tuned does not go with corrupt"),
        ({"corrupt": "the mat", "without": True}, "without", "without does not go with corrupt"),
        ({"corrupt": "the mat", "steering": DIRECTION}, "corrupt", "corrupt does not go with steering"),
        ({"part": "mlp"}, "part", "part does not go with a look; it goes with corrupt"),
    ],
)
def test_a_field_that_would_not_be_read_is_refused(server, more, param, message):
    response = ask(server, input="the cat", **more)
    error = response.json()["error"]
    assert response.status_code == 400 and error["param"] == param and message in error["message"]


def test_strangers_are_not_answered(running, model):
    with running(model, ServeSettings(public=PublicSettings())) as server:
        assert ask(server, input=TEXT).status_code in (404, 405)
        assert httpx.get(f"{server.url}/v1/lens/checkpoints").status_code == 404
        body = {"prompt": TEXT, "steering": DIRECTION}
        assert httpx.post(f"{server.url}/v1/lens/completions", json=body).status_code in (404, 405)
