"""The server as a program: its socket, its connections, how it starts and how it ends."""

import asyncio
import contextlib
import errno
import json
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from bluejay.infer.model import Model
from bluejay.progress import say
from bluejay.serve.api.errors import APIError
from bluejay.serve.app import create_app
from bluejay.serve.engine_thread import EngineThread
from bluejay.serve.middleware.public import read_keys
from bluejay.serve.settings import ServeSettings

INTERRUPT_DRAIN_SECONDS = 3.0
"""How long open answers go on after Ctrl+C."""
ERROR_EVENT_SECONDS = 5.0
"""How long a server that ends has to tell the readers of unfinished answers before connections are cut."""
LATE_REQUEST_SECONDS = 0.5
"""How long a connection that was accepted before the door closed may still bring a request."""
CLIENT_READ_SECONDS = 30.0
"""How long a client may take to read what is left of an answer, or to acknowledge anything at all."""
KEEP_ALIVE_SECONDS = 75
"""How long a connection is kept for the next request: longer than proxy do, so that they are the ones to close."""


def serve(model: Model, settings: ServeSettings | None = None, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve a model until an interrupt or a termination signal.

    `on_ready` gets the address once connections are accepted. Raises OSError, with one sentence, when the address
    cannot be had, ValueError for a port that cannot be.
    """
    settings = settings or ServeSettings()
    check_keys(settings)
    with listen(settings.host, settings.port) as bound:
        log_requests()
        server = Server(create_app(model, settings), address(settings.host, bound), on_ready)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again when all is closed; it is no failure
            server.run(sockets=[bound])


def check_keys(settings: ServeSettings) -> None:
    """Read the file of keys before anything starts. Raises ValueError or FileNotFoundError."""
    if settings.public is not None and settings.public.keys is not None:
        read_keys(settings.public.keys)


def log_requests() -> None:
    """Send the request log to standard output, and allow as many open connections as the system does."""
    handler: logging.Handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("bluejay.requests")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def address(host: str, bound: socket.socket) -> str:
    """Where a socket that listens can be reached."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{bound.getsockname()[1]}"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, so that a taken port is known before anything starts. Raises as `serve` does."""
    if not 0 <= port < 2**16:
        raise ValueError(f"port is {port}; it must be between 0 and {2**16 - 1}")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise OSError(f"host {host!r} is not an address of this machine; 127.0.0.1 serves this machine only") from None
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port just left may be taken again
        notice_lost_clients(bound)
        bound.bind(where)
        bound.listen(2048)
    except OSError as error:
        bound.close()
        reasons = {
            errno.EADDRINUSE: "is in use by another program; choose another with --port",
            errno.EACCES: "needs the rights of an administrator; choose one above 1023 with --port",
            errno.EADDRNOTAVAIL: "cannot be had: the host is not an address of this machine",
        }
        raise OSError(f"port {port} on {host} {reasons.get(error.errno or 0, error.strerror)}") from None
    return bound


def notice_lost_clients(bound: socket.socket) -> None:
    """Have the system end connections whose other side went without a word or never reads; accepted ones inherit it."""
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_USER_TIMEOUT": int(CLIENT_READ_SECONDS * 1000), "TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10}
    for name, value in options.items():
        if hasattr(socket, name):  # not every system has them all
            bound.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Connection(H11Protocol):
    """uvicorn's connection with a limit on every wait: for a request, and for its answer to be read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings: ServeSettings = cast(FastAPI, self.config.app).state.settings
        self.on_lost: Callable[[], None] | None = None
        self.clock: asyncio.TimerHandle | None = None
        self.waits_for: object = None
        """The request being served; the class itself while the head of one is read; None between two."""

    @property
    def busy(self) -> bool:
        """Whether a request is being served."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request, unless there are too many connections."""
        super().connection_made(cast(asyncio.Transport, transport))
        if len(self.connections) > self.settings.max_connections:
            message = f"{self.settings.max_connections} connections are open; try again in a few seconds"
            self._refuse(APIError(429, message, type="rate_limit_error", code="too_many_connections"))
        else:
            self._wait(Connection)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._wait(None)
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        super().data_received(data)
        self._wait(self.cycle if self.busy else Connection)

    def on_response_complete(self) -> None:
        """Go on to the next request, which may have come already."""
        super().on_response_complete()
        self._wait(self.cycle if self.busy else None)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, in OpenAI's form."""
        if self.busy and self.cycle.response_started:
            self.transport.abort()
        else:
            self._refuse(APIError(400, "the request is not valid HTTP", code="invalid_http"))

    def _wait(self, what: object) -> None:
        """Set the clock for what is waited for now, unless it runs already."""
        if what is self.waits_for:
            return
        self.waits_for = what
        if self.clock is not None:
            self.clock.cancel()
            self.clock = None
        if what is Connection:
            self.clock = self.loop.call_later(self.settings.read_timeout, self._late)
        elif what is not None:
            whole = self.settings.read_timeout + self.settings.time_limit + CLIENT_READ_SECONDS
            self.clock = self.loop.call_later(whole, self.transport.abort)

    def _late(self) -> None:
        seconds = self.settings.read_timeout
        self._refuse(APIError(408, f"no whole request came within {seconds:g} s", code="request_timeout"))

    def _refuse(self, error: APIError) -> None:
        """Answer without a request, and close."""
        if self.transport.is_closing():
            return
        body = json.dumps(error.body).encode()
        head = [f"HTTP/1.1 {error.status_code} Refused", "Content-Type: application/json"]
        head += [f"Content-Length: {len(body)}", "Retry-After: 5", "Connection: close", "", ""]
        self.transport.write("\r\n".join(head).encode() + body)
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn with our settings, which says where it is once it accepts connections, and finishes what it began."""

    def __init__(self, app: FastAPI, url: str, on_ready: Callable[[str], None] | None = None) -> None:
        self.settings: ServeSettings = app.state.settings
        self.engine_thread: EngineThread = app.state.engine_thread
        public = self.settings.public
        config = uvicorn.Config(
            app,
            http=Connection,
            lifespan="on",
            ws="none",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=public is not None,
            forwarded_allow_ips=list(public.proxy) if public else None,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        super().__init__(config)
        self.url = url
        self.on_ready = on_ready
        self.unready = self.settings.unready
        self.drain = self.settings.drain

    def connection(self) -> Connection:
        """The protocol of a new connection."""
        return Connection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end: at once no longer ready; a person at a terminal does not wait for others' answers."""
        self.engine_thread.draining = True
        if sig == signal.SIGINT:
            self.unready, self.drain = 0.0, min(INTERRUPT_DRAIN_SECONDS, self.drain)
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then announce it."""
        await super().startup(sockets)
        if self.started and self.url:
            say(f"{self.engine_thread.model.name} is served at {self.url} (Ctrl+C stops it)")
            if self.on_ready:
                self.on_ready(self.url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve what has been accepted, and end with an error event what takes too long, not with a cut connection."""
        self.engine_thread.draining = True
        await asyncio.sleep(self.unready)
        self._take_last(sockets or [])
        await asyncio.sleep(LATE_REQUEST_SECONDS)
        self.config.timeout_graceful_shutdown = int(self.drain + ERROR_EVENT_SECONDS)
        ending = asyncio.get_running_loop().call_later(self.drain, self.engine_thread.stop)
        await super().shutdown(sockets)
        ending.cancel()

    def _take_last(self, sockets: list[socket.socket]) -> None:
        """Close the door behind those that the system has let in but asyncio has not: closing it would cut them off."""
        loop = asyncio.get_running_loop()
        self.last = set()  # asyncio forgets tasks that nobody holds
        for bound in sockets:
            with contextlib.suppress(OSError):  # there are no more
                while True:
                    accepted, _ = bound.accept()
                    self.last.add(loop.create_task(loop.connect_accepted_socket(self.connection, accepted)))
        for server in self.servers:
            server.close()
