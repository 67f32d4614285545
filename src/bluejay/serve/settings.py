"""What the server is told when it starts."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PublicSettings:
    """What strangers on the open web may do. A client is a key's name, or without keys an address."""

    keys: Path | None = None
    """A file of API keys, a name and a key on each line; None asks for no key."""
    requests_per_minute: int = 20
    """For each client. Those of a minute may come at once."""
    tokens_per_hour: int = 50_000
    """Read and written, for each client. Those of an hour may come at once."""
    origins: tuple[str, ...] = ()
    """Other sites whose pages may call this server, such as https://example.org."""
    proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    """Addresses or networks whose word is taken on who the client is (X-Forwarded-For)."""
    state: Path | None = None
    """The file in which several processes count together; None counts in memory."""

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_hour"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for origin in self.origins:
            scheme, _, host = origin.partition("://")
            if scheme not in ("http", "https") or not host or "/" in host:
                raise ValueError(f"{origin!r} is not an origin; one looks like https://example.org")


@dataclass(frozen=True)
class ServeSettings:
    """How a model is served; the defaults suit one person on one machine."""

    host: str = "127.0.0.1"
    """The address to listen on: this machine only."""
    port: int = 8000
    """0 is any free one."""
    workers: int = 1
    """Processes that each serve the model, on a share of the processors."""
    max_sequences: int = 8
    """Samples that run at a time, in each process."""
    max_waiting: int = 64
    """Prompts that may wait for a place, in each process; the next one is refused with 429."""
    max_connections: int = 1000
    """Open at a time, in each process; the next one is refused with 429."""
    max_body: int = 1_000_000
    """Bytes of a request's body. The longest context that a model reads is far below."""
    seconds_to_send: float = 10.0
    """For a client to send the head of its request, and again for the body."""
    seconds_to_answer: float = 600.0
    """From a request's place in the queue to its end. An answer that takes longer ends there, as at its token limit."""
    seconds_unready: float = 0.0
    """How long a server that was told to stop goes on as before, but not ready, so that balancers see it leave."""
    seconds_to_drain: float = 60.0
    """How long it then has for the requests it has taken."""
    log_prompts: bool = False
    """Whether the request log holds what was asked, too."""
    public: PublicSettings | None = None
    """Limits for strangers; None serves without limits."""

    def __post_init__(self) -> None:
        for name in ("workers", "max_sequences", "max_waiting", "max_connections", "max_body"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("seconds_to_send", "seconds_to_answer", "seconds_unready", "seconds_to_drain"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
