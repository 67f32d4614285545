"""This machine: the name, number and speed of its processors, and the size and bandwidth of its memory."""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

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


def n_processors() -> int:
    """The number of processors that this process may use, by its affinity and by the quota of its control group."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(bound, int(quota) // int(period)))
    except (OSError, ValueError):  # there is no such file, or no quota ("max")
        return bound


def processor() -> str:
    """The microarchitecture where Linux names it, else the architecture alone, and the number of usable cores."""
    cores = n_processors()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()}, {cores} cores"
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    vendor = fields.get("vendor_id", "")
    number = fields.get("cpu family" if vendor == "AuthenticAMD" else "model", "0")
    name = MICROARCHITECTURES.get((vendor, int(number)), fields.get("model name", platform.machine()))
    return f"{name}, {cores} cores"


def free_memory() -> int:
    """Bytes of memory available without swapping; 2**62 if the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 1 << 62


@functools.cache
def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a transformer's matrix products, measured once: 1,024 tokens by a square matrix, the best of two."""
    import torch

    tokens, rate = 1024, 0.0
    for width in (768, 1536) if device.type == "cpu" else (4096, 8192):
        x, matrix = torch.randn(tokens, width, device=device), torch.randn(width, width, device=device)
        x, matrix = x.to(dtype), matrix.to(dtype)
        rate = max(rate, 2 * tokens * width**2 / fastest(lambda x=x, matrix=matrix: x @ matrix, device))
    return rate


def memory_bandwidth(device: torch.device) -> float:
    """Bytes read and written per second by an addition to a large vector in place."""
    import torch

    x = torch.zeros(1 << 25, device=device)
    return 8 * len(x) / fastest(lambda: x.add_(1.0), device)


def fastest(call: Callable[[], object], device: torch.device, seconds: float = 0.1) -> float:
    """The shortest duration of a call in seconds, among repetitions during `seconds`."""
    synchronize = None
    if device.type == "cuda":
        from torch.cuda import synchronize
    call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        call()
        if synchronize:
            synchronize()
        best = min(best, time.perf_counter() - began)
    return best


def physical_memory() -> int:
    """Bytes of main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
