"""The JSON line that ends each benchmark, and the quickstart model that several of them measure."""

import datetime
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

MODEL, CORPUS = Path("runs/quickstart/model"), Path("data/quickstart")

MICROARCHITECTURES = {
    ("AuthenticAMD", 23): "AMD Zen 2",
    ("AuthenticAMD", 25): "AMD Zen 3 or 4",
    ("AuthenticAMD", 26): "AMD Zen 5",
    ("GenuineIntel", 106): "Intel Ice Lake",
    ("GenuineIntel", 143): "Intel Sapphire Rapids",
    ("GenuineIntel", 207): "Intel Emerald Rapids",
    ("GenuineIntel", 173): "Intel Granite Rapids",
}
"""The names of server processors by vendor and CPUID family (AMD) or model (Intel): virtual machines hide the rest."""


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


def processor() -> str:
    """The microarchitecture where Linux names it, else the architecture alone, and the number of usable cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()}, {cores} cores"
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    vendor = fields.get("vendor_id", "")
    number = fields.get("cpu family" if vendor == "AuthenticAMD" else "model", "0")
    name = MICROARCHITECTURES.get((vendor, int(number)), fields.get("model name", platform.machine()))
    return f"{name}, {cores} cores"


def report(benchmark: str, results: list[dict]) -> None:
    """Print the line, which `benchmarks/table.py` records."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    line = {"benchmark": benchmark, "date": datetime.date.today().isoformat(), "commit": commit}
    print(json.dumps({**line, "machine": processor(), "results": results}))
