"""Several processes that serve one model: distribution of the work, and independence of failures."""

import asyncio
import contextlib
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx
import pytest
import torch

from bluejay.gpt.formats.layouts import convert, save_model
from bluejay.machine import n_processors
from bluejay.serve.app import create_app
from bluejay.serve.replicas import (
    CONNECTION_LOST,
    Replica,
    ReplicaServer,
    Supervisor,
    devices_of,
    run_replica,
    serve_named,
)
from bluejay.serve.server import listen
from bluejay.serve.settings import PublicSettings, ServeSettings
from tests.waiting import PATIENCE, eventually


def test_more_processes_than_processors_are_refused(tiny_model):
    workers = n_processors() + 1
    with pytest.raises(
        ValueError, match=rf"^workers is {workers}; this machine has {workers - 1} processors to share$"
    ):
        serve_named(["nothing"], ServeSettings(workers=workers))


def test_a_port_in_use_and_wrong_keys_are_told_before_the_weights_are_read(tiny_model, monkeypatch):
    monkeypatch.setattr("bluejay.serve.replicas.load", lambda *_, **__: pytest.fail("the model is loaded"))
    with listen("127.0.0.1", 0) as taken, pytest.raises(OSError, match="is in use"):
        serve_named(["nothing"], ServeSettings(port=taken.getsockname()[1]))
    with pytest.raises(FileNotFoundError, match=r"keys\.txt"):
        serve_named(["nothing"], ServeSettings(port=0, public=PublicSettings(keys=Path("no/keys.txt"))))


def test_several_processes_tell_what_is_wrong_with_a_model_before_they_start(monkeypatch):
    monkeypatch.setattr("bluejay.serve.replicas.n_processors", lambda: 2)
    with pytest.raises(FileNotFoundError, match=r"^no model at nothing;"):
        serve_named(["nothing"], ServeSettings(port=0, workers=2))


def test_on_gpus_each_worker_has_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices_of(2, "auto") == devices_of(2, "cuda") == ["cuda:0", "cuda:1"]
    assert devices_of(1, "cpu") == ["cpu"]
    with pytest.raises(ValueError, match=r"^workers is 3, and this machine has 2 GPUs"):
        devices_of(3, "auto")
    with pytest.raises(ValueError, match=r"^--device is cuda:1; of several workers each has a GPU"):
        devices_of(2, "cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices_of(1, "auto") == ["cpu"]


class Ended(BaseProcess):
    """The process of a replica, with its number as its id, that has ended whenever it is waited for."""

    pid = property(lambda self: int(self.name))

    def join(self, timeout: float | None = None) -> None: ...


@pytest.fixture
def supervisor(monkeypatch):
    """Of two replicas: one serves for a moment more, the other is still starting. Nothing is sent or started."""
    sent, started = [], []
    with listen("127.0.0.1", 0) as bound, contextlib.ExitStack() as stack:
        bound.setblocking(False)
        made = Supervisor(["model"], ["model"], ServeSettings(workers=2), bound, ["cpu"] * 2, False)
        monkeypatch.setattr("os.kill", lambda pid, number: sent.append((pid, number)))
        monkeypatch.setattr("bluejay.serve.replicas.forget_process", lambda _: None)
        monkeypatch.setattr(made, "_start_replica", started.append)
        for number in range(2):
            ours, theirs = (stack.enter_context(one) for one in socket.socketpair())
            ours.setblocking(False)
            made.replicas.append(Replica(number, Ended(name=str(number)), ours, 0.0, ready=number == 0))
            made.selector.register(ours, selectors.EVENT_READ, made.replicas[-1])
            threading.Timer(0.3, theirs.shutdown, [socket.SHUT_RDWR]).start()
        yield made, sent, started


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]])
def test_a_shutdown_ends_replicas_that_are_starting_and_starts_none(supervisor, signals):
    made, sent, started = supervisor
    made.to_start = [(time.monotonic() + 0.1, 1)]
    made.signals = signals
    made._shut_down()
    assert sent[-2:] == [(0, signals[-1]), (1, signal.SIGTERM)]
    assert started == [] and made.replicas == []


def test_a_shutdown_waits_without_work(supervisor, monkeypatch):
    made, *_ = supervisor
    made.settings, made.announced = ServeSettings(workers=2, unready=0.5), True
    poll, waits = made._poll, []

    def counted(timeout: float = 1.0) -> None:
        waits.append(timeout)
        if len(waits) == 1:
            signal.raise_signal(signal.SIGTERM)
        poll(timeout)

    monkeypatch.setattr(made, "_poll", counted)
    made.run()
    assert made.replicas == [] and len(waits) < 30


@pytest.fixture
def channel(monkeypatch):
    """Both ends of a channel between the parent and a replica; who finds it full tries again at once."""
    monkeypatch.setattr("bluejay.serve.replicas.FULL_SECONDS", 0.001)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


def received(end: socket.socket) -> int:
    """The number of messages that wait at an end of a channel; connections in them are closed."""
    n = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            _, descriptors, _, _ = socket.recv_fds(end, 16, 1)
            for descriptor in descriptors:
                os.close(descriptor)
            n += 1
    return n


def test_a_replica_that_cannot_read_its_model_says_why(channel, tiny_model, tmp_path, monkeypatch):
    ours, theirs = channel
    save_model(tiny_model.gpt, tiny_model.tokenizer, tmp_path / "tiny")
    with (tmp_path / "tiny" / "model.safetensors").open("r+b") as weights:
        weights.truncate(1000)
    for changed in ("os.setpgid", "prepare_process", "forget_process"):  # what is for a process of its own
        monkeypatch.setattr(f"bluejay.serve.replicas.{changed}", lambda *_: None)
    with pytest.raises(SystemExit):
        run_replica(([str(tmp_path / "tiny")], "cpu", False), ServeSettings(workers=2), theirs, [])
    theirs.close()
    with listen("127.0.0.1", 0) as bound:
        made = Supervisor(["a"], ["a"], ServeSettings(workers=2), bound, ["cpu"] * 2, False)
        made.replicas.append(replica := Replica(0, Ended(name="0"), ours, 0.0))
        made.selector.register(ours, selectors.EVENT_READ, replica)
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            made._receive(replica)


def test_a_burst_of_connections_waits_until_replicas_take_them(channel):
    ours, theirs = channel
    with listen("127.0.0.1", 0) as bound, contextlib.ExitStack() as stack:
        bound.setblocking(False)
        made = Supervisor(["model"], ["model"], ServeSettings(workers=2), bound, ["cpu"] * 2, False)
        made.replicas.append(Replica(0, Ended(name="0"), ours, 0.0, ready=True))
        for _ in range(400):
            stack.enter_context(socket.create_connection(bound.getsockname()))
        passed = 0
        while made.replicas[0].n_connections < 400:
            made._dispatch()
            passed += (new := received(theirs))
            assert new
    assert passed == 400


def test_the_parent_is_told_of_every_closed_connection_however_many_close_at_once(channel, tiny_model):
    ours, theirs = channel
    replica = ReplicaServer(create_app(tiny_model), ours)

    async def close_many() -> int:
        n = 0
        for _ in range(600):
            replica._send(CONNECTION_LOST)
        while new := received(theirs):
            n += new
            await asyncio.sleep(0.01)
        return n

    assert asyncio.run(close_many()) == 600


def shared(pid: int, path: Path) -> bool:
    """Whether a process maps the weights from the file and at most 60 % of their memory is attributed to it."""
    maps = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{pid}/smaps").read_text())
    figures = [dict(re.findall(r"^(Rss|Pss):\s+(\d+)", one, re.MULTILINE)) for one in maps if str(path) in one]
    mine, all_of_it = (sum(int(one[name]) for one in figures) for name in ("Pss", "Rss"))
    return 0 < mine <= 0.6 * all_of_it


@pytest.mark.slow
def test_replicas_share_work_weights_metrics_and_limits(tiny_model, tmp_path):
    save_model(tiny_model.gpt, tiny_model.tokenizer, tmp_path / "floats")
    convert(tmp_path / "floats", tmp_path / "tiny", quantize="q8")
    main = "from bluejay.cli import main; main()"
    options = ["--workers", "2", "--port", "0", "--public", "--requests-per-minute", "40"]
    command = [sys.executable, "-c", main, "serve", str(tmp_path / "tiny"), *options]
    with (
        (tmp_path / "log").open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True) as parent,
    ):
        try:
            said = parent.stderr.readline()
            url = re.search(r"http://\S+", said)[0]
            children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
            replicas = [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
            assert len(replicas) == 2

            def ask(_: int) -> int:
                return httpx.post(f"{url}/v1/completions", json={"prompt": "the", "max_tokens": 3}).status_code

            began = time.monotonic()
            with ThreadPoolExecutor(8) as pool:
                assert set(pool.map(ask, range(16))) == {200}
            assert all(shared(pid, tmp_path / "tiny" / "model.safetensors") for pid in replicas)
            figures = httpx.get(f"{url}/metrics").text
            assert 'bluejay_requests_total{path="/v1/completions",status="200"} 16.0' in figures
            assert "bluejay_samples_limit 16.0" in figures

            os.kill(replicas[0], signal.SIGKILL)
            assert "another takes its place" in parent.stderr.readline()
            assert {ask(0) for _ in range(10)} == {200}
            assert eventually(lambda: "bluejay_samples_limit 16.0" in httpx.get(f"{url}/metrics").text)
            # The limit is common, whoever answers: a minute's 40, and what has come back since the first.
            n_served = 26 + [ask(0) for _ in range(60)].count(200)
            assert n_served <= 41 + 40 / 60 * (time.monotonic() - began)

            parent.send_signal(signal.SIGTERM)
            assert parent.wait(PATIENCE) == 143
            log = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
            assert sum(line["status"] == 200 for line in log) >= 26
        finally:
            parent.kill()
