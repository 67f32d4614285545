"""API keys, and limits for each client, for a server on the open web."""

import hashlib
import hmac
import logging
import re
from collections import Counter
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from bluejay.serve.errors import APIError, too_many_at_once
from bluejay.serve.middleware.access_log import current_request
from bluejay.serve.middleware.addresses import client_network, is_private
from bluejay.serve.middleware.rates import Account, Limits, limit_exceeded
from bluejay.serve.settings import PublicSettings

logger = logging.getLogger(__name__)

MIN_KEY_CHARACTERS = 16
"""The least length of a key; shorter ones can be guessed."""
MAX_CONCURRENT_REQUESTS = 8
"""Requests that one client may have in progress."""
COMMENT = re.compile(r"(^|\s)#.*")
"""The comment of a line in the file of keys; # within a key starts none."""

WAITS = "/model/get_prediction"
"""The endpoint that only waits for a request of /model/predict, which counts as one in progress itself."""


class PublicAccess:
    """ASGI middleware that checks the key and enforces the limits of each client."""

    def __init__(self, app: ASGIApp, settings: PublicSettings) -> None:
        self.app = app
        self.keys = None if settings.keys is None else KeyFile(settings.keys)
        self.limits = Limits(settings)
        self.in_progress: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or reject it."""
        if scope["type"] != "http" or not is_api_call(scope):
            return await self.app(scope, receive, send)
        record = current_request.get()
        assert record is not None
        try:
            if scope["path"] == "/metrics":
                require_private_address(record.client)
                return await self.app(scope, receive, send)
            client = record.client = self._client(record.client, Headers(scope=scope))
            if scope["method"] == "POST":
                self._admit(client, scope["path"])
                record.account = Account(self.limits, client)
        except APIError as error:
            return await error.response()(scope, receive, send)
        if scope["path"] == WAITS:
            return await self.app(scope, receive, send)
        self.in_progress[client] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            if record.unfinished is None:
                self._leave(client)
            else:
                record.unfinished.add_done_callback(lambda _: self._leave(client))

    def _client(self, address: str, headers: Headers) -> str:
        """The name of the client's key, or its network where no key is required. Raises APIError."""
        if self.keys is None:
            return client_network(address)
        scheme, _, rest = headers.get("authorization", "").partition(" ")
        key = rest.strip() if scheme.lower() == "bearer" else ""
        name = self.keys.name(key)
        if name is None:
            required = "this server requires one of its API keys, sent as `Authorization: Bearer KEY`"
            message = "the key that was sent is none of this server's API keys, or no longer one" if key else required
            challenge = {"WWW-Authenticate": "Bearer"}
            raise APIError(401, message, type="authentication_error", code="invalid_api_key", headers=challenge)
        return name

    def _leave(self, client: str) -> None:
        self.in_progress[client] -= 1
        if not self.in_progress[client]:
            del self.in_progress[client]

    def _admit(self, client: str, path: str) -> None:
        if path != WAITS and self.in_progress[client] >= MAX_CONCURRENT_REQUESTS:
            raise too_many_at_once(f"{MAX_CONCURRENT_REQUESTS} requests of yours are being served; wait for one to end")
        limit = self.limits.requests
        if wait := self.limits.take(client, limit, 1):
            raise limit_exceeded(limit, wait, f"a client may ask {limit.amount} times a minute, and")


def is_api_call(scope: Scope) -> bool:
    """Whether a request is subject to keys and limits, unlike those for the page and the health of the server."""
    described = scope["path"] in ("/card", "/openapi.json")
    read = scope["method"] in ("GET", "HEAD", "OPTIONS")
    return not read or described or scope["path"].startswith(("/v1/", "/metrics"))


def require_private_address(address: str) -> None:
    """Raises APIError, as for an unknown path, unless an address belongs to a private network."""
    if not is_private(address):
        raise APIError(404, "there is nothing at GET /metrics", code="not_found")


class KeyFile:
    """A file of keys, which is read again when it changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.modified = path.stat().st_mtime_ns
        self.refused: int | None = None
        """The time of a later change after which the file cannot be used; 0 where there is no file."""
        self.keys = read_keys(path)

    def name(self, key: str) -> str | None:
        """The name of a key, None for an unknown one. The time it takes does not depend on the key."""
        self._refresh()
        digest = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        found = None
        for name, expected in self.keys.items():
            if hmac.compare_digest(digest, expected):
                found = name
        return found

    def _refresh(self) -> None:
        """Read the file if it has changed. One that cannot be used, as while it is written, changes nothing, which the
        log says once for each change."""
        modified = 0
        try:
            modified = self.path.stat().st_mtime_ns
            if modified != self.modified:
                self.keys, self.modified = read_keys(self.path, least=0), modified
            self.refused = None
        except (OSError, ValueError) as error:
            if modified != self.refused:
                logger.warning("the changed file of keys cannot be used, so the former keys stay valid: %s", error)
            self.refused = modified


def read_keys(path: Path, least: int = 1) -> dict[str, bytes]:
    """Name -> SHA-256 of the key. Each line of the file has a name and a key; a word that begins with # starts a
    comment.

    Raises ValueError for a line in another form, for a key that is short or not printable ASCII, for two keys of one
    name and two names of one key, for a file that is not UTF-8, is empty or has fewer than `least` keys, and
    FileNotFoundError.
    """
    keys: dict[str, bytes] = {}
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors of Windows begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}; save it as UTF-8") from None
    for number, line in enumerate(text.splitlines(), 1):
        words = COMMENT.sub("", line).split()
        if not words:
            continue
        if len(words) != 2:
            raise ValueError(f"{path}, line {number}: a line is a name and a key, such as: alice 4f1c...")
        name, key = words
        if len(key) < MIN_KEY_CHARACTERS:
            raise ValueError(
                f"{path}, line {number}: the key has {len(key)} characters and can be guessed; "
                f"`openssl rand -hex 24` makes a good one"
            )
        if not (key.isascii() and key.isprintable()):
            raise ValueError(
                f"{path}, line {number}: the key must be printable ASCII, because clients send other characters in "
                f"different encodings; `openssl rand -hex 24` makes a good one"
            )
        if name in keys:
            raise ValueError(f"{path}, line {number}: {name} has a key already")
        digest = hashlib.sha256(key.encode()).digest()
        if digest in keys.values():
            raise ValueError(f"{path}, line {number}: {name} has the key of another; each name needs a key of its own")
        keys[name] = digest
    if len(keys) < least or not text.strip():
        raise ValueError(f"{path} holds no key; a line is a name and a key, such as: alice 4f1c...")
    return keys
