"""Ends a run that makes no progress, and says which process is stuck.

A thread in every process watches the time since training last reported progress. Each also publishes a heartbeat with
the position of its main thread, through a connection of its own to torchrun's store. The stuck process is the one whose
heartbeats stop, or that is not waiting for the others while they wait for it.
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
"""Exit code, that of an aborted process: torchrun restarts all processes, and schedulers treat it as retryable."""


@dataclass(frozen=True)
class Heartbeat:
    """The last status that a process published."""

    process: str
    """Rank, host and process id."""
    beat: int
    """Number of heartbeats so far."""
    doing: str
    """The activity that it last began, such as "the batch of step 7"."""
    place: str
    """Position of its main thread in the code."""
    waiting: bool
    """Whether the main thread is in a call that waits for other processes."""


class Watchdog:
    """Ends the process with code STUCK if `doing` is not called for `minutes`."""

    def __init__(self, minutes: float, rank: int = 0, size: int = 1) -> None:
        self.limit, self.rank, self.size = 60 * minutes, rank, size
        self.interval = min(5.0, self.limit / 10)
        self.process = f"process {rank} on {socket.gethostname()}, pid {os.getpid()}"
        self.began, self.what, self.beat = time.monotonic(), "starting", 0
        self.seen, self.suspended, self.lock = self.began, 0.0, threading.Lock()
        self.main, self.stopped = threading.get_ident(), threading.Event()
        self.store = connect_store() if size > 1 else None

    def doing(self, what: str) -> None:
        """Report progress: training begins the activity `what`."""
        self.began, self.what = time.monotonic(), what

    def clock(self) -> float:
        """Seconds of an arbitrary clock that stands still while the process is suspended for long, by Ctrl-Z, in a
        debugger or with its container: while its threads do not run, for many of the intervals in which one does."""
        with self.lock:
            now = time.monotonic()
            if (gap := now - self.seen) > 10 * self.interval:
                self.suspended += gap - self.interval
                self.began = now
            self.seen = now
            return now - self.suspended

    def watch(self) -> None:
        """Until stopped: publish heartbeats, and end the process when progress stops."""
        self.publish()
        while not self.stopped.wait(self.interval):
            self.clock()
            self.publish()
            if time.monotonic() - self.began > self.limit:
                self.end()

    def heartbeat(self) -> Heartbeat:
        """The current heartbeat of this process."""
        place, waiting = position_of(self.main)
        return Heartbeat(self.process, self.beat, self.what, place, waiting)

    def publish(self) -> None:
        """Publish a heartbeat of this process in the store."""
        self.beat += 1
        with self.reachable_store() as store:
            if store is not None:
                store.set(f"heartbeat/{self.rank}", json.dumps(asdict(self.heartbeat())))

    def heartbeats(self) -> dict[int, Heartbeat]:
        """The last heartbeat of every process that published one, by rank."""
        found = {self.rank: self.heartbeat()}
        with self.reachable_store() as store:
            for rank in range(self.size):
                if store is not None and store.check([f"heartbeat/{rank}"]):
                    found[rank] = Heartbeat(**json.loads(store.get(f"heartbeat/{rank}")))
        return found

    @contextmanager
    def reachable_store(self) -> Generator[dist.Store | None]:
        """The store, or None once its host is lost."""
        try:
            yield self.store
        except dist.DistError:
            self.store = None

    def end(self) -> None:
        """Print which process is stuck, and exit."""
        before = self.heartbeats()
        time.sleep(3 * self.interval)
        self.publish()
        after = self.heartbeats()
        mine = self.heartbeat()
        if self.size > 1 and self.store is None:
            stuck, why = (
                [self.rank],
                f"{mine.process} is in {mine.doing}, at {mine.place}; torchrun's store is unreachable",
            )
        else:
            stuck, why = verdict(before, after, self.size)
        say(f"error: no progress for {timedelta(seconds=round(time.monotonic() - self.began))}: {why}")
        if self.rank in stuck or not stuck:
            faulthandler.dump_traceback(sys.stderr)
        os._exit(STUCK)


def verdict(before: dict[int, Heartbeat], after: dict[int, Heartbeat], size: int) -> tuple[list[int], str]:
    """The ranks that are stuck, from heartbeats at two times a few beats apart, and a sentence about them."""
    silent = [
        rank for rank in range(size) if rank not in after or after[rank].beat == before.get(rank, after[rank]).beat
    ]
    if size > 1 and silent:
        names = [after[rank].process if rank in after else f"process {rank}" for rank in silent]
        return silent, f"no heartbeat from {'; '.join(names)}"
    busy = [rank for rank in after if not after[rank].waiting]
    if busy:
        places = [f"{after[rank].process} is stuck in {after[rank].doing}, at {after[rank].place}" for rank in busy]
        return busy, "; ".join(places)
    return [], "every process is waiting for the others; the network between them may be down"


def position_of(thread: int) -> tuple[str, bool]:
    """Position of a thread in Bluejay's code, and whether it is in torch.distributed, waiting for other processes."""
    frame = sys._current_frames().get(thread)
    waiting = frame is not None and "torch/distributed/" in frame.f_code.co_filename
    ours = str(Path(__file__).parents[2])
    while frame is not None and frame.f_back is not None and not frame.f_code.co_filename.startswith(ours):
        frame = frame.f_back
    if frame is None:
        return "an unknown position", waiting
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}, {frame.f_code.co_name}", waiting


def connect_store() -> dist.PrefixStore:
    """A connection to torchrun's store that only the watchdog uses. Each restart of all processes has its own keys."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=10))
    return dist.PrefixStore(f"watchdog/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


@contextmanager
def start_watchdog(minutes: float, rank: int = 0, size: int = 1) -> Generator[Watchdog]:
    """A watchdog that runs while the block does."""
    watchdog = Watchdog(minutes, rank, size)
    thread = threading.Thread(target=watchdog.watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield watchdog
    finally:
        watchdog.stopped.set()
        thread.join()
