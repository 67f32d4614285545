"""`/v1/lens`: what is inside the served model, for the people of this machine only."""

import httpx
import pytest

from bluejay.serve.settings import PublicSettings, ServeSettings

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


def test_activations_are_patched_between_two_texts(server, model):
    answer = ask(server, input="the cat", corrupt="the mat", target=5, against=9, part="residual").json()
    recovered = answer["patched"]["recovered"]
    assert len(recovered) == model.config.n_layer and len(recovered[0]) == len(answer["ids"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"input": ["the", "cat"]}, "one prompt is looked into at a time; there are 2"),
        ({"input": "the", "target": [5]}, "a token is a text or an id, not [5]"),
        ({"input": 5}, "the prompt is 5; it must be a text"),
        ({"input": "the", "position": 40}, "there is no position 40"),
        ({"input": "the cat", "corrupt": "the"}, "patched between prompts of equal length"),
        ({"input": "the", "target": "the cat the cat"}, "name one token"),
        ({"input": "the", "tuned": True}, "has no tuned lens"),
    ],
)
def test_a_mistake_is_one_sentence(server, body, message):
    response = ask(server, **body)
    assert response.status_code == 400 and message in response.json()["error"]["message"]


def test_strangers_are_not_answered(running, model):
    with running(model, ServeSettings(public=PublicSettings())) as server:
        assert ask(server, input=TEXT).status_code in (404, 405)
