"""The time of each operation in a step, by PyTorch's profiler."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from bluejay.files import atomic_file, write_text
from bluejay.progress import say

PROFILED_STEPS = {"wait": 2, "warmup": 1, "active": 3}
"""Schedule of the profiler. The first steps are slower than the others and not recorded."""


def check_steps_left(left: int) -> None:
    """Raise ValueError if a run with `left` steps to go ends before its profile does."""
    if left < (needed := sum(PROFILED_STEPS.values())):
        so_far = f"has {left} steps left" if left else "is finished"
        raise ValueError(f"the run {so_far}, and --profile needs {needed}; with more train.tokens it goes on")


@contextmanager
def profiler(directory: Path, wanted: bool) -> Generator[profile | None]:
    """A profiler whose `.step()` must be called after each step; None if not `wanted`.

    After six steps it writes `trace.json` (for chrome://tracing or Perfetto) and `table.txt` to the directory.
    """
    if not wanted:
        yield None
        return

    def write(traced: profile) -> None:
        with atomic_file(directory / "trace.json") as temporary:
            traced.export_chrome_trace(str(temporary))
        write_text(directory / "table.txt", traced.key_averages().table(sort_by="self_cpu_time_total", row_limit=40))
        say(f"profile of {PROFILED_STEPS['active']} steps in {directory}")

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    with profile(activities=activities, schedule=schedule(**PROFILED_STEPS, repeat=1), on_trace_ready=write) as traced:
        yield traced
