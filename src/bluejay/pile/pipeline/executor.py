"""Where tasks run: in this process, in worker processes, or on a cluster. Their output is the same everywhere: a task
is a pure function from files to files, so any number of workers writes the same bytes.
"""

import errno
import importlib.util
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from bluejay.extras import install
from bluejay.machine import n_processors
from bluejay.pile.pipeline.answer import ATTEMPTS, WorkerDied
from bluejay.pile.pipeline.ray import run_on_ray
from bluejay.pile.pipeline.worker_processes import WorkerProcesses
from bluejay.progress import say

PAUSE_SECONDS = 1.0
"""Between the attempts."""
PERMANENT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR}
"""Errors that a further attempt does not mend."""
MOST_REASONS = 3
"""Of why tasks failed, so many reasons are said."""


@dataclass(frozen=True)
class Executor:
    """How many tasks run at once, and where."""

    kind: Literal["local", "ray"] = "local"
    """This machine; or the Ray cluster at RAY_ADDRESS, and one started on this machine where that is not set."""
    workers: int = 1
    """Number of processes. With one local worker, tasks run in this process."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"there must be at least 1 worker, not {self.workers}")
        if self.kind == "ray" and not (importlib.util.find_spec("ray") and importlib.util.find_spec("daft")):
            raise ValueError(f"the executor ray needs ray and daft: {install('corpus', 'cluster')}")

    @property
    def in_process(self) -> bool:
        """Whether tasks run in this process."""
        return self.kind == "local" and self.workers == 1

    @cached_property
    def processes(self) -> WorkerProcesses:
        """The worker processes of this machine."""
        return WorkerProcesses(self.workers)

    def run(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Generator[tuple[int, Any]]:
        """Yield the number of each task and what the function returned for it (JSON types), in order of completion.

        A task that fails with an OSError, and one that was running when a worker died, is run again after the others,
        ATTEMPTS times in all; a disk that is full or a file that is not there fails at once.

        Raises the ValueError or OSError that the function raised, and WorkerDied.
        """
        left, failures = dict(enumerate(tasks)), Counter[int]()
        suspects: set[int] = set()
        """Tasks whose worker died. It took those beside it along, so they run alone later, and no other is blamed."""
        # Of several tasks, the last one stays in a worker: it may be one that ends its process.
        attempt = run_here if self.in_process or len(tasks) == 1 else self.attempt
        while left:
            reasons, lost = list[str](), None
            groups = [[number for number in left if number not in suspects], *([n] for n in left if n in suspects)]
            for numbers in filter(None, groups):
                with closing(attempt(function, [left[number] for number in numbers])) as outcomes:
                    for place, outcome in outcomes:
                        number = numbers[place]
                        if isinstance(outcome, (OSError, WorkerDied)):
                            failures[number] += 1
                            suspects |= {number} if isinstance(outcome, WorkerDied) else set()
                            if getattr(outcome, "errno", None) in PERMANENT:
                                raise outcome
                            lost = outcome if failures[number] == ATTEMPTS else lost
                            reasons.append(str(outcome))
                        else:
                            del left[number]
                            yield number, outcome
            if lost is not None:
                raise lost
            if reasons:
                why = list(dict.fromkeys(reasons))[:MOST_REASONS]
                say(f"{len(left):,} of {len(tasks):,} tasks are run again: {'; '.join(why)}")
                time.sleep(PAUSE_SECONDS)

    def attempt(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Generator[tuple[int, Any]]:
        """Run each task once in a worker; gives its number and result, or the OSError or WorkerDied that ended it."""
        if self.kind == "ray":
            return run_on_ray(function, tasks, self.workers)
        return self.processes.run(function, tasks)


def run_here(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Generator[tuple[int, Any]]:
    """Run tasks in this process, one after another."""
    for number, task in enumerate(tasks):
        try:
            outcome = function(task)
        except OSError as error:
            outcome = error
        yield number, outcome


def choose_executor(kind: Literal["local", "ray"], workers: int | None) -> Executor:
    """The executor of a kind with `workers` processes; by default one per core."""
    return Executor(kind, n_processors() if workers is None else workers)
