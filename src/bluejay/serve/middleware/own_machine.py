"""A server for its own machine alone answers no website that a browser on this machine shows.

A website's name can be made to lead to this machine (DNS rebinding), and then its pages may read every answer; and any
page may send a request without a body, whose answer it cannot read.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from bluejay.serve.errors import APIError
from bluejay.serve.middleware.addresses import plain_address
from bluejay.serve.settings import ServeSettings

CONTAINER_HOSTS = ("host.docker.internal", "host.containers.internal")
"""The names of this machine in containers of Docker and Podman. No website can have a name that ends so."""


class OwnMachine:
    """ASGI middleware that refuses requests by a name that is not this machine's, and those that other sites send."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.names = {"localhost", host.lower(), *CONTAINER_HOSTS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises APIError for one that is refused."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            self._check_name(headers.get("host", ""))
            if scope["method"] == "POST":
                check_site(headers)
        await self.app(scope, receive, send)

    def _check_name(self, host: str) -> None:
        """Raise APIError for the header Host of a website; clients older than it send none."""
        name = name_of(host)
        if name and name not in self.names and not name.endswith(".localhost") and not is_address(name):
            message = (
                f"this server is for its own machine, as localhost, and not for {name[:100]}; "
                "--public serves it under other names"
            )
            raise APIError(403, message, code="forbidden")


def check_site(headers: Headers) -> None:
    """Raise APIError for the headers of a request that a page of another site sends; only browsers name the site."""
    origin = headers.get("origin")
    foreign = origin is not None and place_of(origin) != headers.get("host", "").lower()
    if foreign or headers.get("sec-fetch-site") == "cross-site":
        message = "this server takes no requests from pages of other sites; --public with --origin names sites that may"
        raise APIError(403, message, code="forbidden")


def place_of(origin: str) -> str:
    """The host and port of the header Origin, as Host has them; empty where there is none, as in `null`."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def name_of(host: str) -> str:
    """The header Host without the port, and without the brackets of an IPv6 address."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower().removesuffix(".")


def is_address(name: str) -> bool:
    """Whether a host is an IP address, which no website can make lead elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_for_own_machine(settings: ServeSettings) -> bool:
    """Whether a server can be reached from its own machine alone, and is not public, as behind a proxy."""
    if settings.public is not None:
        return False
    try:
        found = socket.getaddrinfo(settings.host, None, type=socket.SOCK_STREAM)[0][4][0]
        return ipaddress.ip_address(plain_address(str(found))).is_loopback
    except (OSError, ValueError):
        return False
