"""Requests as some clients write them, made into the requests that the application knows."""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

SITE = re.compile("https?://([^/]*)", re.IGNORECASE)
"""The scheme and the host before the path of a request in absolute form."""


class Tolerance:
    """ASGI middleware: a path may end with a slash, HEAD asks what GET would answer (RFC 9110, 9.3.2), and a request in
    absolute form names its host itself, whatever its header Host says (RFC 9112, 3.2.2).

    The application never redirects: the address of a redirect is made of the header Host, which anybody may invent.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the server leaves out the body of an answer to HEAD."""
        if scope["type"] == "http":
            path, headers = scope["path"], scope["headers"]
            if site := SITE.match(path):
                path = path[site.end() :]
                headers = [header for header in headers if header[0] != b"host"] + [(b"host", site[1].encode())]
            path = path.removesuffix("/") or "/"
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            scope = {**scope, "path": path, "method": method, "headers": headers}
        await self.app(scope, receive, send)
