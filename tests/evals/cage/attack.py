"""Runs hostile programs in a cage and watches what they could harm; prints what happened as one line of JSON.

Called as `python attack.py LEVEL FOLDER NAME...` with the programs' names, by the user whose cage is tried.
"""

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

from cheating import CHEATING
from hostile import HOSTILE

from bluejay.evals.cage import Limits, run
from bluejay.evals.code.asserts import Test
from bluejay.evals.code.grade import first_failure, shown
from bluejay.evals.code.problems import Problem

SECRET = "the text that must not leak"
TESTS = tuple(Test((f"double({number})",), f"_0 == {2 * number}") for number in (21, -3, 0, 1_000_001))
PROBLEM = Problem("double", "", "double", TESTS)
CALLS = [call for test in TESTS for call in test.calls]
PROGRAMS = HOSTILE | CHEATING
LIMITS = Limits(cpu_seconds=1, sleep_seconds=1)


def ancestors(process: str) -> list[str]:
    """The processes that a process descends from, the nearest first; those that are left of it where one is gone."""
    found = []
    with contextlib.suppress(OSError):
        while (process := Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]) != "0":
            found.append(process)
    return found


def processes() -> set[str]:
    """The interpreters and cages of this user and of users that only samples have, which this process started or whose
    parent is gone; not those that another test is running."""
    found, own = set(), str(os.getpid())
    adopting = set(ancestors(own))
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and (entry.stat().st_uid == os.getuid() or entry.stat().st_uid >= 1 << 30):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                above = ancestors(entry.name)
                if b"-P" in words and b"-S" in words and (own in above or adopting.issuperset(above)):  # as by `launch`
                    found.add(entry.name)
    return found


def main() -> None:
    level, folder = sys.argv[1], Path(sys.argv[2])
    kept = folder / "kept"
    kept.write_text(SECRET)
    os.environ["SECRET"] = SECRET
    witness = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    before = os.getpriority(os.PRIO_PROCESS, 0), resource.getrlimit(resource.RLIMIT_NOFILE), os.sched_getaffinity(0)
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        address = str(folder / "socket")
        unix.bind(address)
        unix.listen()
        tcp.setblocking(False)
        unix.setblocking(False)
        places = {"FOLDER": str(folder), "PID": witness.pid, "PORT": tcp.getsockname()[1], "SOCKET": address}
        header = "".join(f"{name} = {value!r}\n" for name, value in places.items())
        answered = run(header + "def double(n): return 2 * n", CALLS, LIMITS, level)
        others = processes()
        honest, report = first_failure(PROBLEM, answered), {}
        for name in sys.argv[3:]:
            outcome = run(header + PROGRAMS[name], CALLS, LIMITS, level)
            said = outcome.output + "".join(map(shown, outcome.results))
            harm = {
                "passed": first_failure(PROBLEM, outcome) is None,
                "leaked": SECRET in said or "ESCAPED" in said,
                "killed": witness.poll() is not None,
                "wrote": sorted(one.name for one in folder.iterdir()) != ["kept", "socket"]
                or kept.read_text() != SECRET,
                "connected": connected(tcp) or connected(unix),
            }
            report[name] = [outcome.level, outcome.ended or "", [what for what, done in harm.items() if done]]
        until = time.monotonic() + 20
        while (left := processes() - others) and time.monotonic() < until:
            time.sleep(0.1)
    after = os.getpriority(os.PRIO_PROCESS, 0), resource.getrlimit(resource.RLIMIT_NOFILE), os.sched_getaffinity(0)
    witness.communicate()
    print(json.dumps({"honest": honest, "report": report, "left": sorted(left), "same": before == after}))


def connected(server: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        server.accept()[0].close()
        return True
    return False


main()
