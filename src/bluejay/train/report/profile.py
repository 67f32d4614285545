"""Where the time of a step goes, operation by operation: PyTorch's own profiler over a few steps."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from bluejay.files import atomic_file, write_text
from bluejay.progress import say

STEPS = {"wait": 2, "warmup": 1, "active": 3}
"""The first steps are slower than the others, so they are not looked at."""


@contextmanager
def profiler(directory: Path, wanted: bool) -> Generator[profile | None]:
    """Call `.step()` on it after each step; after six, `trace.json` (for chrome://tracing or Perfetto) and `table.txt`
    are in the directory. None where it is not wanted."""
    if not wanted:
        yield None
        return

    def write(traced: profile) -> None:
        with atomic_file(directory / "trace.json") as temporary:
            traced.export_chrome_trace(str(temporary))
        write_text(directory / "table.txt", traced.key_averages().table(sort_by="self_cpu_time_total", row_limit=40))
        say(f"profile of {STEPS['active']} steps in {directory}")

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    with profile(activities=activities, schedule=schedule(**STEPS, repeat=1), on_trace_ready=write) as traced:
        yield traced
