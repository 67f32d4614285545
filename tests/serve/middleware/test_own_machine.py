"""A server for its own machine answers programs and its own page there, and no website."""

import httpx
import pytest

from bluejay.serve.middleware.own_machine import is_for_own_machine
from bluejay.serve.settings import PublicSettings, ServeSettings


def of(server) -> str:
    """The port of a server."""
    return server.url.rpartition(":")[2]


@pytest.mark.parametrize(
    "host",
    [
        *("localhost:{}", "LocalHost", "localhost.", "bluejay.localhost:{}", "host.docker.internal:{}"),
        *("host.containers.internal", "127.0.0.1:{}", "192.168.1.5", "[::1]:{}"),
    ],
)
def test_it_answers_under_the_names_of_this_machine_and_addresses(server, host):
    headers = {"Host": host.format(of(server))}
    assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/", "/v1/models", "/v1/trace", "/healthz"])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{}",
        "localhost.evil.org",
        "evillocalhost",
        "x.host.docker.internal",
        "127.0.0.1.evil.org",
    ],
)
def test_a_name_that_leads_here_is_refused(server, host, path):
    refused = httpx.get(f"{server.url}{path}", headers={"Host": host.format(of(server))})
    error = refused.json()["error"]
    assert refused.status_code == 403 and error["code"] == "forbidden" and "\n" not in error["message"]
    assert "content-security-policy" in refused.headers


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ({}, True),
        ({"Origin": "http://{}"}, True),
        ({"Origin": "http://{}", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "http://localhost:1"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
    ],
)
def test_a_page_of_another_site_cannot_send_a_request(server, headers, taken):
    headers = {name: value.format(server.url.removeprefix("http://")) for name, value in headers.items()}
    sent = httpx.post(f"{server.url}/tokenize", json={"prompt": "the"}, headers=headers)
    assert sent.status_code == (200 if taken else 403)
    index = httpx.post(f"{server.url}/v1/trace/index", headers=headers)
    assert index.status_code == (404 if taken else 403)  # the model has no corpus


@pytest.mark.parametrize("settings", [ServeSettings(host="0.0.0.0"), ServeSettings(public=PublicSettings())])
def test_a_server_for_others_has_any_name(running, tiny_model, settings):
    with running(tiny_model, settings) as server:
        headers = {"Host": "bluejay.example.org", "Origin": "https://bluejay.example.org"}
        assert httpx.post(f"{server.url}/tokenize", json={"prompt": "the"}, headers=headers).status_code == 200


@pytest.mark.parametrize(("host", "own"), [("localhost", True), ("::1", True), ("::", False), ("192.0.2.1", False)])
def test_it_is_its_address_that_says_whom_a_server_is_for(host, own):
    assert is_for_own_machine(ServeSettings(host=host)) is own
