"""This machine: the name, number and speed of its processors, and the size and bandwidth of its memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import re
import sys
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
    """The number of processors that this process may use, by its affinity and by the quotas of its control groups."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(bound, *map(processors_in_group, control_groups())))


def processors_in_group(folder: Path) -> int:
    """The processors that a control group (cgroup v2, cpu.max) gives to its processes; 2**62 if it has no quota."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) // int(period)
    except (OSError, ValueError):  # there is no such file, or no quota ("max")
        return 1 << 62


def control_groups(system: Path = Path("/")) -> list[Path]:
    """The folders of this process's control group (cgroup v2) and of those above it: a limit of any of them holds, as
    a service manager or a scheduler of a cluster sets them."""
    root = system / "sys" / "fs" / "cgroup"
    try:
        lines = (system / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    own = next((root / line.removeprefix("0::/") for line in lines if line.startswith("0::/")), root)
    return [folder for folder in (own, *own.parents) if folder.is_relative_to(root)]


def processor() -> str:
    """The microarchitecture where Linux names it, else the architecture alone, and the number of usable cores."""
    n = n_processors()
    cores = f"{n} core{'s' if n != 1 else ''}"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()}, {cores}"
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    vendor = fields.get("vendor_id", "")
    number = fields.get("cpu family" if vendor == "AuthenticAMD" else "model", "0")
    name = MICROARCHITECTURES.get((vendor, int(number)), fields.get("model name", platform.machine()))
    return f"{name}, {cores}"


def free_memory() -> int:
    """Bytes of memory available without swapping, by the system and the control groups; 2**62 if neither tells."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        free = 1 << 62
    return min(free, *map(free_in_group, control_groups()))


def free_in_group(folder: Path) -> int:
    """Bytes that a control group (cgroup v2, memory.max) still lets its processes have, the cached files that the
    system would give up included; 2**62 if it has no limit."""
    try:
        limit, used = int((folder / "memory.max").read_text()), int((folder / "memory.current").read_text())
        figures = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # there is no such file, or no limit ("max")
        return 1 << 62
    return max(0, limit - used + int(figures.get("inactive_file", 0)))


def resident_memory() -> int:
    """Bytes of main memory that this process occupies, mapped files included; the most so far where only that is told,
    and 0 where nothing is."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def return_memory() -> None:
    """Have the C library return to the system what it keeps of freed memory; only glibc has a call for it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


DATA_SHEETS = {
    ("A100",): 312e12,
    ("B200",): 2250e12,
    ("GH200",): 989e12,
    ("H100",): 989e12,
    ("H100", "NVL"): 835e12,
    ("H100", "PCIe"): 756e12,
    ("H200",): 989e12,
    ("H200", "NVL"): 835e12,
    ("L4",): 121e12,
    ("L40S",): 362e12,
}
"""Words in the name of a card -> FLOP/s of its dense products in bfloat16, by its maker's data sheet."""


def stated_rate(name: str) -> float | None:
    """FLOP/s of a card's dense products in bfloat16 by its data sheet, found by the name that torch gives the card;
    None for a card that is not in the table."""
    fitting = [words for words in DATA_SHEETS if set(words) <= set(re.split(r"[ -]", name))]
    return DATA_SHEETS[max(fitting, key=len)] if fitting else None


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
