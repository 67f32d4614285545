"""The server process: its socket, its connections, start and shutdown."""

import asyncio
import contextlib
import errno
import gc
import json
import logging
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from types import FrameType
from typing import Any, NoReturn, cast

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from bluejay.infer.model import Model
from bluejay.progress import say
from bluejay.serve.api.model_catalogue import Catalogue
from bluejay.serve.api.respond import RETRY_AFTER_SECONDS
from bluejay.serve.app import create_app
from bluejay.serve.errors import WAITING, APIError
from bluejay.serve.middleware.access_log import RequestRecord, note
from bluejay.serve.middleware.addresses import plain_address
from bluejay.serve.middleware.limits_and_errors import SECURITY_HEADERS
from bluejay.serve.middleware.public import read_keys
from bluejay.serve.settings import ServeSettings

INTERRUPT_DRAIN_SECONDS = 3.0
"""How long unfinished answers may continue after Ctrl+C."""
ERROR_EVENT_SECONDS = 5.0
"""How long a server that shuts down has to send an error event to unfinished streams before it cuts connections."""
OPEN_FILES = 10_240
"""The limit on open connections where the system names no maximum: the most that macOS accepts."""
LATE_REQUEST_SECONDS = 0.5
"""How long a connection that was accepted just before the shutdown may still send a request."""
CLIENT_READ_SECONDS = 30.0
"""How long a client may take to read the rest of an answer, or to acknowledge any data."""
MAX_HEAD = 65_536
"""Bytes of the head of a request."""
MAX_PIECES = 10_000
"""Chunks in which the body of a request may come: each takes 10 µs of a processor, however small it is."""
PROBE_SECONDS = 0.1
"""Time between two attempts to learn whether a client that sends no more still reads, or whether Ctrl+C was pressed."""
KEEP_ALIVE_SECONDS = 75
"""How long an idle connection is kept: longer than proxies keep theirs, so that they are the ones to close it."""


def serve(
    served: Model | Catalogue, settings: ServeSettings | None = None, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve a model, or several, until an interrupt, after which it returns, or SIGTERM, after which it raises
    SystemExit with code 143.

    `on_ready` is called with the URL once connections are accepted. Raises OSError, with one sentence, when the address
    is not available, and ValueError for an invalid port.
    """
    settings = settings or ServeSettings()
    check_keys(settings)
    with listen(settings.host, settings.port) as bound:
        prepare_process()
        server = Server(create_app(served, settings), address(settings.host, bound), on_ready)
        with contextlib.suppress(KeyboardInterrupt):  # a second one, when the server has ended
            server.run(sockets=[bound])
    end_as(server.first_signal)


def end_as(first_signal: int | None) -> None:
    """End the program, once it has shut down, as `first_signal` asked: an interrupt is how a person ends it; a
    termination is reported to whoever sent it, by the exit code of a process that the signal ended."""
    if first_signal == signal.SIGTERM:
        sys.exit(128 + signal.SIGTERM)


def check_keys(settings: ServeSettings) -> None:
    """Check the file of keys before anything starts. Raises ValueError or FileNotFoundError."""
    if settings.public is not None and settings.public.keys is not None:
        read_keys(settings.public.keys)


def prepare_process() -> None:
    """Prepare this process to serve: its request log, its limit on open connections, and its garbage collector."""
    log_requests()
    allow_connections()
    gc.collect()
    gc.freeze()  # or every body of many values has the collector go through all that has been imported


def log_requests() -> None:
    """Send the request log to standard output."""
    handler: logging.Handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("bluejay.requests")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)


def allow_connections() -> None:
    """Raise the limit on open connections to the system's maximum, where the system permits it."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(now, OPEN_FILES) if most == resource.RLIM_INFINITY else most
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def spoken(names: Sequence[str]) -> str:
    """The names of models, and the verb that follows them."""
    return f"{names[0]} is" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} are"


def address(host: str, bound: socket.socket) -> str:
    """The URL of a listening socket."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{bound.getsockname()[1]}"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that a port in use is noticed before anything starts. Raises as `serve` does."""
    if not 0 <= port < 2**16:
        raise ValueError(f"port is {port}; it must be between 0 and {2**16 - 1}")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise OSError(f"host {host!r} is not an address of this machine; 127.0.0.1 serves this machine only") from None
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just released can be bound again
        notice_lost_clients(bound)
        bound.bind(where)
        bound.listen(2048)
    except OSError as error:
        bound.close()
        reasons = {
            errno.EADDRINUSE: "is in use by another program; choose another with --port, or with PORT= for make",
            errno.EACCES: "needs the rights of an administrator; choose one above 1023 with --port",
            errno.EADDRNOTAVAIL: "is not available: the host is not an address of this machine",
        }
        raise OSError(f"port {port} on {host} {reasons.get(error.errno or 0, error.strerror)}") from None
    return bound


def notice_lost_clients(bound: socket.socket) -> None:
    """Have the system close connections whose client vanished or never reads; accepted sockets inherit the options."""
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_USER_TIMEOUT": int(CLIENT_READ_SECONDS * 1000), "TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10}
    for name, value in options.items():
        if hasattr(socket, name):  # not every system has all of them
            bound.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Parser(h11.Connection):
    """h11's parser of requests, which rejects a head that is too large and a body in too many pieces."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self.n_pieces = 0
        """Pieces of the present request's body."""
        self.sends_events = False
        """Whether the present response is a stream of events, between which there may be comments."""
        self.refusal = APIError(400, "the request is not valid HTTP", code="invalid_http")
        """The answer to a client after a RemoteProtocolError."""

    def next_event(self) -> Any:
        """The next event. Raises RemoteProtocolError for what is not HTTP, and for what is too large."""
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
                self._refuse_head()
            raise
        if isinstance(event, h11.Data):
            self.n_pieces += 1
            if self.n_pieces > MAX_PIECES:
                self._refuse(APIError(400, f"the body comes in more than {MAX_PIECES:,} pieces", code="invalid_http"))
        elif isinstance(event, h11.Request):
            self.n_pieces = 0
            if len(event.target) + sum(len(name) + len(value) + 4 for name, value in event.headers) > MAX_HEAD:
                self._refuse_head()
        return event

    def send(self, event: h11.Event) -> bytes | None:  # pyrefly: ignore[bad-override]  # h11 overloads it
        """The bytes of an event."""
        if isinstance(event, h11.Response):
            kind = dict(event.headers).get(b"content-type", b"")
            self.sends_events = kind.startswith(b"text/event-stream")
        return super().send(event)

    def _refuse_head(self) -> NoReturn:
        self._refuse(APIError(431, f"the head is larger than {MAX_HEAD // 1024} kB", code="head_too_large"))

    def _refuse(self, refusal: APIError) -> NoReturn:
        self.refusal = refusal
        raise h11.RemoteProtocolError(refusal.detail)


class Connection(H11Protocol):
    """uvicorn's connection with a time limit on receiving a request and on sending the response."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = Parser()
        self.conn = cast(h11.Connection, self.parser)
        state = cast(FastAPI, self.config.app).state
        self.settings: ServeSettings = state.settings
        self.models: Catalogue = state.models
        self.on_closed: Callable[[], None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.waiting_for: object = None
        """The request being served, `Connection` while the head of a request is read, None between two requests."""
        self.half_closed = False

    @property
    def busy(self) -> bool:
        """Whether a request is being served."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to wait for a request, or reject the connection if there are too many."""
        super().connection_made(cast(asyncio.Transport, transport))
        if self.client is not None:  # a proxy is trusted by its plain address
            self.client = plain_address(self.client[0]), self.client[1]
        if len(self.connections) > self.settings.max_connections:
            message = f"{self.settings.max_connections} connections are open; try again in a few seconds"
            retry = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            self._reject(APIError(429, message, type="rate_limit_error", code="too_many_connections", headers=retry))
        else:
            self._set_timer(Connection)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer of the closed connection."""
        super().connection_lost(exc)
        self._set_timer(None)
        if self.on_closed is not None:
            self.on_closed()

    def data_received(self, data: bytes) -> None:
        """Parse the data, and restart the timer."""
        super().data_received(data)
        self._set_timer(self.cycle if self.busy else Connection)

    def eof_received(self) -> bool:  # pyrefly: ignore[bad-override]  # asyncio.Protocol's may return one
        """Answer the request of a client that sends no more, which may have closed only its half of the connection."""
        self.half_closed = self.busy and not self.cycle.more_body and self.conn.their_http_version == b"1.1"
        if self.half_closed:
            self.loop.call_later(PROBE_SECONDS, self._probe)
        return self.half_closed

    def _probe(self) -> None:
        """Send an interim response or a comment now and then, because only writing tells whether the client closed both
        halves."""
        if self.half_closed and not self.transport.is_closing():
            if not self.cycle.response_started:
                self.transport.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            elif self.parser.sends_events:
                self.transport.write(self.parser.send(h11.Data(data=WAITING.encode())) or b"")
            self.loop.call_later(PROBE_SECONDS, self._probe)

    def on_response_complete(self) -> None:
        """Continue with the next request, which may have arrived already."""
        super().on_response_complete()
        if self.half_closed and not self.busy:
            self.transport.close()
        self._set_timer(self.cycle if self.busy else None)

    def send_400_response(self, msg: str) -> None:
        """Reject data that is not HTTP with an error in OpenAI's form."""
        if self.busy and self.cycle.response_started:
            self.transport.abort()
        else:
            self._reject(self.parser.refusal)

    def _set_timer(self, what: object) -> None:
        """Start the timer for what the connection waits for now, unless it runs already."""
        if what is self.waiting_for:
            return
        self.waiting_for = what
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if what is Connection:
            self.timer = self.loop.call_later(self.settings.read_timeout, self._time_out)
        elif what is not None:
            whole = self.settings.read_timeout + self.settings.time_limit + CLIENT_READ_SECONDS
            whole += self.settings.model_wait if self.models.several else 0
            self.timer = self.loop.call_later(whole, self.transport.abort)

    def _time_out(self) -> None:
        seconds, begun = self.settings.read_timeout, bool(self.conn.trailing_data[0])
        self._reject(APIError(408, f"no whole request came within {seconds:g} s", code="request_timeout"), begun)

    def _reject(self, error: APIError, begun: bool = True) -> None:
        """Send an error although there is no request, and close the connection. Where none was `begun`, as on the
        connections that browsers open in advance, none is logged."""
        if self.transport.is_closing():
            return
        client = self.client[0] if self.client else "unknown"
        record = RequestRecord("-", "-", client, status=error.status_code, complete=True)
        body = json.dumps(error.body).encode()
        headers = SECURITY_HEADERS | dict(error.headers or {})
        headers |= {"X-Request-Id": record.id, "Content-Type": "application/json", "Content-Length": str(len(body))}
        head = [f"HTTP/1.1 {error.status_code} {HTTPStatus(error.status_code).phrase}"]
        head += [*map(": ".join, headers.items()), "Connection: close", "", ""]
        self.transport.write("\r\n".join(head).encode() + body)
        self.transport.close()
        if begun:
            note(record, self.models.metrics)


class Server(uvicorn.Server):
    """uvicorn's server, which announces its URL once it accepts connections and shuts down without losing requests."""

    def __init__(self, app: FastAPI, url: str, on_ready: Callable[[str], None] | None = None) -> None:
        self.settings: ServeSettings = app.state.settings
        self.models: Catalogue = app.state.models
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
        self.first_signal: int | None = None
        """The signal that began the shutdown."""
        self.accepting: set[asyncio.Task] = set()
        """Tasks that set up accepted connections; asyncio itself keeps only weak references to them."""
        self.unready = self.settings.unready
        self.drain = self.settings.drain

    def connection(self) -> Connection:
        """The protocol object of a new connection."""
        return Connection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start the shutdown: not ready from now on. After Ctrl+C, a person need not wait long for others' answers, and
        after a second one not at all: they end with an error event. (uvicorn would cut the connections, and send itself
        the signal again afterwards, which would skip what other code does at the end.)"""
        self.models.draining = True
        if sig == signal.SIGINT:
            self.unready, self.drain = 0.0, 0.0 if self.should_exit else min(INTERRUPT_DRAIN_SECONDS, self.drain)
        if not self.should_exit:
            self.should_exit, self.first_signal = True, sig

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then announce the URL."""
        await super().startup(sockets)
        if self.started and self.url:
            say(f"{spoken([*self.models.offered])} served at {self.url} (Ctrl+C stops it)")
            if self.on_ready:
                self.on_ready(self.url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve the accepted requests; those that take too long end with an error event, not with a cut connection."""
        self.models.draining = True
        began = time.monotonic()
        while time.monotonic() < began + self.unready:  # which Ctrl+C sets to zero
            await asyncio.sleep(PROBE_SECONDS)
        self._stop_accepting(sockets or [])
        await asyncio.sleep(LATE_REQUEST_SECONDS)
        self.config.timeout_graceful_shutdown = int(self.drain + ERROR_EVENT_SECONDS)
        ending = asyncio.create_task(self._end_answers())
        await super().shutdown(sockets)
        ending.cancel()

    async def _end_answers(self) -> None:
        """End the answers that take longer than `drain`."""
        began = time.monotonic()
        while time.monotonic() < began + self.drain:  # which a second Ctrl+C sets to zero
            await asyncio.sleep(min(PROBE_SECONDS, self.drain))
        self.models.stop()

    def _stop_accepting(self, sockets: list[socket.socket]) -> None:
        """Close the listening sockets, after accepting the connections in their queues, which would be cut off."""
        loop = asyncio.get_running_loop()
        for bound in sockets:
            with contextlib.suppress(OSError):  # the queue is empty
                while True:
                    accepted, _ = bound.accept()
                    self.accepting.add(loop.create_task(loop.connect_accepted_socket(self.connection, accepted)))
        for server in self.servers:
            server.close()
