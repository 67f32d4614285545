"""The settings of the server; the options of `bluejay serve` are made from them."""

import ipaddress
import re
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bluejay.fields import check_ranges, given, parse_size, setting

DEFAULT_SHARE = 0.75
"""Share of the free memory that a server of several models takes unless it is told."""
MAPPED_BITS = 96
"""The length of ::ffff:0:0/96, in which a socket of both versions shows IPv4 addresses (RFC 4291, 2.5.5.2)."""


@dataclass(frozen=True)
class PublicSettings:
    """Limits for strangers on the open web. A client is a key, or without keys an address."""

    keys: Path | None = None
    """Require an API key from this file, which has a name and a key on each line."""
    requests_per_minute: int = setting(20, 1)
    """Requests that each client may make in a minute, even all at once."""
    tokens_per_hour: int = setting(50_000, 1)
    """Tokens, read and generated, that each client may use in an hour, even all at once."""
    origin: tuple[str, ...] = ()
    """A site, such as https://example.org, whose pages may call this server."""
    proxy: tuple[str, ...] = setting(("127.0.0.1", "::1"), default_text="loopback")
    """An address or network that is trusted to name the client (X-Forwarded-For)."""
    state: Path | None = None
    """The database in which several processes count together; None counts in memory."""
    trace: bool = False
    """Answer /v1/trace, which shows pieces of the documents that the model was trained on."""

    def __post_init__(self) -> None:
        check_ranges(self)
        object.__setattr__(self, "origin", tuple(map(origin, self.origin)))
        object.__setattr__(self, "proxy", tuple(map(network, self.proxy)))


def origin(text: str) -> str:
    """A site as browsers write it in the header Origin, or a program that is made of pages, such as an extension of a
    browser: chrome-extension://abcdef. Raises ValueError."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    name = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}.get(parts.scheme)
    written = f"{parts.scheme}://{name}" + ("" if port is None else f":{port}")
    if not parts.scheme or not re.fullmatch(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]", name) or text.lower() != written:
        raise ValueError(f"{text!r} is not an origin; one looks like https://example.org")
    return written.removesuffix(f":{default}") if default else written


def network(text: str) -> str:
    """An address or a network, which may be written with an address in it: 10.0.0.5/24. Raises ValueError."""
    try:
        found = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not an address or a network; one looks like 10.0.0.0/24") from None
    mapped = getattr(found.network_address, "ipv4_mapped", None)
    if mapped and found.prefixlen >= MAPPED_BITS:
        found = ipaddress.ip_network((mapped, found.prefixlen - MAPPED_BITS))
    return str(found.network_address if found.num_addresses == 1 else found)


@dataclass(frozen=True)
class ServeSettings:
    """How a model is served; the defaults suit one person on one machine."""

    host: str = setting("127.0.0.1", default_text="127.0.0.1, this machine only")
    """Address to listen on."""
    port: int = 8000
    """TCP port to listen on; 0 takes any free one."""
    workers: int = setting(1, 1)
    """Processes that serve the model, each on its share of the processors."""
    memory: str | None = setting(None, default_text="three quarters of what is free, for several models")
    """Memory that the server takes at most, in all its processes, such as 4GB; on GPUs, the memory of each. The
    models used least recently are unloaded when another needs the room."""
    model_wait: float = setting(60.0, 0)
    """Seconds that a request waits for its model to have room and be loaded, before it gets status 503."""
    max_sequences: int = setting(8, 1)
    """Samples that run at a time in each process."""
    max_context: int | None = setting(None, 2, default_text="the model's context")
    """Tokens of the longest text, prompt and answer together; a shorter one needs less memory for the cache."""
    max_waiting: int = setting(64, 1)
    """Prompts that may wait in each process; more are rejected with status 429."""
    max_connections: int = setting(1000, 1)
    """Open connections in each process; more are rejected with status 429."""
    max_body: int = setting(1_000_000, 1)
    """Bytes that the body of a request may have; 100,000 token ids take about 700,000."""
    read_timeout: float = setting(10.0, 0)
    """Seconds in which a client must send the head of a request, and again its body."""
    time_limit: float = setting(600.0, 0)
    """Seconds after which an answer ends as at its token limit, counted from when the request was queued; with status
    503 if its prompts are not read by then."""
    unready: float = setting(0.0, 0, default_text="0")
    """Seconds after SIGTERM to keep serving while /readyz says not ready, so that load balancers notice."""
    drain: float = setting(60.0, 0)
    """Seconds to finish the accepted requests at shutdown, after `unready`."""
    corpus: tuple[str, ...] = ()
    """A corpus to trace texts in that the model does not find by itself."""
    log_prompts: bool = False
    """Write prompts to the request log, too."""
    public: PublicSettings | None = None
    """Limit what each client may ask for; None sets no limits."""

    def __post_init__(self) -> None:
        check_ranges(self)
        _ = self.memory_bytes  # or a wrong one would be noticed late

    def context(self, n_ctx: int) -> int:
        """Tokens of the longest text that is served with a model whose context has `n_ctx` tokens."""
        return n_ctx if self.max_context is None else min(n_ctx, self.max_context)

    def memory_of(self, free: int) -> int:
        """The memory of the server in bytes: what was given, else a share of what would be free without it."""
        return int(DEFAULT_SHARE * free) if self.memory_bytes is None else self.memory_bytes

    @property
    def memory_bytes(self) -> int | None:
        """`memory` in bytes. Raises ValueError where it is not a size."""
        return None if self.memory is None else parse_size(self.memory, "memory")


def settings_from(options: Namespace) -> ServeSettings:
    """The settings that a command line gives. Raises ValueError for options that are useless without --public."""
    limits, is_public = given(options, PublicSettings), vars(options).get("public", False)
    if limits and not is_public:
        raise ValueError("keys, limits, origins and proxies are for the open web; add --public")
    return ServeSettings(**given(options, ServeSettings) | {"public": PublicSettings(**limits) if is_public else None})
