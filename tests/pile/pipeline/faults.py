"""What goes wrong in the workers of `test_graph.py`. $FAULTS names a folder that remembers what has happened."""

import errno
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from bluejay.pile.pipeline.runner import run_chain
from bluejay.pile.pipeline.task import Task
from bluejay.pile.steps.encode import Encode
from bluejay.pile.steps.sign import Sign

ENCODE = Encode.run


def first(name: str, times: int = 1) -> bool:
    """Whether this is one of the first `times` calls with a name, in any process."""
    for number in range(times):
        try:
            (Path(os.environ["FAULTS"]) / f"{name}-{number}").mkdir()
        except FileExistsError:
            continue
        return True
    return False


def chain_with_faults(chain: Sequence[Task]) -> float:
    """A worker is killed in the first task, a task fails twice, and one waits until four others are done."""
    steps = {type(task.step) for task in chain}
    if Sign in steps and first("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if Sign in steps and first("failed", 2):
        raise OSError(errno.EIO, "Input/output error", str(chain[0].directory))
    with mock.patch.object(Encode, "run", slow):
        return run_chain(chain)


def slow(step: Encode, out: Path) -> dict[str, Any]:
    """Encode; the first time, wait until four other tasks are done, and a second longer."""
    if first("slow"):
        while sum(not path.name.endswith(".partial") for path in out.parent.iterdir()) < 4:
            time.sleep(0.05)
        time.sleep(1)
    return ENCODE(step, out)
