"""Security headers for every response, limits on the size and duration of a request's body, and OpenAI's error object
in place of a traceback."""

import asyncio
import logging
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bluejay.serve.errors import APIError
from bluejay.serve.settings import ServeSettings

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

logger = logging.getLogger(__name__)


class LimitsAndErrors:
    """ASGI middleware that adds the headers and enforces the limits."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, is_draining: Callable[[], bool]) -> None:
        self.app = app
        self.is_draining = is_draining
        self.max_body = settings.max_body
        self.seconds = settings.read_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False
        received = 0
        reading = True
        deadline = asyncio.get_running_loop().time() + self.seconds

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
                if self.is_draining():  # the client's next request should go elsewhere
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        async def guarded_receive() -> Message:
            nonlocal received, reading
            if not reading:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise body_too_late(self.seconds) from None
            reading = message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self.max_body:
                raise body_too_large(self.max_body)
            return message

        try:
            # A chunked body has no length that could be checked here; it is counted as it arrives.
            headers = Headers(scope=scope)
            length = headers.get("content-length", "")
            if length.isdecimal() and int(length) > self.max_body:
                raise body_too_large(self.max_body)
            if (encoding := headers.get("content-encoding", "identity").strip().lower()) not in ("identity", ""):
                raise body_encoded(encoding)
            await self.app(scope, guarded_receive, guarded_send)
        except APIError as error:
            await error.response()(scope, receive, guarded_send)
        except Exception:  # a bug: the log has the traceback, and the client gets an error in OpenAI's form
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise
            error = APIError(500, "the server failed; its log says why", type="server_error", code="internal_error")
            await error.response()(scope, receive, guarded_send)


def body_too_large(limit: int) -> APIError:
    """The error for a body over the limit, the rest of which is not read."""
    message = f"the request is larger than {limit:,} bytes"
    return APIError(413, message, code="request_too_large", headers={"Connection": "close"})


def body_encoded(encoding: str) -> APIError:
    """The error for a compressed body, which could unpack to any size (RFC 9110, 8.4)."""
    message = f"the body is encoded as {encoding[:40]}, which is not read here; send it without Content-Encoding"
    return APIError(415, message, code="unsupported_encoding", headers={"Accept-Encoding": "identity"})


def body_too_late(seconds: float) -> APIError:
    """The error for a body that was not received in time."""
    message = f"the body was not received within {seconds:g} s"
    return APIError(408, message, code="request_timeout", headers={"Connection": "close"})
