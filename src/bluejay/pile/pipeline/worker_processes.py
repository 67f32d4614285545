"""Worker processes of this machine, which run tasks."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from typing import Any

from bluejay.pile.pipeline.answer import ATTEMPTS, WorkerDied, answer, use_one_thread, value_of

SPAWN = multiprocessing.get_context("spawn")
"""New processes: one that is forked beside threads, such as those of Arrow, may wait for a lock for ever."""


class WorkerProcesses:
    """Worker processes, started when they are first needed and kept from one step to the next.

    They end with this object, and with this process however it ends.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.pool: ProcessPoolExecutor | None = None
        self.open_end: Connection | None = None
        """What is never written to: workers end when it is closed."""

    def run(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Generator[tuple[int, Any]]:
        """Run each task once, one at a time in each worker; yields its number and its result, or the OSError or
        WorkerDied that ended it, in order of completion.

        When a worker dies, the library ends the others too. So the tasks that were running give WorkerDied, and those
        that were not go to new workers. An exception ends the workers at once.
        Raises WorkerDied: ATTEMPTS sets of workers in a row died without any answer.
        """
        waiting, fruitless = deque(enumerate(tasks)), 0
        with ExitStack() as unless_done:
            unless_done.callback(self.stop)
            while waiting:
                running: dict[Future[Any], int] = {}
                broken, answers, pool = False, 0, self.start()
                while running or (waiting and not broken):
                    while waiting and len(running) < self.workers and not broken:
                        try:
                            running[pool.submit(answer, function, waiting[0][1])] = waiting[0][0]
                            waiting.popleft()
                        except BrokenProcessPool:
                            broken = True
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        number = running.pop(future)
                        died = isinstance(future.exception(), BrokenProcessPool)
                        broken, answers = broken or died, answers + (not died)
                        yield number, WorkerDied() if died else value_of(future.result())
                if broken:
                    self.stop()
                fruitless = fruitless + 1 if broken and not answers else 0
                if fruitless == ATTEMPTS:
                    raise WorkerDied
            unless_done.pop_all()

    def start(self) -> ProcessPoolExecutor:
        """The workers, which run already or start as tasks come."""
        if self.pool is None:
            closed, self.open_end = SPAWN.Pipe(duplex=False)
            self.pool = ProcessPoolExecutor(self.workers, SPAWN, start_worker, (closed,))
        return self.pool

    def stop(self) -> None:
        """End the workers, whatever they do."""
        if self.pool and self.open_end:
            self.open_end.close()
            self.pool.shutdown(cancel_futures=True)
        self.pool = self.open_end = None


def start_worker(closed: Connection) -> None:
    """Prepare a worker process. It ends when the other end of `closed` is closed, by us or by the system.

    An interrupt from the keyboard goes to all processes; only the build answers it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    use_one_thread()
    threading.Thread(target=end_when, args=(closed,), daemon=True).start()


def end_when(closed: Connection) -> None:
    """End this process once the other end is closed. Without this, workers of a build that was killed live for ever."""
    with suppress(EOFError, OSError):
        closed.recv_bytes()
    os._exit(1)
