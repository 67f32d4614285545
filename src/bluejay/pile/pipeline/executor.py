"""Where tasks run: in this process, in worker processes, or on a cluster. Their output is the same everywhere.

Daft distributes the tasks: over processes of this machine by default, over a Ray cluster on request. It does nothing
else. A task is a pure function from files to files, so no operator of Daft ever holds data, and any number of workers
writes the same bytes.
"""

import errno
import importlib.util
import json
import os
import pickle
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import pyarrow as pa

from bluejay.extras import install
from bluejay.machine import n_processors
from bluejay.progress import say

DAFT_SETTINGS = {"DAFT_ANALYTICS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""Without these, importing Daft and starting Ray report to their makers; and Daft shows a progress bar beside ours."""
WORKER_SETTINGS = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""One thread per worker process, because there is a worker for every core."""

ATTEMPTS = 3
"""How often a task is run that fails with an OSError, before the build ends."""
PAUSE_SECONDS = 1.0
"""Between the attempts."""
PERMANENT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR}
"""Errors that a further attempt does not mend."""


@dataclass(frozen=True)
class Executor:
    """How many tasks run at once, and where."""

    kind: Literal["local", "ray"] = "local"
    """This machine; or the Ray cluster at RAY_ADDRESS, and one started on this machine where that is not set."""
    workers: int = 1
    """Number of processes. With one local worker, tasks run in this process, without Daft."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"there must be at least 1 worker, not {self.workers}")
        if not self.in_process and importlib.util.find_spec("daft") is None:
            raise ValueError(f"more than one worker needs daft: {install('corpus')}")
        if self.kind == "ray" and importlib.util.find_spec("ray") is None:
            raise ValueError(f"the executor ray needs ray: {install('corpus', 'cluster')}")

    @property
    def in_process(self) -> bool:
        """Whether tasks run in this process."""
        return self.kind == "local" and self.workers == 1

    def run(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield the number of each task and what the function returned for it (JSON types), in order of completion.

        A task that fails with an OSError, and all that a worker that died had not finished, are run again after the
        others, ATTEMPTS times in all; a disk that is full or a file that is not there fails at once.

        Raises the ValueError or OSError that the function raised, and ValueError: workers died again and again.
        """
        left, failures, deaths = dict(enumerate(tasks)), Counter[int](), 0
        while left:
            numbers, failure, before = list(left), None, len(left)
            try:
                for place, outcome in self.attempt(function, list(left.values())):
                    number = numbers[place]
                    if isinstance(outcome, OSError):
                        failures[number] += 1
                        if failures[number] == ATTEMPTS or outcome.errno in PERMANENT:
                            raise outcome
                        failure = outcome
                    else:
                        del left[number]
                        yield number, outcome
            except WorkerDied as died:
                deaths = deaths + 1 if len(left) == before else 0
                if deaths == ATTEMPTS:
                    raise ValueError(f"{died}; if memory ran out, use fewer workers") from died
                failure = died
            if failure:
                say(f"{len(left):,} of {len(tasks):,} tasks are run again: {failure}")
                time.sleep(PAUSE_SECONDS)

    def attempt(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Run each task once; yields its number and its result or OSError. Raises WorkerDied."""
        if self.in_process or len(tasks) <= 1:
            for number, task in enumerate(tasks):
                try:
                    outcome = function(task)
                except OSError as error:
                    outcome = error
                yield number, outcome
            return
        rows = self.frame(function, tasks).iter_rows()
        while True:
            try:
                row = next(rows, None)
            except Exception as error:  # what a task raises is an answer, so this is the worker's end or Daft's fault
                raise WorkerDied(f"a worker process ended before its task ({str(error)[:200]})") from error
            if row is None:
                return
            number, outcome = json.loads(row["answer"])
            yield number, value_of(outcome)

    def frame(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Any:
        """A Daft frame with one row per task; iterating over it makes the workers run the tasks.

        A task goes only to the worker that runs it.
        """
        daft = start_daft(self.kind)
        columns = {"number": list(range(len(tasks))), "task": [pickle.dumps(task) for task in tasks]}
        rows = daft.from_pydict(columns).into_batches(1)
        worker = daft.cls(Worker, use_process=True, max_concurrency=min(self.workers, len(tasks)))
        answer = worker(function).answer(daft.col("number"), daft.col("task"))
        return rows.select(answer.alias("answer"))


class WorkerDied(Exception):
    """A worker process ended without an answer."""


class Worker:
    """Runs tasks in a worker process, one at a time."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        os.environ.update(WORKER_SETTINGS)
        pa.set_cpu_count(1)
        self.function = function

    def answer(self, number: int, task: bytes) -> str:
        """A task's number and its result or exception, as JSON: Daft would replace the exception by one of its own."""
        try:
            outcome = {"value": self.function(pickle.loads(task))}
        except OSError as error:
            outcome = {"os_error": [error.errno, error.strerror or str(error), error.filename and str(error.filename)]}
        except ValueError as error:
            outcome = {"value_error": str(error)}
        except Exception:  # a fault of ours
            outcome = {"fault": traceback.format_exc()}
        return json.dumps([number, outcome])


@cache
def start_daft(kind: str) -> Any:
    """Import Daft and set its runner, which stays the same for the life of the process."""
    os.environ.update(DAFT_SETTINGS)
    import daft

    if kind == "ray":
        daft.set_runner_ray(address=os.environ.get("RAY_ADDRESS"), noop_if_initialized=True)
    else:
        daft.set_runner_native()
    return daft


def value_of(outcome: dict[str, Any]) -> Any:
    """The result of a task, or the OSError that it raised. Raises any other exception that it raised."""
    match outcome:
        case {"os_error": arguments}:
            return OSError(*arguments)
        case {"value_error": message}:
            raise ValueError(message)
        case {"fault": trace}:
            raise RuntimeError(trace)
    return outcome["value"]


def choose_executor(kind: Literal["local", "ray"], workers: int | None) -> Executor:
    """The executor of a kind with `workers` processes; by default one per core, or one where Daft is not installed."""
    if workers is None:
        workers = n_processors()
        if kind == "local" and workers > 1 and importlib.util.find_spec("daft") is None:
            say(f"one process does all the work; {install('corpus')} lets it use every core")
            workers = 1
    return Executor(kind, workers)
