"""A hostile program does not lengthen the processor time of what runs beside it."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from bluejay.evals.cage import Limits, run
from tests.evals.cage.cheating import CHEATING
from tests.evals.cage.hostile import HOSTILE

WORK = """
import time
def work():
    start = time.process_time()
    found = {}
    for number in range(150_000):
        found[number % 1000] = found.get(number % 1000, 0) + number
    return time.process_time() - start
"""
NOWHERE = "FOLDER = '/nonexistent'\nPID = 1 << 22\nPORT = 1\nSOCKET = '/nonexistent/socket'\n"
LIMITS = Limits(cpu_seconds=1, sleep_seconds=1.0)
PATIENCE = 60.0


def processor_seconds() -> float:
    """The shortest of some measurements of the same work: what else the machine does can only lengthen it."""
    return min(run(WORK, ["work()"] * 8).results)


@contextlib.contextmanager
def beside(program: str) -> Iterator[None]:
    """Run a program again and again meanwhile."""
    end = threading.Event()

    def again() -> None:
        while not end.is_set():
            run(NOWHERE + program, ["double(1)"], LIMITS)

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@pytest.fixture(scope="module")
def alone() -> float:
    return min(processor_seconds() for _ in range(10))


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE | CHEATING)
def test_a_neighbour_needs_no_more_processor_time(name, alone):
    until, measured = time.monotonic() + PATIENCE, []
    with beside((HOSTILE | CHEATING)[name]):
        while min(measured, default=2 * alone) > 1.1 * alone and time.monotonic() < until:
            measured.append(processor_seconds())
    assert min(measured) <= 1.1 * alone, measured
