"""Starts a sample in the cage and ends it when its limits are reached."""

import contextlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import which
from typing import IO, Any

from bluejay.evals.cage.asleep import Sleep
from bluejay.evals.cage.plain import decode, load
from bluejay.evals.cage.readable import for_every_user, hidden, interpreter, roots, without_hidden
from bluejay.evals.cage.seccomp import seccomp_filter

LEVELS = ("bubblewrap", "landlock", "none")
"""From the strongest: namespaces and seccomp; Landlock and seccomp; limits alone."""
INSIDE = (Path(__file__).parent / "inside.py").read_text(encoding="utf-8")
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "PATH": "/nonexistent"}
"""All that a sample sees of the environment. The seed gives sets the same order each time."""
USERS = (1 << 30, 1 << 22)
"""The first of the users that samples get where the caller is root, and how many; there are as many as processes."""
UID_MAP = Path("/proc/self/uid_map")
TMPFS_BYTES = 16 << 20
ATTEMPTS = 3
"""How often a cage is built before it counts as impossible: on a starved machine one may not stand in time."""
POLL_SECONDS = 0.5
"""Seconds between two checks of whether a sample sleeps, or is to be ended."""
INTERRUPTED = threading.Event()
"""Set while `sample_threads` ends the samples that run; none starts then."""


@dataclass(frozen=True)
class Limits:
    """What a sample may use. It is one process of one thread, so these are limits of all that it does."""

    cpu_seconds: int = 10
    """Processor time, of which the interpreter's start takes some 0.05 s: twice what MBPP's slowest reference takes on
    a busy machine, whose full caches and shared cores lengthen it."""
    sleep_seconds: float = 10.0
    """Time in which it neither runs nor waits for a processor. It does not depend on what else runs, either."""
    wall_seconds: float = 600.0
    """Time by the clock, behind the other two; generous, because on a busy machine an honest sample waits."""
    memory_bytes: int = 1 << 30
    """Address space."""
    file_bytes: int = 16 << 20
    """Size of a file that it writes to its temporary folder, and of all of them together."""
    open_files: int = 64
    """Files open at once."""
    output_bytes: int = 1 << 20
    """What it may print, and likewise what it may return, before it is ended."""

    def of_the_system(self) -> list[tuple[int, tuple[int, int]]]:
        """The limits as arguments of setrlimit."""
        both = {
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_CORE": 0,
            "RLIMIT_NPROC": 1,
            "RLIMIT_MEMLOCK": 0,
            "RLIMIT_MSGQUEUE": 0,
        }
        found = {name: (value, value) for name, value in both.items()}
        # At the first the system sends SIGXCPU, at the second, if that was ignored, SIGKILL.
        found["RLIMIT_CPU"] = (self.cpu_seconds, self.cpu_seconds + 1)
        return [(getattr(resource, name), value) for name, value in found.items() if hasattr(resource, name)]


USUAL = Limits()


@dataclass(frozen=True)
class Outcome:
    """What a sample did, as far as it can be seen from outside: claims of a program that may lie about everything."""

    ended: str | None
    """Why it did not come to the end of all calls, or None."""
    results: tuple[Any, ...]
    """For each call that ended: its value, as a plain value, or a `Raised`."""
    output: str
    """What it printed."""
    level: str
    """The cage it ran in, one of `LEVELS`."""


@dataclass(frozen=True)
class Raised:
    """An exception in place of a value."""

    error: str
    """Type and message."""


class CageError(OSError):
    """The cage itself could not be built, which says nothing about the sample."""


def run(program: str, calls: list[str] | tuple[str, ...] = (), limits: Limits = USUAL, cage: str = "") -> Outcome:
    """Run a program in a fresh interpreter in a cage, then each call in the program's names.

    A call is Python source whose last expression is its value; plain values come back, others as `NotPlain`. `cage` is
    one of `LEVELS`, by default the strongest that this machine has.

    Raises CageError: it could not be built; ValueError: there is none, or no such level.
    """
    cage = choose(cage)
    request: dict[str, Any] = {
        "program": program,
        "calls": list(calls),
        "limits": limits.of_the_system(),
        "most": limits.output_bytes,
    }
    filtered = seccomp_filter() if cage != "none" else None
    apart = os.geteuid() == 0 and (cage == "bubblewrap" or (cage == "landlock" and for_every_user()))
    request["filter"] = filtered and filtered.hex()
    request["user"] = own_user(UID_MAP.read_text(), threading.get_native_id()) if apart else None
    request["readable"] = [str(path) for path in without_hidden()] if cage == "landlock" else None
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(CageError):  # no line of the sample was run
            return once(request, limits, cage)
    return once(request, limits, cage)


@contextlib.contextmanager
def sample_threads(workers: int) -> Generator[ThreadPoolExecutor]:
    """Threads in which samples run. What they have not begun when the block ends is left out, and what they run then is
    waited for; but Ctrl-C ends the samples that run."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main:
        INTERRUPTED.clear()  # a second Ctrl-C may have left it
    executor = ThreadPoolExecutor(workers, "samples")
    try:
        yield executor
    except KeyboardInterrupt:
        INTERRUPTED.set()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        if is_main:
            INTERRUPTED.clear()


def once(request: dict[str, Any], limits: Limits, cage: str) -> Outcome:
    """Start an interpreter in a cage, give it the request, and read what it answers. Raises CageError, or
    KeyboardInterrupt where `sample_threads` ends it."""
    if INTERRUPTED.is_set():
        raise KeyboardInterrupt
    with tempfile.TemporaryFile() as stdin:
        stdin.write(json.dumps(request).encode())
        stdin.seek(0)
        command = [*(bubblewrap() if cage == "bubblewrap" else ()), str(interpreter()), "-P", "-S", "-B", "-s"]
        process = subprocess.Popen(
            [*command, "-c", INSIDE],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    try:
        replies, output, stopped = collect(process, limits, Sleep(process.pid, 2 if cage == "bubblewrap" else 0))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    if INTERRUPTED.is_set():
        raise KeyboardInterrupt
    return judge(replies, output, stopped or ending(code, cage, limits), len(request["calls"]), cage)


def own_user(uid_map: str, thread: int) -> int | None:
    """A user that no other sample has that runs at the same time, since each is waited for by a thread of its own.

    `uid_map` is that of this process (user_namespaces(7)): in a container there may be few users, or, which gives None,
    no other.
    """
    first, _, length = map(int, uid_map.split()[-3:])
    start = min(USERS[0], first + length // 2)
    return start + thread % min(USERS[1], first + length - start) or None


def bubblewrap() -> list[str]:
    """The command line up to the interpreter: namespaces of its own, and a file system of what it needs to start."""
    command = [which("bwrap") or "bwrap", "--die-with-parent", "--cap-drop", "ALL"]
    command += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if os.geteuid() == 0:  # the interpreter gives itself a user of its own, and then has no capability left
        command += [word for name in ("SETUID", "SETGID", "SETPCAP") for word in ("--cap-add", f"CAP_{name}")]
    else:
        command += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    for parent in sorted({str(parent) for path in roots() for parent in path.parents} - {"/"}):
        command += ["--perms", "0755", "--dir", parent]  # where root's home is above it, others could not pass
    for path in map(str, roots()):
        command += ["--ro-bind", path, path]
    for path in map(str, hidden()):
        command += ["--perms", "0555", "--size", "4096", "--tmpfs", path, "--remount-ro", path]
    command += ["--perms", "1777", "--size", str(TMPFS_BYTES), "--tmpfs", "/tmp", "--remount-ro", "/"]
    return [*command, "--chdir", "/tmp", "--"]


def collect(process: "subprocess.Popen[bytes]", limits: Limits, sleep: Sleep) -> tuple[bytes, bytes, str | None]:
    """What a process writes to standard output and error until it ends, and why it has to be stopped, if so."""
    assert process.stdout and process.stderr
    until = time.monotonic() + limits.wall_seconds
    written: dict[IO[bytes], bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
    stopped: str | None = None

    def overdue() -> str | None:
        """Why the process may not go on, if its time is over."""
        if INTERRUPTED.is_set():
            return "was interrupted"
        if time.monotonic() > until:
            return f"took more than {limits.wall_seconds:g} s by the clock"
        return f"slept for more than {limits.sleep_seconds:g} s" if sleep.seconds() > limits.sleep_seconds else None

    with process.stdout, process.stderr, selectors.DefaultSelector() as ready:
        for stream in written:
            ready.register(stream, selectors.EVENT_READ)
        while ready.get_map() and not stopped:
            for key, _ in ready.select(POLL_SECONDS):
                stream: Any = key.fileobj
                if part := os.read(key.fd, 1 << 16):
                    written[stream] += part
                else:
                    ready.unregister(stream)
                if len(written[stream]) > limits.output_bytes * 2:
                    stopped = f"wrote more than {limits.output_bytes:,} bytes"
            stopped = overdue() or stopped
    while not stopped:  # it has ended, or closed its output and goes on
        try:
            process.wait(POLL_SECONDS)
            break
        except subprocess.TimeoutExpired:
            stopped = overdue()
    return bytes(written[process.stdout]), bytes(written[process.stderr]), stopped


def ending(code: int, cage: str, limits: Limits) -> str:
    """How a process ended, in words. bubblewrap passes a signal on as 128 and its number."""
    number = -code if code < 0 else code - 128 if cage == "bubblewrap" and code > 128 else 0
    if number in (signal.SIGXCPU, signal.SIGKILL):
        return f"took more than {limits.cpu_seconds} s of processor time"
    try:
        return f"crashed with {signal.Signals(number).name}"
    except ValueError:
        return "ended before its tests did"


def judge(replies: bytes, output: bytes, ending: str, calls: int, cage: str) -> Outcome:
    """Read the replies: that the cage stands, how the program started, and one for each call."""
    text = output.decode("utf-8", "replace")
    ready, *lines = replies.split(b"\n")
    if ready != b'{"value": "ready"}':
        raise CageError(f"the cage could not be built ({cage}): {text.strip()[-500:] or ending}")
    read: list[Any] = []
    for line in lines[:-1]:  # behind the last line's end is nothing, or a line that was cut
        try:
            match load(line):
                case {"value": wire}:
                    read.append(decode(wire))
                case {"raised": str() as error}:
                    read.append(Raised(error))
                case _:
                    raise ValueError("neither a value nor an exception")
        except (ValueError, TypeError, RecursionError):
            return Outcome("sent what is not a plain value", tuple(read[1:]), text, cage)
    if read and isinstance(read[0], Raised):
        return Outcome(f"raised {read[0].error}", (), text, cage)
    results = tuple(read[1 : calls + 1])
    return Outcome(None if read and len(results) == calls else ending, results, text, cage)


@cache
def failures() -> dict[str, str]:
    """Why each level that this machine does not have is not there: each was tried."""
    found: dict[str, str] = {}
    for cage in LEVELS[:-1]:
        if sys.platform != "linux":
            found[cage] = "it is a part of Linux"
        elif seccomp_filter() is None:
            found[cage] = f"the system calls of {os.uname().machine} are not known"
        elif cage == "bubblewrap" and not which("bwrap"):
            found[cage] = "bwrap is not installed"
        else:
            try:
                run("", ["1 + 1"], cage=cage)
            except OSError as error:
                found[cage] = str(error).removeprefix(f"the cage could not be built ({cage}): ")
    return found


def level() -> str:
    """The strongest cage that this machine has: one of `LEVELS`."""
    return next(cage for cage in LEVELS if cage not in failures())


def choose(cage: str) -> str:
    """The level to use: the one that was asked for, or else the strongest.

    Raises ValueError: there is no cage on this machine and none was not asked for, or no level of that name.
    """
    if cage in LEVELS:
        return cage
    if cage:
        raise ValueError(f"no cage is called {cage!r}; there are {', '.join(LEVELS)}")
    if (found := level()) == "none":
        why = "; ".join(f"{name}: {reason}" for name, reason in failures().items())
        raise ValueError(f"no cage can hold generated code here ({why}); install bubblewrap, or write --cage none")
    return found
