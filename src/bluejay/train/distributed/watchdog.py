"""Ends a run that stands still, and says which process holds it up.

A thread in every process watches the time since the last sign of life of training. Each also tells the others, through
a connection of its own to torchrun's store, where its main thread is. A process that says nothing any more, or that is
not waiting for the others while they wait for it, is the stuck one.
"""

import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from bluejay.progress import say

STUCK = 128 + signal.SIGABRT
"""Exit code, as of a process that aborts: torchrun starts all processes again, schedulers call it retryable."""


@dataclass(frozen=True)
class Sign:
    """What a process last said of itself."""

    process: str
    """Its rank, host and process id."""
    beat: int
    """Counts how often it said something."""
    doing: str
    """What it began last, such as "the batch of step 7"."""
    place: str
    """Where its main thread is in the code."""
    waiting: bool
    """Whether that is in a call that waits for other processes."""


class Watchdog:
    """Call `doing` often; without a call for `minutes` the process ends with code STUCK."""

    def __init__(self, minutes: float, rank: int = 0, size: int = 1) -> None:
        self.limit, self.rank, self.size = 60 * minutes, rank, size
        self.rest = min(5.0, self.limit / 10)
        self.process = f"process {rank} on {socket.gethostname()}, pid {os.getpid()}"
        self.began, self.what, self.beat = time.monotonic(), "starting", 0
        self.main, self.stopped = threading.get_ident(), threading.Event()
        self.store = own_store() if size > 1 else None

    def doing(self, what: str) -> None:
        """Training lives, and begins `what`."""
        self.began, self.what = time.monotonic(), what

    def watch(self) -> None:
        """Until stopped: tell the others, and look whether this process still moves."""
        self.tell()
        woken = time.monotonic()
        while not self.stopped.wait(self.rest):
            if time.monotonic() - woken > 10 * self.rest:
                self.began = time.monotonic()  # the whole process slept, in a debugger or by Ctrl-Z
            woken = time.monotonic()
            self.tell()
            if woken - self.began > self.limit:
                self.end()

    def sign(self) -> Sign:
        """This process's own sign."""
        place, waiting = where(self.main)
        return Sign(self.process, self.beat, self.what, place, waiting)

    def tell(self) -> None:
        """Put this process's sign where the others see it."""
        self.beat += 1
        with self.asking() as store:
            if store is not None:
                store.set(f"sign/{self.rank}", json.dumps(asdict(self.sign())))

    def signs(self) -> dict[int, Sign]:
        """The last sign of every process that gave one, by rank."""
        found = {self.rank: self.sign()}
        with self.asking() as store:
            for rank in range(self.size):
                if store is not None and store.check([f"sign/{rank}"]):
                    found[rank] = Sign(**json.loads(store.get(f"sign/{rank}")))
        return found

    @contextmanager
    def asking(self) -> Generator[dist.Store | None]:
        """The store, as long as the host that keeps it lives."""
        try:
            yield self.store
        except dist.DistError:
            self.store = None

    def end(self) -> None:
        """Say who is stuck, and leave."""
        before = self.signs()
        time.sleep(3 * self.rest)
        self.tell()
        after = self.signs()
        mine = self.sign()
        if self.size > 1 and self.store is None:
            stuck, why = [self.rank], f"{mine.process} is in {mine.doing}, at {mine.place}; torchrun's store is gone"
        else:
            stuck, why = verdict(before, after, self.size)
        say(f"error: no progress for {timedelta(seconds=round(time.monotonic() - self.began))}: {why}")
        if self.rank in stuck or not stuck:
            faulthandler.dump_traceback(sys.stderr)
        os._exit(STUCK)


def verdict(before: dict[int, Sign], after: dict[int, Sign], size: int) -> tuple[list[int], str]:
    """The ranks that hold the others up, from the signs at two times a few beats apart, and a sentence about them."""
    silent = [
        rank for rank in range(size) if rank not in after or after[rank].beat == before.get(rank, after[rank]).beat
    ]
    if size > 1 and silent:
        names = [after[rank].process if rank in after else f"process {rank}" for rank in silent]
        return silent, f"nothing is heard of {'; '.join(names)}"
    busy = [rank for rank in after if not after[rank].waiting]
    if busy:
        places = [f"{after[rank].process} is stuck in {after[rank].doing}, at {after[rank].place}" for rank in busy]
        return busy, "; ".join(places)
    return [], "every process waits for the others; the network between them may be down"


def where(thread: int) -> tuple[str, bool]:
    """The place of a thread in our code, and whether it is inside torch.distributed, waiting for other processes."""
    frame = sys._current_frames().get(thread)
    waiting = frame is not None and "torch/distributed/" in frame.f_code.co_filename
    ours = str(Path(__file__).parents[2])
    while frame is not None and frame.f_back is not None and not frame.f_code.co_filename.startswith(ours):
        frame = frame.f_back
    if frame is None:
        return "no code", waiting
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}, {frame.f_code.co_name}", waiting


def own_store() -> dist.PrefixStore:
    """A connection to torchrun's store that no one else waits on. Each start of all processes has keys of its own."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=10))
    return dist.PrefixStore(f"watchdog/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


@contextmanager
def watchdog(minutes: float, rank: int = 0, size: int = 1) -> Generator[Watchdog]:
    """A watchdog that watches while the block runs."""
    dog = Watchdog(minutes, rank, size)
    thread = threading.Thread(target=dog.watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield dog
    finally:
        dog.stopped.set()
        thread.join()
