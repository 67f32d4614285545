"""Whatever hostile clients send, the server answers and keeps working."""

import asyncio
import contextlib
import json
import logging
import random
import socket
import time

import httpx
import pytest

from bluejay.serve.settings import ServeSettings
from tests.serve.hostile import Tally, attack
from tests.serve.programs import program
from tests.waiting import PATIENCE, eventually

SETTINGS = ServeSettings(port=0, read_timeout=1.0, time_limit=5.0)


async def attacks(port: int, n: int, seed: int, at_once: int = 24) -> Tally:
    """Send a number of hostile requests, some at a time."""
    tally, rng = Tally(), random.Random(seed)
    places = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with places:
            await attack(port, tally, random.Random(rng.getrandbits(64)), seconds=30)

    async with asyncio.TaskGroup() as group:
        for _ in range(n):
            group.create_task(one())
    return tally


@pytest.mark.parametrize("n", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_hostile_requests_do_no_harm(n):
    with program(SETTINGS) as served:
        port = served.port
        asyncio.run(attacks(port, n // 5, seed=0))  # what grows once, grows here
        before = served.memory
        tally = asyncio.run(attacks(port, n, seed=1))
        print(sorted(tally.statuses.items()), served.memory - before)
        assert not tally.wrong, tally.wrong[:3]
        assert tally.n_sent == n and sum(tally.statuses.values()) > n // 2 and len(tally.statuses) >= 6
        assert served.memory - before < 10e6 + 1000 * n
        figures = settled(served.url)
        assert figures["bluejay_samples_running"] == figures["bluejay_prompts_waiting"] == 0
        assert figures["bluejay_cache_pages_held"] == 0
        answer = httpx.post(f"{served.url}/v1/completions", json={"prompt": "the", "max_tokens": 3})
        assert answer.json()["usage"]["completion_tokens"] == 3


def settled(url: str) -> dict[str, float]:
    """The metrics of a server once nothing runs any more, or after some time."""
    figures: dict[str, float] = {}

    def idle() -> bool:
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        figures.update((line.rsplit(" ", 1)[0], float(line.rsplit(" ", 1)[1])) for line in lines if line[0] != "#")
        return not figures["bluejay_samples_running"]

    eventually(idle)
    return figures


@pytest.fixture(scope="module")
def hasty(running, model):
    """A server with short time limits and few slots."""
    with running(model, ServeSettings(port=0, read_timeout=0.3, max_connections=20)) as server:
        yield server


def talk(server, *pieces: bytes) -> bytes:
    """Everything that a server sends in response to some bytes, in pieces, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=PATIENCE) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.02 if len(pieces) > 1 else 0)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GET / HT",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{",
    ],
    ids=["silence", "half a line", "half a head", "half a body"],
)
def test_a_client_that_stops_sending_is_disconnected(hasty, content):
    began = time.monotonic()
    answer = talk(hasty, content)
    assert answer.startswith(b"HTTP/1.1 408 ") and b'"code": "request_timeout"' in answer
    assert 0.2 < time.monotonic() - began < PATIENCE / 4


def test_invalid_http_gets_an_error_object(hasty):
    answer = talk(hasty, b"\x16\x03\x01 hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ") and b'"code": "invalid_http"' in answer


@pytest.mark.parametrize("n_pieces", [1, 4])
@pytest.mark.parametrize(("n_bytes", "status"), [(60_000, 200), (66_000, 431)])
def test_a_head_has_64_kilobytes_at_most_however_it_arrives(server, n_bytes, status, n_pieces):
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: %s\r\n\r\n" % (b"a" * n_bytes)
    size = len(head) // n_pieces + 1
    answer = talk(server, *(head[at : at + size] for at in range(0, len(head), size)))
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert status == 200 or b"the head is larger than 64 kB" in answer


@pytest.mark.parametrize(
    ("content", "phrase"), [(b"\x16\x03 hello\r\n\r\n", "400 Bad Request"), (b"G", "408 Request Timeout")]
)
def test_what_is_rejected_before_it_is_a_request_is_logged_and_counted_too(running, model, caplog, content, phrase):
    status = int(phrase[:3])
    with (
        caplog.at_level(logging.INFO, "bluejay.requests"),
        running(model, ServeSettings(port=0, read_timeout=0.3)) as server,
        # Browsers open connections in advance, on which nothing is asked.
        socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))),
    ):
        head = talk(server, content).partition(b"\r\n\r\n")[0].decode()
        (line,) = [json.loads(record.message) for record in caplog.records if record.name == "bluejay.requests"]
        counted = httpx.get(f"{server.url}/metrics").text
    assert head.startswith(f"HTTP/1.1 {phrase}\r\n") and "Content-Security-Policy: default-src 'none'" in head
    assert f"X-Request-Id: {line['id']}" in head and "Retry-After" not in head
    assert (line["status"], line["client"], line["complete"]) == (status, "127.0.0.1", True)
    assert f'bluejay_requests_total{{path="other",status="{status}"}} 1.0' in counted


def test_connections_over_the_limit_are_rejected(hasty):
    with contextlib.ExitStack() as stack:
        where = "127.0.0.1", int(hasty.url.rsplit(":", 1)[1])
        for _ in range(20):
            stack.enter_context(socket.create_connection(where))
        answer = talk(hasty, b"")
        assert answer.startswith(b"HTTP/1.1 429 ") and b"Retry-After" in answer
    assert httpx.get(f"{hasty.url}/healthz").status_code == 200
