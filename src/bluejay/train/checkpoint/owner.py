"""One owner of a run's folder at a time: two runs in one folder would mix their checkpoints, metrics and models.

`RUN/lock` is locked by the operating system, which releases it when the process ends, however it ends. `RUN/owner.json`
names the owner, who touches it every few seconds: not every network disk passes locks on to other hosts.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from bluejay.files import parse_json, require_writable, write_text
from bluejay.progress import say

LOCK = "lock"
"""Name of the locked file in the run's folder."""
BEAT_SECONDS = 5.0
"""Interval at which an owner touches its file."""
SILENT_BEATS = 4
"""Intervals without a touch after which an owner on another host counts as ended."""
LAUNCHERS = {"SLURM_NTASKS": "srun", "OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpirun"}
"""The variable in which a launcher that starts several processes says how many they are."""


@dataclass(frozen=True)
class Owner:
    """The process that works in a run's folder."""

    host: str
    """Name of its host."""
    process: int
    """Its process id."""

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


@contextmanager
def owned(directory: Path) -> Generator[None]:
    """Own the folder of a run while the block runs. It is made if there is none, and removed if nothing is left in it.

    The folder of an owner that has ended is taken over; of one on another host, that is known after some seconds.
    Raises ValueError: another process owns the folder, which is named with its host; or there can be no such folder.
    """
    require_writable(directory, is_folder=True)
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    file, here = directory / "owner.json", Owner(socket.gethostname(), os.getpid())
    with ExitStack() as stack:
        locked = True
        try:
            stack.enter_context(FileLock(directory / LOCK, timeout=0))
            stack.callback(remove_empty, made)
        except Timeout:
            raise refusal(directory, named_owner(file)) from None
        except NotImplementedError:  # a disk without locks
            locked = False
        other = read_owner(file)
        if other is not None and (other.host != here.host or not locked):
            say(f"{directory} was owned by {other}; looking whether it still is")
            if beats(file):
                raise refusal(directory, other)
        write_text(file, json.dumps(asdict(here)) + "\n")
        stack.callback(file.unlink, missing_ok=True)
        ended = threading.Event()
        beating = threading.Thread(target=beat, args=(file, ended), name="owner", daemon=True)
        beating.start()
        stack.callback(beating.join)
        stack.callback(ended.set)
        yield


def remove_empty(made: list[Path]) -> None:
    """Remove the folders that were made for a run, innermost first, as far as they hold nothing but its lock."""
    with suppress(OSError, IndexError):
        if [path.name for path in made[0].iterdir()] == [LOCK]:
            (made[0] / LOCK).unlink()
        for path in made:
            path.rmdir()


def beat(file: Path, ended: threading.Event) -> None:
    """Touch the owner's file at intervals until the run has ended."""
    while not ended.wait(BEAT_SECONDS):
        with suppress(OSError):
            os.utime(file)


def beats(file: Path) -> bool:
    """Whether an owner touches its file."""

    def touched() -> int:
        with suppress(OSError), file.open("rb") as opened:  # opening makes a network disk look again
            return os.fstat(opened.fileno()).st_mtime_ns
        return 0

    before, end = touched(), time.monotonic() + SILENT_BEATS * BEAT_SECONDS
    while time.monotonic() < end:
        time.sleep(BEAT_SECONDS / 5)
        if touched() not in (before, 0):
            return True
    return False


def named_owner(file: Path) -> Owner | None:
    """The owner that has just locked the folder, who may still have to write its name."""
    for _ in range(20):
        if (owner := read_owner(file)) is not None:
            return owner
        time.sleep(0.1)
    return None


def read_owner(file: Path) -> Owner | None:
    """The owner that a file names; None if there is no such file."""
    try:
        values = parse_json(file.read_text(encoding="utf-8"))
        return Owner(str(values["host"]), int(values["process"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def refusal(directory: Path, owner: Owner | None) -> ValueError:
    """The error for a folder that another process owns."""
    who = "another process" if owner is None else str(owner)
    advice = launcher_advice(os.environ) or "wait for it, or give this run another directory with --output"
    return ValueError(f"{directory} is in use by {who}; {advice}")


def launcher_advice(environment: Mapping[str, str]) -> str | None:
    """What to do where a launcher has started several processes that know nothing of each other; None elsewhere."""
    for name, launcher in LAUNCHERS.items():
        count = environment.get(name, "1")
        if count.isdecimal() and int(count) > 1 and "WORLD_SIZE" not in environment:
            return (
                f"{launcher} started {count} processes, each of which is a run of its own; "
                "have it start torchrun, once on each host, which makes one run of several processes"
            )
    return None
