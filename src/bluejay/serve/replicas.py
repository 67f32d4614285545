"""Several processes that serve the same models on one machine.

The parent owns the listening socket. It accepts each connection and passes it over a socket pair to the replica with
the fewest open connections; if the replicas accepted themselves, the kernel would favour the one that woke last. A
replica maps the weights from their files, so that the system keeps one copy for all replicas, and computes on its own
share of the processors or on a GPU of its own. A replica that dies loses only its own connections and is restarted.
"""

import asyncio
import contextlib
import multiprocessing
import os
import select
import selectors
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from fastapi import FastAPI

from bluejay.infer.model import Model, load
from bluejay.machine import free_memory, n_processors, resident_memory
from bluejay.mistakes import sentence
from bluejay.progress import say
from bluejay.serve.api.model_catalogue import Catalogue
from bluejay.serve.api.offered import offer, room_for_models
from bluejay.serve.app import create_app
from bluejay.serve.metrics import MULTIPROCESS_DIRECTORY, forget_process
from bluejay.serve.server import Connection, Server, address, check_keys, end_as, listen, prepare_process, serve, spoken
from bluejay.serve.settings import ServeSettings

READY, CONNECTION_LOST, FAILED = b"r", b"l", b"f"
"""Messages from a replica to the parent: it can serve now; one of its connections has closed; it cannot serve, followed
by a sentence that says why."""
MAX_MESSAGE = 4096
"""Bytes of a message."""
FULL_SECONDS = 0.1
"""How long a side of a full channel waits before it looks at it again."""
RESTART_SECONDS = 5.0
"""Shortest time between two starts of the same replica."""
SPAWN = multiprocessing.get_context("spawn")


@dataclass(eq=False)
class Replica:
    """The parent's record of a replica."""

    number: int
    process: BaseProcess
    channel: socket.socket
    began: float
    ready: bool = False
    n_connections: int = 0
    failure: str = ""
    """Why it cannot serve, if it said so."""


def serve_named(names: Sequence[str], settings: ServeSettings, device: str = "auto", compiled: bool = False) -> None:
    """Serve models, from `settings.workers` processes, and end as `bluejay.serve.server.serve` does.

    `device` and `compiled` are those of `bluejay.infer.model.load`, for several processes those of `devices_of`. Raises
    as these, `bluejay.serve.api.offered.offer` and `serve` do, RuntimeError if no replica can start.
    """
    check_keys(settings)
    if settings.workers == 1:
        listen(settings.host, settings.port).close()  # a port in use is told before the weights are read
        return serve(opened(names, settings, device, compiled), settings)
    devices = devices_of(settings.workers, device)
    if counts_memory(names, settings):
        settings = with_share(settings, devices[0])
    offered = offer(names, settings, devices[0], compiled)  # what is wrong is told before anything starts
    if counts_memory(names, settings):
        room_for_models(offered, settings, devices[0])
    with listen(settings.host, settings.port) as bound, tempfile.TemporaryDirectory(prefix="bluejay-") as folder:
        os.environ[MULTIPROCESS_DIRECTORY] = folder  # read by prometheus_client when the replicas import it
        if settings.public is not None:
            settings = replace(settings, public=replace(settings.public, state=Path(folder) / "limits.sqlite"))
        supervisor = Supervisor(names, [one.name for one in offered], settings, bound, devices, compiled)
        supervisor.run()
    end_as(supervisor.signals[0])


def opened(names: Sequence[str], settings: ServeSettings, device: str, compiled: bool) -> Model | Catalogue:
    """What a process serves: one model, which is loaded, or several, which are loaded when they are asked for."""
    if not counts_memory(names, settings):
        return load(names[0], device, compiled=compiled)
    offered = offer(names, settings, device, compiled)
    return Catalogue(offered, settings, room_for_models(offered, settings, device))


def with_share(settings: ServeSettings, device: str) -> ServeSettings:
    """The settings of each of several processes, with its share of the memory. Those with a GPU share none."""
    if device != "cpu":
        return settings
    own = resident_memory()
    memory = settings.memory_of(free_memory() + own)
    return replace(settings, memory=f"{max(0, memory - own) // settings.workers // 1000} kB")


def counts_memory(names: Sequence[str], settings: ServeSettings) -> bool:
    """Whether models must share memory, or it was limited."""
    return len(names) > 1 or settings.memory is not None


def devices_of(workers: int, device: str) -> list[str]:
    """The device of each of several processes: a GPU of its own where there are GPUs, else the CPU, whose processors
    they share. Raises ValueError if there are too few, or for one device by its number."""
    if device not in ("auto", "cuda", "cpu"):
        raise ValueError(f"--device is {device}; of several workers each has a GPU (cuda) or a share of the cpu")
    if device != "cpu" and (device == "cuda" or torch.cuda.is_available()):
        if workers > (gpus := torch.cuda.device_count()):
            raise ValueError(
                f"workers is {workers}, and this machine has {gpus} GPUs, of which each worker takes one; with "
                "--device cpu they share the processors"
            )
        return [f"cuda:{number}" for number in range(workers)]
    if workers > n_processors():
        raise ValueError(f"workers is {workers}; this machine has {n_processors()} processors to share")
    return ["cpu"] * workers


class Supervisor:
    """The parent: distributes connections and keeps the replicas running."""

    def __init__(
        self,
        names: Sequence[str],
        titles: Sequence[str],
        settings: ServeSettings,
        bound: socket.socket,
        devices: list[str],
        compiled: bool,
    ) -> None:
        """`names` is where the models are, `titles` what requests call them."""
        self.names, self.titles = names, titles
        self.devices, self.compiled = devices, compiled
        self.settings = settings
        self.bound = bound
        # Where the system cannot bind processes to processors, all replicas share all of them.
        self.processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self.replicas: list[Replica] = []
        self.to_start = [(0.0, number) for number in range(settings.workers)]
        """(monotonic time, number) of each replica that has to be started."""
        self.selector = selectors.DefaultSelector()
        self.signals: list[int] = []
        self.accepting = False
        self.announced = False

    def run(self) -> None:
        """Serve until a signal, then shut down."""
        self.bound.setblocking(False)
        wake, woken = socket.socketpair()
        wake.setblocking(False)
        handlers = {number: signal.signal(number, self._record_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        before = signal.set_wakeup_fd(wake.fileno())
        try:
            with wake, woken:
                self.selector.register(woken, selectors.EVENT_READ, woken)
                while not self.signals:
                    self._poll()
                self._shut_down()
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for replica in self.replicas:
                replica.process.kill()

    def _record_signal(self, number: int, _: object) -> None:
        self.signals.append(number)

    def _poll(self, timeout: float = 1.0) -> None:
        """Start the replicas that are due, receive messages from replicas, and distribute new connections."""
        now = time.monotonic()
        due, self.to_start = (
            [one for one in self.to_start if one[0] <= now],
            [one for one in self.to_start if one[0] > now],
        )
        for _, number in due:
            self._start_replica(number)
        for key, _ in self.selector.select(timeout):
            if isinstance(key.data, Replica):
                self._receive(key.data)
            elif key.fileobj is self.bound:
                self._dispatch()
            elif isinstance(key.data, socket.socket):  # a signal wrote to it
                key.data.recv(64)  # unread, it would end every wait at once from now on

    def _start_replica(self, number: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        first, last = (n * len(self.processors) // self.settings.workers for n in (number, number + 1))
        share = self.processors[first:last]
        models = self.names, self.devices[number], self.compiled
        process = SPAWN.Process(target=run_replica, args=(models, self.settings, theirs, share), daemon=True)
        process.start()
        theirs.close()
        ours.setblocking(False)
        replica = Replica(number, process, ours, time.monotonic())
        self.replicas.append(replica)
        self.selector.register(ours, selectors.EVENT_READ, replica)

    def _receive(self, replica: Replica) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    message = replica.channel.recv(MAX_MESSAGE)
                except ConnectionError:
                    message = b""
                if message == CONNECTION_LOST:
                    replica.n_connections -= 1
                elif message == READY:
                    replica.ready = True
                    self._start_accepting()
                elif message.startswith(FAILED):
                    replica.failure = message.removeprefix(FAILED).decode(errors="replace")
                else:
                    return self._replace(replica)

    def _start_accepting(self) -> None:
        """Start to accept once one replica can serve, and announce the URL once all can."""
        if not self.accepting and not self.signals:
            self.accepting = True
            self.selector.register(self.bound, selectors.EVENT_READ)
        if not self.announced and sum(replica.ready for replica in self.replicas) == self.settings.workers:
            self.announced = True
            url = address(self.settings.host, self.bound)
            say(f"{spoken(self.titles)} served at {url} by {self.settings.workers} processes (Ctrl+C stops it)")

    def _stop_accepting(self) -> None:
        """Stop accepting connections for now; new ones wait in the system's queue."""
        if self.accepting:
            self.accepting = False
            self.selector.unregister(self.bound)

    def _replace(self, replica: Replica) -> None:
        """Remove a replica that has died, and schedule its restart. Before all replicas have served, raises ValueError
        for one that said why it cannot, and RuntimeError for another."""
        self.selector.unregister(replica.channel)
        replica.channel.close()
        replica.process.join()
        self.replicas.remove(replica)
        forget_process(replica.process.pid)
        if not any(other.ready for other in self.replicas):
            self._stop_accepting()
        if self.signals:
            return
        ended = f"ended with code {replica.process.exitcode}"
        if not self.announced and replica.failure:
            raise ValueError(replica.failure)
        if not self.announced:
            raise RuntimeError(f"a replica {ended} before it could serve")
        why = f": {replica.failure}" if replica.failure else ""
        say(f"replica {replica.number} {ended}{why}; another takes its place")
        self.to_start.append((replica.began + RESTART_SECONDS, replica.number))

    def _dispatch(self) -> None:
        """Pass every waiting connection to the replica with the fewest open ones. While the channels of all are full,
        connections wait in the system's queue."""
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while replicas := self._least_loaded():
                accepted, _ = self.bound.accept()
                with accepted:
                    for replica in replicas:
                        try:
                            socket.send_fds(replica.channel, [b"c"], [accepted.fileno()])
                        except OSError:  # the replica is dying
                            continue
                        replica.n_connections += 1
                        break

    def _least_loaded(self) -> list[Replica]:
        """The replicas whose channels have room, after a short wait for one, by their numbers of open connections."""
        ready = {replica.channel: replica for replica in self.replicas if replica.ready}
        _, with_room, _ = select.select([], [*ready], [], FULL_SECONDS)
        return sorted((ready[channel] for channel in with_room), key=lambda replica: replica.n_connections)

    def _signal_replicas(self, number: int) -> None:
        """Send a signal to the replicas; SIGTERM to those that are still starting, which an interrupt ends with a
        traceback."""
        for replica in self.replicas:
            with contextlib.suppress(ProcessLookupError):
                assert replica.process.pid is not None
                os.kill(replica.process.pid, number if replica.ready else signal.SIGTERM)

    def _shut_down(self) -> None:
        """Shut down: report not ready, keep serving for a while, distribute the last connections, then finish."""
        self.to_start = []  # nothing starts any more
        if self.signals[0] == signal.SIGTERM:
            self._signal_replicas(signal.SIGUSR1)
            until = time.monotonic() + self.settings.unready
            while len(self.signals) == 1 and time.monotonic() < until:
                self._poll(0.1)
        self._dispatch()
        self._stop_accepting()
        self.bound.close()
        self._signal_replicas(self.signals[-1])
        told = len(self.signals)
        while self.replicas:
            self._poll(0.1)
            if len(self.signals) > told:  # a second signal makes uvicorn stop at once
                told = len(self.signals)
                self._signal_replicas(self.signals[-1])


def run_replica(
    models: tuple[Sequence[str], str, bool], settings: ServeSettings, channel: socket.socket, processors: list[int]
) -> None:
    """Serve models, given by their names, their device and whether torch compiles their steps, in a replica's process;
    connections arrive over `channel`."""
    names, device, compiled = models
    os.setpgid(0, 0)  # Ctrl+C reaches only the parent, which forwards it
    if processors:
        os.sched_setaffinity(0, processors)
    prepare_process()
    with contextlib.suppress(KeyboardInterrupt):
        settings = replace(settings, unready=0.0)
        try:
            app = create_app(opened(names, settings, device, compiled), settings)
        except (ImportError, OSError, ValueError) as error:  # those that a command tells in one sentence
            channel.send(FAILED + sentence(error).encode()[: MAX_MESSAGE - len(FAILED)])
            sys.exit(1)
        ReplicaServer(app, channel).run(sockets=[])


class ReplicaServer(Server):
    """A server that receives its connections over a channel."""

    def __init__(self, app: FastAPI, channel: socket.socket) -> None:
        super().__init__(app, "")
        self.channel = channel
        self.unsent: list[bytes] = []
        """Messages for which the channel has had no room."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell the parent."""
        await super().startup(sockets)
        self.channel.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(self.channel, self._receive_connections)
        loop.add_signal_handler(signal.SIGUSR1, self._become_unready)
        self._send(READY)

    def _become_unready(self) -> None:
        self.models.draining = True

    def _send(self, message: bytes) -> None:
        self.unsent.append(message)
        if len(self.unsent) == 1:
            self._send_all()

    def _send_all(self) -> None:
        try:
            while self.unsent:
                self.channel.send(self.unsent[-1])
                self.unsent.pop()
        except BlockingIOError:  # a lost message would make the parent count a connection for ever
            asyncio.get_running_loop().call_later(FULL_SECONDS, self._send_all)
        except OSError:  # the parent has ended
            self.unsent.clear()

    def _receive_connections(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(BlockingIOError):
            while True:
                message, descriptors, _, _ = socket.recv_fds(self.channel, 1, 1)
                if not message:  # the parent has ended
                    loop.remove_reader(self.channel)
                    self.handle_exit(signal.SIGTERM, None)
                    return
                for descriptor in descriptors:
                    connecting = loop.connect_accepted_socket(self._connection, socket.socket(fileno=descriptor))
                    task = loop.create_task(connecting)
                    self.accepting.add(task)
                    task.add_done_callback(self.accepting.discard)

    def _connection(self) -> Connection:
        connection = self.connection()
        connection.on_closed = lambda: self._send(CONNECTION_LOST)
        return connection
