"""Rate limits over time and across processes."""

import time

import pytest

from bluejay.serve.errors import APIError
from bluejay.serve.middleware.rates import Account, Limits
from bluejay.serve.settings import PublicSettings


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until the test moves it."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def test_an_allowance_refills_at_a_constant_rate(clock):
    limits = Limits(PublicSettings(requests_per_minute=4))
    assert [limits.take("a", limits.requests, 1) for _ in range(5)] == [0, 0, 0, 0, 15]
    clock[0] += 14
    assert limits.take("a", limits.requests, 1) == pytest.approx(1)
    clock[0] += 1
    assert limits.take("a", limits.requests, 1) == 0
    assert limits.take("a", limits.requests, 1) == pytest.approx(15)
    clock[0] += 1000  # no more than a full one
    assert [limits.take("a", limits.requests, 1) for _ in range(5)] == [0, 0, 0, 0, 15]


def test_a_clock_that_is_set_back_locks_nobody_out(clock):
    limits = Limits(PublicSettings(requests_per_minute=4))
    assert limits.take("a", limits.requests, 4) == 0
    clock[0] -= 86_400
    assert [limits.take("a", limits.requests, 1) for _ in range(5)] == [0, 0, 0, 0, 15]


def test_processes_share_the_allowance_of_a_client(clock, tmp_path):
    settings = PublicSettings(tokens_per_hour=100, state=tmp_path / "limits.sqlite")
    one, other = Limits(settings), Limits(settings)
    assert one.take("a", one.tokens, 60) == 0
    assert other.take("a", other.tokens, 60) == pytest.approx(20 * 36)
    Account(other, "a").refund(30)
    assert one.take("a", one.tokens, 60) == 0
    assert one.take("b", one.tokens, 100) == 0


def test_a_request_above_the_whole_allowance_is_rejected_with_both_numbers(clock):
    account = Account(Limits(PublicSettings(tokens_per_hour=100)), "a")
    with pytest.raises(APIError, match="may need 101 tokens, but a client has 100 an hour"):
        account.reserve(101)
    account.reserve(100)
    account.refund(500)  # more than was ever taken
    with pytest.raises(APIError) as refused:
        account.reserve(100)
        account.reserve(1)
    assert refused.value.status_code == 429 and refused.value.headers == {"Retry-After": "36"}


def test_clients_with_a_full_allowance_are_deleted(clock):
    limits = Limits(PublicSettings())
    for number in range(2500):
        clock[0] += 10
        limits.take(f"client {number}", limits.requests, 1)
    (kept,) = limits.database.execute("SELECT count(*) FROM allowances").fetchone()
    assert kept < 1001
