"""Requests as some clients write them, made into the requests that the application knows."""

from starlette.types import ASGIApp, Receive, Scope, Send


class Tolerance:
    """ASGI middleware: a path may end with a slash, and HEAD asks what GET would answer (RFC 9110, 9.3.2).

    The application never redirects: the address of a redirect is made of the header Host, which anybody may invent.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the server leaves out the body of an answer to HEAD."""
        if scope["type"] == "http":
            path = scope["path"].removesuffix("/") or "/"
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            scope = {**scope, "path": path, "method": method}
        await self.app(scope, receive, send)
