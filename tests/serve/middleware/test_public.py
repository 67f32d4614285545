"""The server on the open web: keys, limits for each client, origins of other pages."""

import contextlib
import re
import time

import httpx
import openai
import pytest

from bluejay.evals.estimates import Estimate
from bluejay.evals.evaluation_file import NAME, write_summary
from bluejay.serve.middleware.public import KeyFile, read_keys
from bluejay.serve.settings import PublicSettings, ServeSettings
from tests.serve.conftest import engine_thread_of
from tests.waiting import PATIENCE, eventually

ALICE, BOB = "alice-" + "a" * 20, "bob-" + "b" * 20
PROMPT = {"prompt": "the", "max_tokens": 5}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("public") / "keys.txt"
    path.write_text(f"# who may ask\nalice {ALICE}\n\nbob {BOB}  # until May\n")
    return path


@pytest.fixture(scope="module")
def public(running, model, keys):
    """A public server with keys, ten requests a minute and a hundred tokens an hour."""
    limits = PublicSettings(keys, 10, 100, ("https://example.org",))
    with running(model, ServeSettings(port=0, public=limits)) as server:
        yield server


def ask(server, key: str | None = None, body=PROMPT, **headers) -> httpx.Response:
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return httpx.post(f"{server.url}/v1/completions", json=body, headers=headers)


def code(response: httpx.Response) -> str:
    """The code of a complete error object."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["code"]


def test_a_key_is_required(public):
    for key in (None, "x" * 20, ALICE[:-1], ALICE + "a", "ключ"):
        headers = {"Authorization": f"Bearer {key}".encode()} if key else {}
        refused = httpx.post(f"{public.url}/v1/completions", json=PROMPT, headers=headers)
        assert refused.status_code == 401 and code(refused) == "invalid_api_key"
        told = "the key that was sent is none of this server's API keys" if key else "this server requires one of its"
        assert refused.json()["error"]["message"].startswith(told)
        assert refused.headers["www-authenticate"] == "Bearer"
    for path in ("/v1/models", "/v1/completions", "/card", "/openapi.json"):
        assert httpx.get(f"{public.url}{path}").status_code == 401
    script = re.search(r'src="([^"]+)"', httpx.get(public.url).text)[1]
    for path in ("/", f"/{script}", "/healthz", "/readyz"):
        assert httpx.get(f"{public.url}{path}").status_code == 200
    with openai.OpenAI(base_url=f"{public.url}/v1", api_key=BOB, max_retries=0) as client:
        assert client.completions.create(model="tiny", **PROMPT).usage.completion_tokens == 5
    wrong = openai.OpenAI(base_url=f"{public.url}/v1", api_key="wrong", max_retries=0)
    with wrong, pytest.raises(openai.AuthenticationError):
        wrong.models.list()


def test_the_card_tells_strangers_no_command_and_is_read_once(running, model, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "path", tmp_path)
    figures = [("piqa", model.name, "accuracy", Estimate(0.25, 0.18, 0.33, 0.04, 120, 118))]
    write_summary(tmp_path, "2026-11-26", "bluejay eval /home/ann/model", figures)
    with running(model) as own, running(model, ServeSettings(port=0, public=PublicSettings())) as server:
        assert httpx.get(f"{own.url}/card").json()["evaluation"]["command"] == "bluejay eval /home/ann/model"
        first = httpx.get(f"{server.url}/card")
        (tmp_path / NAME).write_text("{}")
        assert first.json()["evaluation"]["figures"][0]["value"] == 0.25 and "/home" not in first.text
        assert httpx.get(f"{server.url}/card").text == first.text


def test_tokens_are_counted_and_unused_ones_are_refunded(public, model):
    tokens = len(model.tokenizer.encode("the"))
    too_much = ask(public, ALICE, {"prompt": "the", "max_tokens": 101})
    assert too_much.status_code == 400 and code(too_much) == "token_budget_exceeded"
    (always,) = model.tokenizer.encode("a")
    body = {"prompt": "the", "max_tokens": 99 - tokens, "logit_bias": {always: 100}, "stop": "a"}
    assert ask(public, ALICE, body).json()["usage"]["completion_tokens"] == 1  # 99 were reserved, and are there again
    assert ask(public, ALICE, {"prompt": "the", "max_tokens": 80, "seed": 1}).status_code == 200
    refused = ask(public, ALICE, {"prompt": "the", "max_tokens": 30})
    assert refused.status_code == 429 and code(refused) == "token_budget_exceeded"
    assert 0 < int(refused.headers["retry-after"]) <= 30 * 36
    assert ask(public, BOB).status_code == 200  # others have their own


def test_a_prompt_that_was_never_read_costs_nothing(running, model):
    limits = PublicSettings(tokens_per_hour=1100)
    with running(model, ServeSettings(port=0, max_sequences=1, public=limits)) as server:
        thread, url = engine_thread_of(server), f"{server.url}/v1/completions"
        step = thread.engine.step
        thread.engine.step = lambda: time.sleep(0.02) or step()
        body, other = {"prompt": "the", "max_tokens": 1000, "stream": True}, {"X-Forwarded-For": "203.0.113.1"}
        with httpx.stream("POST", url, json=body, headers=other) as stream:  # it has the only slot
            lines = stream.iter_lines()  # held, because a generator that nobody holds closes the connection
            next(lines)
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(url, json={"prompt": [5] * 900}, timeout=httpx.Timeout(PATIENCE, read=0.1))
            assert eventually(lambda: len(thread.jobs) == 1)
        assert httpx.post(url, json={"prompt": [5] * 900, "max_tokens": 1}).status_code == 200


def test_requests_are_counted(public):
    for _ in range(20):
        refused = ask(public, BOB, {"prompt": "the", "max_tokens": 1, "nonsense": 1})
        if refused.status_code == 429:
            break
        assert refused.status_code == 400
    assert code(refused) == "rate_limit_exceeded"
    assert 0 < int(refused.headers["retry-after"]) <= 6
    assert httpx.get(f"{public.url}/v1/models", headers={"Authorization": f"Bearer {BOB}"}).status_code == 200


def test_pages_of_listed_origins_may_call(public):
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, x-stainless-os"}
    allowed = httpx.options(f"{public.url}/v1/completions", headers={"Origin": "https://example.org", **asked})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://example.org"
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    other = httpx.options(f"{public.url}/v1/completions", headers={"Origin": "https://example.com", **asked})
    assert other.status_code == 400 and "access-control-allow-origin" not in other.headers
    refused = ask(public, None, Origin="https://example.org")
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == "https://example.org"
    assert "access-control-allow-origin" not in ask(public, None, Origin="https://example.com").headers


def test_a_key_removed_from_the_file_is_rejected(running, model, tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"alice {ALICE}\nbob {BOB}\n")
    with running(model, ServeSettings(port=0, public=PublicSettings(path))) as server:
        assert ask(server, ALICE).status_code == ask(server, BOB).status_code == 200
        time.sleep(0.01)
        path.write_text(f"bob {BOB}\n")
        assert (ask(server, ALICE).status_code, ask(server, BOB).status_code) == (401, 200)
        time.sleep(0.01)
        path.write_text("half a line, being writ")
        assert ask(server, BOB).status_code == 200


def test_a_key_file_that_cannot_be_used_changes_nothing_and_the_log_says_so_once(tmp_path, caplog):
    path = tmp_path / "keys"
    path.write_text(f"alice {ALICE}\nbob {BOB}\n")
    file = KeyFile(path)

    def names(text: str | None) -> list[str | None]:
        """What the keys of Alice and Bob are called after a change of the file, asked three times."""
        caplog.clear()
        time.sleep(0.01)
        path.unlink() if text is None else path.write_text(text)
        return [[file.name(ALICE), file.name(BOB)] for _ in range(3)][-1]

    for text, reason in (
        (f"alice {ALICE}\n# bob {BOB}\ncarol short\n", "line 3: the key has 5 characters"),
        (f"alice {ALICE}\ncarol\n", "line 2: a line is a name and a key"),
        ("\n", "holds no key"),
        (None, "No such file"),
    ):
        assert names(text) == ["alice", "bob"]
        (said,) = caplog.messages
        assert "the former keys stay valid" in said and reason in said and str(path) in said and "\n" not in said
    assert names(f"alice {ALICE}\n") == ["alice", None] and not caplog.messages
    assert names(None) == ["alice", None] and len(caplog.messages) == 1
    assert names(f"# alice {ALICE}\n") == [None, None] and not caplog.messages
    assert names(f"bob {BOB}\n") == [None, "bob"]


def test_without_keys_a_client_is_the_address_that_a_trusted_proxy_forwards(running, model):
    limits = PublicSettings(requests_per_minute=2)
    with running(model, ServeSettings(port=0, public=limits)) as server:

        def statuses(*addresses: str) -> list[int]:
            return [ask(server, **{"X-Forwarded-For": address}).status_code for address in addresses]

        assert statuses("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2") == [200, 200, 429, 200]
        # What a client claims itself stands before what the proxy says of it.
        assert statuses("192.0.2.9, 192.0.2.1", "127.0.0.1, 192.0.2.1") == [429, 429]
        # One person has a whole network of addresses of version 6.
        assert statuses("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1") == [200, 200, 429, 200]
        assert httpx.get(f"{server.url}/metrics").status_code == 200
        stranger = httpx.get(f"{server.url}/metrics", headers={"X-Forwarded-For": "8.8.8.8"})
        assert stranger.status_code == 404 and code(stranger) == "not_found"


@pytest.mark.slow
def test_ipv4_clients_of_a_socket_of_both_versions_are_told_apart(running, model):
    """They come as ::ffff:a.b.c.d, and so does the proxy on this machine."""
    limits = PublicSettings(requests_per_minute=2)
    with running(model, ServeSettings(host="::ffff:127.0.0.1", port=0, public=limits)) as server:
        forms = ("203.0.113.{}", "::ffff:203.0.113.{}", "::ffff:cb00:71{:02x}")
        for number in range(1, 5):
            statuses = [ask(server, **{"X-Forwarded-For": form.format(number)}).status_code for form in forms]
            assert statuses == [200, 200, 429]
        for stranger in ("8.8.8.8", "::ffff:8.8.8.8"):
            assert httpx.get(f"{server.url}/metrics", headers={"X-Forwarded-For": stranger}).status_code == 404
        assert httpx.get(f"{server.url}/metrics").status_code == 200


def test_one_client_does_not_fill_the_queue(running, model):
    limits = PublicSettings(requests_per_minute=100, tokens_per_hour=10**9)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            running(model, ServeSettings(port=0, max_sequences=1, max_waiting=4, public=limits))
        )
        http = stack.enter_context(httpx.Client(base_url=server.url, timeout=PATIENCE))

        def ask(client: str, *prompts: str) -> httpx.Response:
            body = {"prompt": prompts, "max_tokens": 1000, "stream": True}
            headers = {"X-Forwarded-For": client}
            return stack.enter_context(http.stream("POST", "/v1/completions", json=body, headers=headers))

        assert ask("192.0.2.1", "a", "b").status_code == 200
        assert eventually(lambda: engine_thread_of(server).engine.running)  # one of them; the other waits
        refused = ask("192.0.2.1", "c", "d")
        refused.read()
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert code(refused) == "too_many_at_once"
        assert ask("192.0.2.1", "c").status_code == ask("192.0.2.2", "a", "b").status_code == 200
        too_many = ask("192.0.2.3", "a", "b", "c")
        assert too_many.status_code == 400 and "queues 2 of each client" in too_many.read().decode()


@pytest.mark.slow
def test_predictions_count_among_the_requests_at_a_time(running, model):
    settings = ServeSettings(port=0, max_sequences=1, public=PublicSettings(requests_per_minute=100))
    with running(model, settings) as server, httpx.Client(base_url=server.url, timeout=PATIENCE) as client:

        def predict(length: int) -> httpx.Response:
            return client.post("/model/predict", json={"context": "def f(", "length": length, "top_k": 0})

        answers = [predict(length) for length in (500, *[1] * 7)]  # they run one after the other
        assert [answer.status_code for answer in answers] == [200] * 8
        refused = predict(1)
        assert refused.status_code == 429 and code(refused) == "too_many_at_once"
        for answer in answers:
            assert client.post("/model/get_prediction", json=answer.json()).status_code == 200
        assert predict(1).status_code == 200


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        ("alice\n", "line 1: a line is a name and a key"),
        (
            "alice short\n",
            "line 1: the key has 5 characters and can be guessed; `openssl rand -hex 24` makes a good one",
        ),
        ("alice schlüssel-0123456789abcdef\n", "line 1: the key must be printable ASCII"),
        (f"alice {ALICE}\nalice {BOB}\n", "line 2: alice has a key already"),
        (f"alice {ALICE}\nbob {ALICE}\n", "line 2: bob has the key of another"),
        (f"alice {ALICE} #1\nbob {BOB} 2\n", "line 2: a line is a name and a key"),
    ],
)
def test_an_invalid_key_file_is_rejected_with_the_line(tmp_path, text, message):
    path = tmp_path / "keys.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"keys\.txt") as refused:
        read_keys(path)
    assert message in str(refused.value)


def test_a_key_may_hold_the_sign_that_begins_a_comment(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_text(f"#who may ask\nalice {ALICE}#1\t# until May\nbob {BOB} #\n")
    file = KeyFile(path)
    assert [file.name(key) for key in (f"{ALICE}#1", ALICE, BOB)] == ["alice", None, "bob"]


def test_a_key_file_of_another_encoding_is_named(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_text(f"alice {ALICE}\n", encoding="utf-16")  # as PowerShell's >> writes
    with pytest.raises(ValueError, match=r"keys\.txt is not UTF-8 text: .* at byte 0; save it as UTF-8$"):
        read_keys(path)


def test_a_key_file_may_begin_with_a_byte_order_mark(tmp_path):
    for comment in ("", "# who may ask\n"):
        (tmp_path / "keys.txt").write_text(f"{comment}alice {ALICE}\n", encoding="utf-8-sig")
        assert list(read_keys(tmp_path / "keys.txt")) == ["alice"]


def test_invalid_settings_are_rejected():
    with pytest.raises(ValueError, match=r"^requests_per_minute is 0; it must be at least 1$"):
        PublicSettings(requests_per_minute=0)
    for origin in (
        "example.org",
        "https://a b",
        "https://a.org/x",
        "https://u@a.org",
        "http://a:99999",
        "null",
        "*",
        "file://",
    ):
        with pytest.raises(ValueError, match=r"is not an origin; one looks like https://example.org$"):
            PublicSettings(origin=(origin,))
    for proxy in ("10.0.0.0/33", "localhost", "*", "", "10.0.0", "::1/129"):
        with pytest.raises(ValueError, match=r"is not an address or a network; one looks like 10.0.0.0/24$"):
            PublicSettings(proxy=(proxy,))
    with pytest.raises(ValueError, match="workers is 0"):
        ServeSettings(workers=0)
    with pytest.raises(ValueError, match="drain is nan"):
        ServeSettings(drain=float("nan"))


def test_settings_are_kept_in_the_form_in_which_they_are_compared():
    """Browsers write origins in lower case and without the usual port; a network may be given with an address in it."""
    origins = ("https://Example.org", "http://a.org:80", "https://a.org:8443", "http://[::1]:8000", "app://obsidian.md")
    assert PublicSettings(origin=origins).origin == (
        "https://example.org",
        "http://a.org",
        "https://a.org:8443",
        "http://[::1]:8000",
        "app://obsidian.md",
    )
    proxies = ("127.0.0.5/24", "10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1/32", "::ffff:10.1.2.3/112")
    assert PublicSettings(proxy=proxies).proxy == (
        "127.0.0.0/24",
        "10.0.0.1",
        "10.0.0.1",
        "2001:db8::/32",
        "10.1.0.0/16",
    )
