"""The access log, and the record of each request that the log, the metrics and the limits share.

The log has one JSON object per line, for every request to the API and every rejected request: the client, the time,
the endpoint, the status and the numbers of tokens. Prompts are logged only if the settings ask for it, answers never.
"""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bluejay.serve.metrics import Metrics
from bluejay.serve.middleware.addresses import plain_address
from bluejay.serve.middleware.rates import Account

UNLOGGED = ("/healthz", "/readyz", "/metrics")
"""Routes that machines ask every few seconds."""

CLIENT_LEFT = 499
"""nginx's status for a client that disconnected before the response."""

logger = logging.getLogger("bluejay.requests")


@dataclass(eq=False)
class RequestRecord:
    """What is known about one HTTP request and its response."""

    method: str
    path: str
    client: str
    """The address of the client, or the name of its key."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    began: float = field(default_factory=time.monotonic)
    account: Account | None = None
    unfinished: asyncio.Future | None = None
    """Work that continues after the response; until it is done, the request counts as one in progress."""
    model: str | None = None
    """The model that answers, where several are served."""
    decode: Callable[[list[int]], str] | None = None
    """Gives the text of a prompt, where prompts are logged."""
    ends: list[Callable[[], None]] = field(default_factory=list)
    """What is called when the response has ended, and all work for the request with it."""
    prompts: list[list[int]] = field(default_factory=list)
    """The prompts that the engine accepted, as token ids."""
    generated_tokens: int = 0
    first_token: float | None = None
    """Seconds from the arrival of the request to its first generated token."""
    status: int = CLIENT_LEFT
    """HTTP status; until there is a response `CLIENT_LEFT`."""
    complete: bool = False
    """Whether the whole response was handed to the connection."""
    error: str | None = None
    """The code of the error with which a stream ended, after its status was sent."""

    def reserve(self, n_tokens: int) -> None:
        """Charge the client for the most tokens that the request can use. Raises APIError if too few are left."""
        if self.account is not None:
            self.account.reserve(n_tokens)

    def refund(self, n_tokens: int) -> None:
        """Refund unused tokens to the client's budget."""
        if self.account is not None and n_tokens > 0:
            self.account.refund(n_tokens)

    def receive_token(self) -> None:
        """Count a generated token."""
        self.generated_tokens += 1
        if self.first_token is None:
            self.first_token = time.monotonic() - self.began

    def end(self) -> None:
        """Call what waits for the end of the request, now or when its unfinished work is done."""
        if self.unfinished is not None and not self.unfinished.done():
            self.unfinished.add_done_callback(lambda _: self.end())
            return
        while self.ends:
            self.ends.pop()()

    def line(self) -> str:
        """The log line."""
        figures: dict[str, object] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": self.id,
            "client": self.client,
            "method": self.method,
            "path": self.path[:200],
            "status": self.status,
            "complete": self.complete,
            "seconds": round(time.monotonic() - self.began, 4),
        }
        if self.error is not None:
            figures["error"] = self.error
        if self.model is not None:
            figures["model"] = self.model
        if self.prompts:
            figures |= {"prompt_tokens": sum(map(len, self.prompts)), "generated_tokens": self.generated_tokens}
            if self.decode is not None:
                figures["prompts"] = [self.decode(prompt) for prompt in self.prompts]
        if self.first_token is not None:
            figures["first_token_seconds"] = round(self.first_token, 4)
        return json.dumps(figures)


current_request: ContextVar[RequestRecord | None] = ContextVar("record", default=None)
"""The request that the running task serves."""


class AccessLog:
    """ASGI middleware that gives every request a record, an id, a line in the log and a count in the metrics."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        client = plain_address(scope["client"][0]) if scope["client"] else "unknown"
        record = RequestRecord(scope["method"], scope["path"], client)

        async def recording_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = record.id
            elif not message.get("more_body"):
                record.complete = record.status != CLIENT_LEFT
            await send(message)

        current_request.set(record)
        try:
            await self.app(scope, receive, recording_send)
        finally:
            route = scope.get("route")  # none for the page's files
            note(record, self.metrics, route.path if route else None)
            record.end()


def note(record: RequestRecord, metrics: Metrics, route: str | None = None) -> None:
    """Count a request that was answered, and log it if it was rejected or is one to the API."""
    metrics.requests.labels(route or "other", record.status).inc()
    if record.status >= 400 or (route and route not in UNLOGGED):
        logger.info(record.line())
