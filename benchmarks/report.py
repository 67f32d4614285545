"""The JSON line that ends each benchmark, and the quickstart model that several of them measure."""

import datetime
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bluejay.machine import processor

MODEL, CORPUS = Path("runs/quickstart/model"), Path("data/quickstart")


def interleaved(ours: Callable[[], object], peer: Callable[[], object], rounds: int = 7) -> tuple[float, float]:
    """Median seconds of two calls that take turns, after one unmeasured round of each."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for call, taken in zip((ours, peer), seconds, strict=True):
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
    return statistics.median(seconds[0][1:]), statistics.median(seconds[1][1:])


def result(metric: str, ours: float, peer: float, unit: str, goal: float, lower_is_better: bool = False) -> dict:
    """One row; the ratio is above 1 where Bluejay is better."""
    ratio = peer / ours if lower_is_better else ours / peer
    figures = {"ours": round(ours, 4), "peer": round(peer, 4), "unit": unit, "ratio": round(ratio, 3), "goal": goal}
    return {"metric": metric, **figures}


def report(benchmark: str, results: list[dict]) -> None:
    """Print the line, which `benchmarks/table.py` records."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    line = {"benchmark": benchmark, "date": datetime.date.today().isoformat(), "commit": commit}
    print(json.dumps({**line, "machine": processor(), "results": results}))
