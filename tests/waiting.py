"""How long a test waits for what must come: long, because a machine may have much else to do."""

import time
from collections.abc import Callable

PATIENCE = 120.0
"""Seconds. Reached only where a test fails."""


def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Whether a condition becomes true within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return bool(condition())
        time.sleep(0.01)
    return True
