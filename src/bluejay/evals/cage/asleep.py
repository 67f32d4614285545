"""How long a sample has slept: not how long it took, which depends on what else the machine does.

The kernel counts the time for which each thread ran and for which it was ready to run (schedstat, proc(5)). The rest it
slept. A sample is ended for sleeping long before a clock on the wall could tell it from one that waits for a processor.
"""

import time
from pathlib import Path

PROC = Path("/proc")


class Sleep:
    """The time for which a process, or its last descendant in a line of only children, has slept since it was seen."""

    def __init__(self, process: int, generations: int) -> None:
        self.process, self.generations = process, generations
        self.first: tuple[float, float] | None = None

    def seconds(self) -> float:
        """Seconds asleep since the first call that found the process; 0.0 where the kernel does not tell."""
        try:
            now = time.monotonic(), active_seconds(descendant(self.process, self.generations))
        except (OSError, ValueError, IndexError):
            return 0.0
        self.first = self.first or now
        return (now[0] - self.first[0]) - (now[1] - self.first[1])


def descendant(process: int, generations: int) -> int:
    """The child of the child, and so on, of a process. Raises IndexError or OSError: there is none yet, or no more."""
    for _ in range(generations):
        process = int((PROC / f"{process}/task/{process}/children").read_text().split()[0])
    return process


def active_seconds(process: int) -> float:
    """Time for which the threads of a process ran or waited for a processor. Raises OSError: it has ended."""
    tasks = (PROC / str(process) / "task").iterdir()
    return sum(sum(map(int, (task / "schedstat").read_text().split()[:2])) for task in tasks) / 1e9
