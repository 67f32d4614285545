"""Where tasks run: in this process, in worker processes, or on a cluster. What they give is the same everywhere.

Daft carries the tasks, natively by default and on Ray by one word. Nothing else is asked of it: a task is a pure
function from files to files, so no operator of the engine ever holds data, and one and many workers write equal bytes.
"""

import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import pyarrow as pa

from bluejay.machine import n_processors
from bluejay.progress import say

DAFT_SETTINGS = {"DAFT_ANALYTICS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""Importing Daft or starting Ray would else report to their makers; the bars are ours."""
WORKER_SETTINGS = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Of a process that shares the machine with others like it."""


@dataclass(frozen=True)
class Engine:
    """How many tasks run at once, and where."""

    kind: Literal["native", "ray"] = "native"
    """This machine, or the Ray cluster that RAY_ADDRESS names (without it, one that is started here)."""
    workers: int = 1
    """Processes. One native worker is this process itself, without Daft."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"{self.workers} workers cannot work; give at least 1")
        if not self.alone and importlib.util.find_spec("daft") is None:
            raise ValueError("more than one worker needs daft: pip install 'bluejay[corpus]'")
        if self.kind == "ray" and importlib.util.find_spec("ray") is None:
            raise ValueError("the engine ray needs ray: pip install 'bluejay[corpus,cluster]'")

    @property
    def alone(self) -> bool:
        """Whether tasks run in this process."""
        return self.kind == "native" and self.workers == 1

    def run(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """The number of each task and what the function gave (JSON's types), in the order in which they finish.

        Raises ValueError and OSError as the function did.
        """
        if self.alone or len(tasks) <= 1:
            for number, task in enumerate(tasks):
                yield number, function(task)
            return
        for row in self.frame(function, tasks).iter_rows():
            number, outcome = json.loads(row["answer"])
            yield number, value_of(outcome)

    def frame(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Any:
        """A Daft frame of one row per task, which the workers fill as it is read."""
        daft = start_daft(self.kind)
        numbers = daft.from_pydict({"number": list(range(len(tasks)))}).into_batches(1)
        worker = daft.cls(Worker, use_process=True, max_concurrency=min(self.workers, len(tasks)))
        return numbers.select(worker(function, list(tasks)).answer(daft.col("number")).alias("answer"))


class Worker:
    """What runs in a worker process: one task at a time, by its number."""

    def __init__(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> None:
        os.environ.update(WORKER_SETTINGS)
        pa.set_cpu_count(1)
        self.function, self.tasks = function, tasks

    def answer(self, number: int) -> str:
        """A task's number and what came of it, as JSON: Daft would turn any exception into one of its own."""
        try:
            outcome = {"value": self.function(self.tasks[number])}
        except OSError as error:
            outcome = {"system": [error.errno, error.strerror or str(error), error.filename and str(error.filename)]}
        except ValueError as error:
            outcome = {"mistake": str(error)}
        return json.dumps([number, outcome])


@cache
def start_daft(kind: str) -> Any:
    """The module, with its runner; a process has one for its life."""
    os.environ.update(DAFT_SETTINGS)
    import daft

    if kind == "ray":
        daft.set_runner_ray(address=os.environ.get("RAY_ADDRESS"), noop_if_initialized=True)
    else:
        daft.set_runner_native()
    return daft


def value_of(outcome: dict[str, Any]) -> Any:
    """What a task gave; raises what it raised."""
    match outcome:
        case {"system": system}:
            raise OSError(*system)
        case {"mistake": mistake}:
            raise ValueError(mistake)
    return outcome["value"]


def chosen(kind: str, workers: int | None) -> Engine:
    """The engine that a command asked for; as many workers as there are cores where it did not say."""
    if kind not in ("native", "ray"):
        raise ValueError(f"no engine {kind}; the engines are native and ray")
    if workers is None:
        workers = n_processors()
        if kind == "native" and workers > 1 and importlib.util.find_spec("daft") is None:
            say("one process does the work; pip install 'bluejay[corpus]' lets every core share it")
            workers = 1
    return Engine("ray" if kind == "ray" else "native", workers)
