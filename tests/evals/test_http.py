"""Models behind an address: which one is asked, whose answers are kept, and what is refused in one sentence."""

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from bluejay.evals.answers import AnswerFile
from bluejay.evals.scorers import open_scorer
from bluejay.evals.tasks import Continuation, Generation, Question, bits_and_bytes

ASKED = Continuation("a", " b")


class Refusal(NamedTuple):
    body: Any
    status: int = 400


@contextmanager
def served(
    answer: Callable[[dict[str, Any]], Any], *models: dict[str, Any], key: str = ""
) -> Iterator[tuple[str, list[dict]]]:
    """A server that gives these models and answers; its address and what it was sent. It breaks off where the answer is
    None, and refuses with the body of a `Refusal`, and whoever does not send the `key`."""
    sent: list[dict] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def reply(self, value: Any) -> None:
            if key and self.headers["authorization"] != f"Bearer {key}":
                value = Refusal({"error": {"message": "no such key"}}, 401)
            status, value = (value.status, value.body) if isinstance(value, Refusal) else (200, value)
            body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.reply({"data": models})

        def do_POST(self) -> None:
            sent.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            value = answer(sent[-1])
            if value is not None:
                self.reply(value)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", sent
        finally:
            server.shutdown()
            thread.join()


def choices(text: str, logprobs: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda _: {"choices": [{"index": 0, "text": text, "logprobs": logprobs}]}


NO_ECHO = {"text_offset": [0], "token_logprobs": [-1.0], "top_logprobs": [{"x": -1.0}]}
BAD = {
    "no logprobs": (choices("a bc", None), "does not give log-probabilities of the prompt"),
    "of a chat": (choices("a bc", {"content": []}), "does not give log-probabilities of the prompt"),
    "no echo": (choices("x", NO_ECHO), "does not give log-probabilities of the prompt"),
    "nulls": (choices("a bc", NO_ECHO | {"token_logprobs": [None]}), "does not give log-probabilities of the prompt"),
    "no choices": (lambda _: {"object": "chat"}, "does not answer in the form of OpenAI's completions"),
    "too few": (lambda _: {"choices": []}, "does not answer in the form of OpenAI's completions"),
    "no JSON": (lambda _: "<html>", "answers with something other than JSON"),
    "broken off": (lambda _: None, "does not answer"),
    "refused": (lambda _: Refusal({"error": {"message": "it is " + "x" * 300}}), "answers 400: it is x{300}$"),
    "too long": (
        lambda _: Refusal({"error": {"message": "705 tokens", "code": "context_length_exceeded"}}),
        "answers 400: 705 tokens; ask for fewer examples with --shots, or evaluate the model here$",
    ),
    "refused otherwise": (lambda _: Refusal({"error": "x" * 300}), 'answers 400: {"error": "x{189}$'),
}


@pytest.mark.parametrize(("answer", "sentence"), BAD.values(), ids=BAD)
def test_another_form_is_refused(answer, sentence):
    with served(answer, {"id": "one"}) as (address, _), pytest.raises(ValueError, match=sentence):
        list(open_scorer(address).answers([ASKED]))


@pytest.mark.parametrize(
    ("request_", "found", "likelihood"),  # with the number of bytes that were scored
    [
        (Continuation("\n", "a bc"), ([0, 1, 2], [None, -1.0, -2.0]), (-3.0, 2, 4)),
        (Continuation("", "a bc"), ([0, 1], [None, -1.0]), (-1.0, 1, 3)),
        (Continuation("", "a bc"), ([0, 0, 1], [None, -1.0, -2.0]), (-3.0, 2, 4)),  # after what begins every text
        (Continuation("a", " bc"), ([0, 1, 2], [None, -1.0, -2.0]), (-3.0, 2, 3)),
        (Continuation("a ", " bc"), ([0, 1, 2], [None, -1.0, -2.0]), (-3.0, 2, 4)),
    ],
)
def test_the_first_token_is_scored_where_something_stands_before_it(request_, found, likelihood):
    offsets, logprobs = found
    best = [{"x": 0.0 if one is None else one} for one in logprobs]
    known = {"text_offset": offsets, "token_logprobs": logprobs, "top_logprobs": best}
    with served(choices(f"{request_.context}{request_.text}d", known), {"id": "one"}) as (address, _):
        ((_, answer),) = open_scorer(address).answers([request_])
    _, n_bytes = bits_and_bytes(Question("1", (request_,)), answer)
    assert (answer.logprob, answer.n_tokens, n_bytes) == likelihood


def test_a_text_of_one_token_without_a_prompt_is_refused():
    known = {"text_offset": [0, 2], "token_logprobs": [None, -1.0], "top_logprobs": [None, {"x": -1.0}]}
    sentence = "first token no log-probability, so 'ab' cannot be scored there without a prompt"
    with served(choices("abc", known), {"id": "one"}) as (address, _), pytest.raises(ValueError, match=sentence):
        list(open_scorer(address).answers([Continuation("", "ab")]))


def test_the_address_names_one_of_several_models():
    with served(choices("x", None), {"id": "one"}, {"id": "org/two"}) as (address, sent):
        with pytest.raises(ValueError, match=r"it serves one, org/two; name one as in http://\S+#one"):
            open_scorer(address)
        with pytest.raises(ValueError, match="has no model three; it serves one, org/two"):
            open_scorer(f"{address}#three")
        scorer = open_scorer(f"{address}#org/two")
        list(scorer.answers([Generation("a", (), 4)]))
        assert scorer.name == sent[0]["model"] == "org/two"


def test_a_server_with_keys_gets_that_of_the_environment(monkeypatch):
    with served(choices("x", None), {"id": "one"}, key="sesame") as (address, _):
        monkeypatch.delenv("BLUEJAY_API_KEY", raising=False)
        with pytest.raises(ValueError, match="answers 401: no such key; BLUEJAY_API_KEY holds the key that is sent"):
            open_scorer(address)
        monkeypatch.setenv("BLUEJAY_API_KEY", "sesame")
        assert dict(open_scorer(address).answers([Generation("a", (), 4)])) == {0: "x"}


@pytest.mark.parametrize(("status", "refusals", "asked"), [(503, 3, 4), (429, 1, 2), (503, 9, 4), (400, 1, 1)])
def test_a_busy_server_is_asked_again_a_few_times(status, refusals, asked, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    left = [Refusal({"error": {"message": "later"}}, status)] * refusals
    with served(lambda body: left.pop() if left else choices("x", None)(body), {"id": "one"}) as (address, sent):
        scorer = open_scorer(address)
        if refusals < asked:
            assert dict(scorer.answers([Generation("a", (), 4)])) == {0: "x"}
        else:
            with pytest.raises(ValueError, match=f"answers {status}: later"):
                list(scorer.answers([Generation("a", (), 4)]))
        assert len(sent) == asked


def test_more_texts_than_a_server_takes_still_end_an_answer():
    stop = tuple("uvwxyz")
    with served(choices("one z two", None), {"id": "one"}) as (address, sent):
        assert dict(open_scorer(address).answers([Generation("a", stop, 4)])) == {0: "one "}
        assert sent[0]["stop"] == list("uvwx")


def test_answers_of_a_server_that_does_not_say_what_it_serves_are_not_kept(tmp_path):
    with served(choices("x", None), {"id": "one", "created": 5}) as (address, _):
        first = open_scorer(address)
        assert first.identity == open_scorer(address).identity and "5" in first.identity
    with served(choices("x", None), {"id": "one", "created": 0}) as (address, sent):
        for number in (1, 2):
            file = AnswerFile.of(open_scorer(address), tmp_path)
            for _ in range(2):
                assert file.ask(open_scorer(address), [Generation("a", (), 4)], "test") == ["x"]
            assert len(sent) == number
    assert not list(tmp_path.iterdir())
