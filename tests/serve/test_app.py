"""The other endpoints of the application, and the headers of all responses."""

import re

import httpx
import pytest


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
