"""Tasks on a Ray cluster, which Daft carries there and does nothing else."""

import json
import os
import pickle
from collections.abc import Callable, Generator, Sequence
from functools import cache
from typing import Any

from bluejay.pile.pipeline.answer import WorkerDied, answer, use_one_thread, value_of

DAFT_SETTINGS = {"DAFT_ANALYTICS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""Without these, importing Daft and starting Ray report to their makers; and Daft shows a progress bar beside ours."""


def run_on_ray(function: Callable[[Any], Any], tasks: Sequence[Any], workers: int) -> Generator[tuple[int, Any]]:
    """Run each task once; yields its number and its result, or the OSError or WorkerDied that ended it.

    The tasks are a Daft frame with one row for each, which goes only to the worker that runs it. Ray itself starts a
    worker that died again.
    """
    daft = start_daft()
    columns = {"number": list(range(len(tasks))), "task": [pickle.dumps(task) for task in tasks]}
    rows = daft.from_pydict(columns).into_batches(1)
    worker = daft.cls(RayWorker, use_process=True, max_concurrency=min(workers, len(tasks)))
    found = worker(function).answer(daft.col("number"), daft.col("task"))
    answers, left = rows.select(found.alias("answer")).iter_rows(), set(range(len(tasks)))
    while left:
        try:
            number, outcome = json.loads(next(answers)["answer"])
        except Exception as error:  # what a task raises is an answer, so this is the worker's end or Daft's fault
            for number in sorted(left):
                yield number, WorkerDied(f" ({str(error)[:200]})")
            return
        left.remove(number)
        yield number, value_of(outcome)


class RayWorker:
    """Runs tasks in a process of a cluster, one at a time."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        use_one_thread()
        self.function = function

    def answer(self, number: int, task: bytes) -> str:
        """A task's number and its answer, as JSON."""
        return json.dumps([number, answer(self.function, pickle.loads(task))])


@cache
def start_daft() -> Any:
    """Import Daft and set its runner, which stays the same for the life of the process."""
    os.environ.update(DAFT_SETTINGS)
    import daft

    daft.set_runner_ray(address=os.environ.get("RAY_ADDRESS"), noop_if_initialized=True)
    return daft
