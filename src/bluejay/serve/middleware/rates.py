"""Rate limits by the generic cell rate algorithm (ITU-T I.371, annex A).

It stores one number for each client and limit: the time at which the allowance will be full again. The numbers are in
SQLite, because several processes that serve one model share them.
"""

import math
import sqlite3
import time
from dataclasses import dataclass

from bluejay.serve.errors import APIError
from bluejay.serve.settings import PublicSettings

WRITES_BETWEEN_CLEANINGS = 1000


@dataclass(frozen=True)
class Limit:
    """An allowance that refills at a constant rate."""

    name: str
    amount: int
    """Units in a full allowance."""
    seconds: float
    """How long an empty allowance takes to refill."""


class Limits:
    """The allowances of all clients."""

    def __init__(self, settings: PublicSettings) -> None:
        self.requests = Limit("requests", settings.requests_per_minute, 60.0)
        self.tokens = Limit("tokens", settings.tokens_per_hour, 3600.0)
        self.database = sqlite3.connect(settings.state or ":memory:", timeout=1.0, isolation_level=None)
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = OFF")  # if the machine crashes, all allowances are full again
        self.database.execute(
            "CREATE TABLE IF NOT EXISTS allowances (client TEXT, name TEXT, full REAL, PRIMARY KEY (client, name))"
        )
        self.n_writes = 0

    def take(self, client: str, limit: Limit, units: int) -> float:
        """Take units from a client's allowance and return 0; if too few are left, take none and return the seconds
        until there will be enough. Negative units are a refund.
        """
        now = time.time()  # unlike the monotonic clock, it is the same for all processes and after a reboot
        cost = units * limit.seconds / limit.amount
        self.database.execute("BEGIN IMMEDIATE")
        try:
            found = self.database.execute(
                "SELECT full FROM allowances WHERE client = ? AND name = ?", (client, limit.name)
            ).fetchone()
            full = max(now, found[0]) if found else now
            if full > now + limit.seconds + 1:  # more than was ever taken: the clock was set back
                full = now
            full += cost
            wait = full - now - limit.seconds
            if wait <= 0 or units <= 0:
                values = client, limit.name, full
                self.database.execute("INSERT OR REPLACE INTO allowances VALUES (?, ?, ?)", values)
                self.n_writes += 1
                wait = 0.0
            if self.n_writes % WRITES_BETWEEN_CLEANINGS == 0:
                self.database.execute("DELETE FROM allowances WHERE full < ?", (now,))
        finally:
            self.database.execute("COMMIT")
        return wait


class Account:
    """One client's allowance of tokens."""

    def __init__(self, limits: Limits, client: str) -> None:
        self.limits = limits
        self.client = client

    def reserve(self, n_tokens: int) -> None:
        """Take the most tokens that a request can use. Raises APIError if too few are left."""
        limit = self.limits.tokens
        if n_tokens > limit.amount:
            message = f"the request may need {n_tokens} tokens, but a client has {limit.amount} an hour; ask for fewer"
            raise APIError(400, message, param="max_tokens", code="token_budget_exceeded")
        if wait := self.limits.take(self.client, limit, n_tokens):
            raise limit_exceeded(limit, wait, f"the request may need {n_tokens} tokens, and of {limit.amount} an hour")

    def refund(self, n_tokens: int) -> None:
        """Return the tokens that a request did not use."""
        self.limits.take(self.client, self.limits.tokens, -n_tokens)


def limit_exceeded(limit: Limit, wait: float, reason: str) -> APIError:
    """The error for a client whose allowance is too small for another `wait` seconds."""
    seconds = math.ceil(wait)
    message = f"{reason} not enough are left; try again in {seconds} s"
    headers = {"Retry-After": str(seconds)}
    code = "rate_limit_exceeded" if limit.name == "requests" else "token_budget_exceeded"
    return APIError(429, message, type="rate_limit_error", code=code, headers=headers)
