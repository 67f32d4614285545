"""What a task gives in another process: its result, or the exception that it raised."""

import os
import traceback
from collections.abc import Callable
from typing import Any

import pyarrow as pa

ATTEMPTS = 3
"""How often a task is run that fails with an OSError or whose worker dies, before the build ends."""
WORKER_SETTINGS = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""One thread per worker process, because there is a worker for every core."""


class WorkerDied(ValueError):
    """A worker process ended without an answer."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(f"a worker process ended before its task{reason}; if memory ran out, use fewer workers")


def use_one_thread() -> None:
    """Let libraries use one thread in this process."""
    os.environ.update(WORKER_SETTINGS)
    pa.set_cpu_count(1)


def answer(function: Callable[[Any], Any], task: Any) -> dict[str, Any]:
    """What a task returned or raised, as JSON types: not every exception survives the way between two processes."""
    try:
        return {"value": function(task)}
    except OSError as error:
        return {"os_error": [error.errno, error.strerror or str(error), error.filename and str(error.filename)]}
    except ValueError as error:
        return {"value_error": str(error)}
    except Exception:  # a fault of the code, not of the data: its traceback is raised again where the build runs
        return {"fault": traceback.format_exc()}


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
