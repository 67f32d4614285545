"""What every peer is asked: seconds of a step that adds one token, of one that reads a prompt."""

import json
import statistics
import time
from collections.abc import Callable

N_TOKENS = 16


def report(decode: Callable[[int], None], prefill: Callable[[int], None]) -> None:
    """Print tokens a second as JSON. `decode` makes so many tokens after a short prompt; `prefill` reads so many."""
    decode(2)
    # The prompt and the start of a call cost the same for few tokens and for many.
    seconds = [timed(decode, 4 + N_TOKENS) - timed(decode, 4) for _ in range(5)]
    figures = {"batch 1": N_TOKENS / statistics.median(seconds)}
    for n in (128, 512):
        prefill(n)
        figures[f"prefill {n}"] = n / statistics.median(timed(prefill, n) for _ in range(3))
    print(json.dumps(figures), flush=True)  # CTranslate2 ends the process before Python does


def timed(call: Callable[[int], None], n: int) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    call(n)
    return time.perf_counter() - began
