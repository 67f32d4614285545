"""The other endpoints of the application, and the headers of all responses."""

import json
import re
import socket

import httpx
import pytest

from bluejay.serve import server as serving
from bluejay.serve.errors import DONE, WAITING
from tests.waiting import PATIENCE


def test_healthz(server):
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{server.url}/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/v1/completions", 405),
        ("POST", "/", 405),
        ("GET", "/nowhere", 404),
        ("POST", "/v1/nowhere", 404),
        ("GET", "/v1/models/nothing", 404),
        ("GET", "/..%2fapp.py", 404),
        ("GET", "/app.py", 404),
    ],
)
def test_wrong_addresses_get_an_error_object(server, method, path, status):
    response = httpx.request(method, f"{server.url}{path}")
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1//chat/completions", "/v1/chat/completions"),
        ("/v1/v1/models", "/v1/models"),
        ("//v1/models/", "/v1/models"),
        ("/api/v1/embeddings", "/v1/embeddings"),
        ("/v1/responses", "/v1/chat/completions"),
        ("/nowhere", None),
        ("/v1/files", None),
        ("/", None),
    ],
)
def test_a_wrong_base_url_is_told_the_right_address(server, path, meant):
    message = httpx.post(f"{server.url}{path}").json()["error"]["message"]
    assert message.partition("; did you mean ")[2] == (f"{meant}?" if meant else "")


@pytest.mark.parametrize(
    "path, methods", [("/v1/completions", "POST"), ("/healthz", "GET"), ("/v1/trace", "GET, POST")]
)
def test_a_refusal_of_a_method_names_those_that_are_allowed(server, path, methods):
    assert httpx.delete(f"{server.url}{path}").headers["allow"] == methods


@pytest.mark.parametrize("path", ["/", "/healthz", "/nowhere"])
def test_every_response_has_the_security_headers(server, path):
    headers = httpx.get(f"{server.url}{path}").headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


def test_files_of_the_page_are_cached_forever_under_urls_that_change_with_them(server):
    page = httpx.get(server.url)
    names = re.findall(r'(?:href|src)="([^"]+)"', page.text) + re.findall(
        "<([^>]+)>; rel=modulepreload", page.headers["link"]
    )
    assert len(names) > 20 and page.headers["cache-control"] == "no-cache"
    folder = {name.split("/")[0] for name in names}
    assert len(folder) == 1
    for name in set(names):
        file = httpx.get(f"{server.url}/{name}")
        assert file.status_code == 200 and "immutable" in file.headers["cache-control"], name


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/models", "/card", "/openapi.json", "/"])
def test_head_and_a_trailing_slash_ask_for_the_same(server, path):
    """Balancers ask with HEAD. A redirect would be made of the header Host."""
    whole = httpx.get(f"{server.url}{path}")
    head = httpx.head(f"{server.url}{path}")
    slash = httpx.get(f"{server.url}{path}/")
    assert (whole.status_code, head.status_code, slash.status_code, head.content) == (200, 200, 200, b"")
    assert set(head.headers) == set(whole.headers)
    assert httpx.head(f"{server.url}/v1/completions").status_code == 405


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://localhost/healthz", 200),
        ("HTTPS://127.0.0.1:8000/v1/models/?x=1", 200),
        ("http://localhost", 200),
        ("http://localhost/http://localhost/healthz", 404),
        ("http://evil.example/healthz", 403),
        ("http://%ff/healthz", 403),
    ],
)
def test_a_request_may_name_its_host_before_the_path(server, target, status):
    with httpx.Client() as client:
        for headers in ({}, {"Host": "evil.example"}):
            answer = client.get(server.url, extensions={"target": target.encode()}, headers=headers)
            assert answer.status_code == status


@pytest.mark.parametrize("path", ["/v1/completions/", "/complete/", "/nowhere/", "//evil.example/", "//"])
def test_no_answer_is_a_redirect(server, path):
    for method in ("GET", "POST"):
        for host, statuses in (("localhost", (200, 400, 404, 405)), ("evil.example", (403,))):
            answer = httpx.request(method, server.url + path, json={"prompt": "a"}, headers={"Host": host})
            assert answer.status_code in statuses and "location" not in answer.headers


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (b'{"prompt": "caf\351"}', {}, 400, "not UTF-8: byte 15 is 0xe9"),
        (b'{"a": "\xc0\x80"}', {}, 400, "not UTF-8"),
        (b"[" * 20_000, {}, 400, "nested too deeply"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, {}, 400, "nested too deeply"),
        (b'{"seed": ' + b"9" * 5000 + b"}", {}, 400, "a number of too many digits"),
        (b'{"n": -' + b"1" * 4301 + b"}", {}, 400, "a number of too many digits"),
        (b'{"prompt": "a"', {}, 400, "not valid JSON: Expecting ',' delimiter at character 14"),
        (b'{"prompt": "a\nb"}', {}, 400, "Invalid control character at character 13"),
        (
            b'{"response_format": {"type": "json_schema", "json_schema": {"schema": {"const": 1e999}}}}',
            {},
            400,
            "a number that is too large",
        ),
        (b'{"stream": "true"}', {}, 400, "stream must be true or false"),
        (b'{"max_tokens": 16.0}', {}, 400, "max_tokens is 16.0; it must be a whole number, written without"),
        (b"\x1f\x8b", {"Content-Encoding": "gzip"}, 415, "encoded as gzip"),
        (b"{}", {"Content-Encoding": "br"}, 415, "encoded as br"),
    ],
)
def test_message_says_what_is_wrong_with_a_body(server, body, headers, status, reason):
    headers = {"Content-Type": "application/json", **headers}
    refused = httpx.post(f"{server.url}/v1/completions", content=body, headers=headers)
    assert refused.status_code == status and reason in refused.json()["error"]["message"]


def test_every_route_reads_json_strictly(server):
    """Each part of a program may take another of two values for the one that counts."""
    description = httpx.get(f"{server.url}/openapi.json").json()
    posted = [path for path, methods in description["paths"].items() if "requestBody" in methods.get("post", {})]
    assert len(posted) > 10
    for path in posted:
        for body, reason in (('{"a": {"b": 1, "b": 2}}', "holds b twice"), ('{"a": NaN}', "holds NaN")):
            refused = httpx.post(server.url + path, content=body, headers={"Content-Type": "application/json"})
            error = refused.json()["error"]
            assert (refused.status_code, error["code"]) == (400, "invalid_json") and reason in error["message"], path


@pytest.mark.parametrize("request_line", ["GET /healthz", "GET /v1/models", "HEAD /"])
def test_client_that_closes_its_half_of_the_connection_is_answered(server, request_line):
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=PATIENCE) as client:
        client.sendall(f"{request_line} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        client.shutdown(socket.SHUT_WR)
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("stream", "parts"), [(False, [b'"completion_tokens": 50']), (True, [WAITING.encode(), DONE.encode()])]
)
def test_half_closed_client_gets_its_whole_completion(server, monkeypatch, stream, parts):
    monkeypatch.setattr(serving, "PROBE_SECONDS", 0.001)
    body = json.dumps({"prompt": "the", "max_tokens": 50, "stream": stream}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}"
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=PATIENCE) as client:
        client.sendall(head.encode() + b"\r\n\r\n" + body)
        client.shutdown(socket.SHUT_WR)
        answer = client.makefile("rb").read()
    assert all(part in answer for part in parts)
