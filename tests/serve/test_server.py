"""The server process: start, many clients, shutdown."""

import asyncio
import json
import random
import resource
import signal
import time
from dataclasses import dataclass, field

import httpx
import pytest

from bluejay.serve.server import allow_connections, listen, serve
from bluejay.serve.settings import ServeSettings
from tests.serve.programs import program
from tests.waiting import PATIENCE


def test_a_port_in_use_is_one_sentence(model):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            OSError,
            match=rf"^port {port} on 127.0.0.1 is in use by .*; choose another with --port, or with PORT= for make$",
        ):
            serve(model, ServeSettings(port=port))


@pytest.mark.parametrize(("most", "wanted"), [(resource.RLIM_INFINITY, 10_240), (4096, 4096)])
def test_a_system_that_refuses_more_open_connections_is_served_with_those_it_has(monkeypatch, most, wanted):
    asked = []

    def refuse(kind, limits):
        asked.append(limits)
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, most))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    allow_connections()
    assert asked == [(wanted, most)]


def test_invalid_addresses_are_rejected(model):
    with pytest.raises(ValueError, match=r"^port is 70000; it must be between 0 and 65535$"):
        serve(model, ServeSettings(port=70000))
    with pytest.raises(OSError, match="not an address of this machine"):
        serve(model, ServeSettings("203.0.113.1", 0))
    with pytest.raises(OSError, match="not an address of this machine"):
        serve(model, ServeSettings("no such host", 0))


@pytest.mark.parametrize(
    "numbers, drain, returncode",
    [
        ([signal.SIGINT], 0.5, 0),
        ([signal.SIGINT] * 2, PATIENCE, 0),
        ([signal.SIGTERM], 0.5, 143),
        ([signal.SIGTERM, signal.SIGINT], PATIENCE, 143),
    ],
)
def test_an_answer_that_exceeds_the_drain_time_ends_with_an_error(numbers, drain, returncode):
    # An interrupt is how a person ends it; a termination is reported to whoever sent it.
    with program(ServeSettings(port=0, drain=drain), n_ctx=100_000) as served, httpx.Client() as client:
        body = {"prompt": "the", "max_tokens": 100_000, "temperature": 0, "stream": True}
        with client.stream("POST", f"{served.url}/v1/completions", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            for number in numbers:
                served.send_signal(number)
                time.sleep(0.1)
            assert "the server is shutting down" in [line for line in lines if line][-1]
        assert served.wait() == returncode
        said, *log = served.output
        assert said == f"model is served at {served.url} (Ctrl+C stops it)"
        assert [json.loads(line)["status"] for line in log] == [200]
        listen("127.0.0.1", served.port).close()


def test_ctrl_c_ends_the_time_in_which_load_balancers_notice(running, model):
    with running(model, ServeSettings(port=0, unready=PATIENCE)) as server:
        began = time.monotonic()
        server.handle_exit(signal.SIGTERM, None)
        time.sleep(0.3)
        assert httpx.get(f"{server.url}/readyz").status_code == 503
        server.handle_exit(signal.SIGINT, None)
    assert time.monotonic() - began < PATIENCE / 2


@dataclass
class Crowd:
    """Clients that each send requests in a loop, and counts of the outcomes."""

    port: int
    answered: dict[int, int] = field(default_factory=dict)
    """Number of complete answers of each client."""
    n_refused: int = 0
    """Number of responses with status 429."""
    n_left: int = 0
    """Number of answers that a client abandoned."""
    n_closed: int = 0
    """Number of connections that the server did not accept."""
    lost: list[str] = field(default_factory=list)
    """Number of requests that were accepted but not answered completely."""

    async def ask(self, client: int, rng: random.Random, leaves: bool = False) -> bool:
        """Request one text on a new connection; whether a server accepted it."""
        n_tokens, stream = rng.randrange(4, 40), rng.random() < 0.7
        body = json.dumps({"prompt": f"client {client}", "max_tokens": n_tokens, "stream": stream}).encode()
        head = (
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionError:
            self.n_closed += 1
            return False
        answer = b""
        try:
            writer.write(head.encode() + body)
            async with asyncio.timeout(rng.random() * 0.5 if leaves else PATIENCE):
                while part := await reader.read(65536):
                    answer += part
        except TimeoutError:
            if leaves:
                self.n_left += 1
                return True
        except ConnectionError as error:
            answer += str(error).encode()
        finally:
            writer.transport.abort()
        if answer.startswith(b"HTTP/1.1 429 ") and b"retry-after" in answer.lower():
            self.n_refused += 1
            await asyncio.sleep(rng.random())
        elif answer.startswith(b"HTTP/1.1 200 ") and (b"[DONE]" in answer or b'"completion_tokens": ' in answer):
            self.answered[client] = self.answered.get(client, 0) + 1
        else:
            self.lost.append(answer.decode()[-300:])
        return True

    async def come(self, n_clients: int, seconds: float, leaving: float = 0.0) -> None:
        """Run a number of clients for some time; each request is abandoned with the probability `leaving`."""
        end = time.monotonic() + seconds

        async def client(number: int) -> None:
            rng = random.Random(number)
            while time.monotonic() < end and await self.ask(number, rng, rng.random() < leaving):
                pass

        await asyncio.gather(*(client(number) for number in range(n_clients)))


@pytest.mark.parametrize("n_clients, seconds", [(30, 1.5), pytest.param(200, 120, marks=pytest.mark.slow)])
def test_many_clients_half_of_which_disconnect(n_clients, seconds):
    with program(ServeSettings(port=0)) as served:
        asyncio.run(Crowd(served.port).come(n_clients, seconds / 3, 0.5))  # what grows once, grows here
        before = served.memory
        crowd = Crowd(served.port)
        asyncio.run(crowd.come(n_clients, seconds, 0.5))
        print(sum(crowd.answered.values()), crowd.n_refused, crowd.n_left, served.memory - before)
        assert not crowd.lost, crowd.lost[:3]
        assert not crowd.n_closed
        assert crowd.n_left > n_clients / 4 and sum(crowd.answered.values()) > n_clients / 2
        if seconds > 60:  # Jain's index of fairness: 1 when all get the same
            counts = [crowd.answered.get(number, 0) for number in range(n_clients)]
            assert sum(counts) ** 2 / (len(counts) * sum(count**2 for count in counts)) > 0.7 and min(counts) > 0
        assert served.memory - before < 30e6
        figures = set(httpx.get(f"{served.url}/metrics").text.splitlines())
        assert {f"bluejay_{name} 0.0" for name in ("samples_running", "prompts_waiting", "cache_pages_held")} <= figures


def test_a_termination_under_load_loses_no_request():
    async def crowded(crowd: Crowd, url: str) -> int:
        coming = asyncio.create_task(crowd.come(24, 60))
        async with httpx.AsyncClient() as client:
            while not crowd.answered:
                await asyncio.sleep(0.1)
            assert (await client.get(f"{url}/readyz")).status_code == 200
            before = sum(crowd.answered.values())
            served.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            refused = await client.get(f"{url}/readyz")
            assert refused.status_code == 503 and refused.headers["connection"] == "close"
            assert (await client.get(f"{url}/healthz")).status_code == 200
        await coming
        return before

    with program(ServeSettings(port=0, max_sequences=4, unready=1.0)) as served:
        crowd = Crowd(served.port)
        before = asyncio.run(crowded(crowd, served.url))
        assert not crowd.lost, crowd.lost[:3]
        assert crowd.n_closed == 24 and 0 < before < sum(crowd.answered.values()) - 10
        assert served.wait() == 143
