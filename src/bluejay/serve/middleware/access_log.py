"""One request and its answer, as the log, the metrics and the limits see it.

The log is one JSON object a line: who asked what of the server, when, how it ended and what it cost. What was asked
and answered is not in it unless the settings say so.
"""

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
from bluejay.serve.middleware.rates import Account

logger = logging.getLogger("bluejay.requests")


@dataclass(eq=False)
class RequestRecord:
    """What is known of one request."""

    method: str
    path: str
    client: str
    """An address, or the name of a key."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    began: float = field(default_factory=time.monotonic)
    account: Account | None = None
    prompts: list[list[int]] = field(default_factory=list)
    """Those that the engine took."""
    generated_tokens: int = 0
    first_token: float | None = None
    """Seconds from the request's arrival."""
    status: int = 499
    """nginx's number for a client that went away before it was answered, until there is another."""
    complete: bool = False
    """Whether the whole answer was handed to the connection."""

    def reserve(self, n_tokens: int) -> None:
        """Take what the request may come to from the client's budget. Raises APIError where it is not there."""
        if self.account is not None:
            self.account.reserve(n_tokens)

    def give_back(self, n_tokens: int) -> None:
        """Put what was not used back into the client's budget."""
        if self.account is not None and n_tokens > 0:
            self.account.give_back(n_tokens)

    def receive_token(self) -> None:
        """Note a token that came from the engine."""
        self.generated_tokens += 1
        if self.first_token is None:
            self.first_token = time.monotonic() - self.began

    def line(self, decode: Callable[[list[int]], str] | None) -> str:
        """The log's line; with the prompts where there is a way to write them."""
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
        if self.prompts:
            figures |= {"prompt_tokens": sum(map(len, self.prompts)), "generated_tokens": self.generated_tokens}
            if decode is not None:
                figures["prompts"] = [decode(prompt) for prompt in self.prompts]
        if self.first_token is not None:
            figures["first_token_seconds"] = round(self.first_token, 4)
        return json.dumps(figures)


current_request: ContextVar[RequestRecord | None] = ContextVar("record", default=None)
"""The request that is being served, for what is called on its behalf."""


class AccessLog:
    """An ASGI application around another: every request becomes an RequestRecord, a line of the log and a count."""

    def __init__(self, app: ASGIApp, metrics: Metrics, decode: Callable[[list[int]], str] | None = None) -> None:
        self.app = app
        self.metrics = metrics
        self.decode = decode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        client = scope["client"][0] if scope["client"] else "unknown"
        record = RequestRecord(scope["method"], scope["path"], client)

        async def recording_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = record.id
            elif not message.get("more_body"):
                record.complete = True
            await send(message)

        current_request.set(record)
        try:
            await self.app(scope, receive, recording_send)
        finally:
            route = scope.get("route")
            self.metrics.requests.labels(route.path if route else "other", record.status).inc()
            if record.prompts or record.status >= 400:  # a page's files and a balancer's questions are no news
                logger.info(record.line(self.decode))
