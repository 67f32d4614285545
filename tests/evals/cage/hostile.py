"""Programs that try to get out of the cage, or to harm what else runs.

Before each stand FOLDER, PID, PORT and SOCKET: a folder, a process and listening sockets of the user who grades. What a
program prints of the text in FOLDER or in the environment of PID has leaked.
"""
# ruff: noqa: E501 - some programs are one long line

ENDLESS = {
    "fork bomb that carries on",
    "patching the clock",
    "ignoring signals and limits",
    "values that take forever to compare",
    "sleeping",
    "closing everything and going on",
    "overflowing the stack",
}
"""Those that only a limit of time ends, which takes a second of it."""

HOSTILE = {
    "fork bomb": """
import os
while True:
    os.fork()
""",
    "fork bomb that carries on": """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
    "thread bomb": """
import _thread, time
threading_failed = 0
while True:
    _thread.start_new_thread(time.sleep, (1000,))
""",
    "processes by a library": """
import concurrent.futures, multiprocessing
with concurrent.futures.ProcessPoolExecutor(50) as pool:
    list(pool.map(abs, range(1000)))
""",
    "output flood": """
while True:
    print("x" * 10_000)
""",
    "flood of every descriptor": """
import os
while True:
    for number in range(64):
        try:
            os.write(number, b"x" * 65536)
        except OSError:
            pass
""",
    "memory hog": """
held = []
while True:
    held.append(bytearray(64 << 20))
""",
    "memory by many children": """
import os, time
for child in range(30):
    if os.fork() == 0:
        held = bytearray(200 << 20)
        time.sleep(60)
""",
    "memory by files": """
import itertools, os
for number in itertools.count():
    for folder in ("/tmp", "/dev/shm", "/", "/run", FOLDER):
        try:
            with open(f"{folder}/{number}", "wb") as file:
                while True:
                    file.write(bytes(1 << 20))
        except OSError:
            pass
    if number > 100:
        raise SystemExit
""",
    "memory without an address": """
import os
held = [os.memfd_create(str(number)) for number in range(50)]
for file in held:
    os.truncate(file, 1 << 30)
    os.posix_fallocate(file, 0, 1 << 30)
""",
    "killing the parent": """
import os, signal
os.kill(os.getppid(), signal.SIGKILL)
""",
    "killing whoever it finds": """
import os, signal
for number in (PID, 1, -1, *range(2, 5000)):
    try:
        os.kill(number, signal.SIGKILL)
    except OSError:
        pass
""",
    "signals to the group": """
import os, signal
for kill in (lambda: os.killpg(0, signal.SIGKILL), lambda: os.killpg(os.getpgid(0), signal.SIGKILL), lambda: os.kill(0, 9)):
    try:
        kill()
    except OSError:
        pass
""",
    "signal by a file's owner": """
import fcntl, os, signal
reading, writing = os.pipe()
for request, value in ((10, signal.SIGKILL), (8, PID)):
    try:
        fcntl.fcntl(reading, request, value)
    except OSError:
        pass
fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC)
os.write(writing, b"x")
""",
    "writing outside": """
import os
for path in (f"{FOLDER}/new", f"{FOLDER}/kept", "/etc/new", "/usr/lib/new", "/new", os.__file__, "/dev/sda", "/dev/mem"):
    try:
        open(path, "w").write("changed")
    except OSError:
        pass
""",
    "deleting": """
import os, shutil
for folder in (FOLDER, "/", os.path.dirname(os.__file__), "/home", "/var"):
    shutil.rmtree(folder, ignore_errors=True)
""",
    "symlinks": """
import os
os.chdir("/tmp")
for make in (os.symlink, os.link):
    try:
        make(FOLDER, "link")
    except OSError:
        pass
try:
    open("link/kept", "w").write("changed")
except OSError:
    pass
print(open("/tmp/link/kept").read())
""",
    "climbing out": """
import os
for path in ("../" * 20 + FOLDER, "/proc/1/root" + FOLDER, "/proc/self/cwd/.." + FOLDER, f"/proc/{PID}/root{FOLDER}", FOLDER):
    try:
        print(open(path + "/kept").read())
    except OSError:
        pass
""",
    "opening a socket": """
import socket
for family, where in ((socket.AF_INET, ("127.0.0.1", PORT)), (socket.AF_UNIX, SOCKET)):
    try:
        socket.socket(family).connect(where)
    except OSError:
        pass
socket.create_connection(("127.0.0.1", PORT))
""",
    "listening": """
import socket
socket.create_server(("0.0.0.0", 0)).accept()
""",
    "a program of its own": """
import os, subprocess, sys
for path in ("/bin/sh", "/usr/bin/env", "/busybox", sys.executable):
    try:
        os.execv(path, [path, "-c", "echo changed"])
    except OSError:
        pass
subprocess.run(["touch", FOLDER + "/new"])
""",
    "ignoring signals and limits": """
import resource, signal
for number in signal.valid_signals():
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
for limited in range(16):
    try:
        resource.setrlimit(limited, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        pass
while True:
    pass
""",
    "sleeping": """
import time
time.sleep(1_000_000)
""",
    "waiting for input": """
def double(number):
    return int(input())
""",
    "stopping itself": """
import os, signal
signal.raise_signal(signal.SIGSTOP)
os.kill(os.getpid(), signal.SIGSTOP)
""",
    "leaving a daemon": """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
def double(number):
    return 0
""",
    "closing everything and going on": """
import os
os.closerange(0, 64)
while True:
    pass
""",
    "ptrace": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for number in (PID, 1, 2):
    print(libc.ptrace(16, number, None, None), libc.ptrace(0x4206, number, None, None))
libc.ptrace(0, 0, None, None)
""",
    "the memory of others": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(4096)
class Part(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("length", ctypes.c_size_t)]
ours, theirs = Part(ctypes.addressof(buffer), 4096), Part(0x400000, 4096)
print(libc.process_vm_readv(PID, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0))
for path in (f"/proc/{PID}/mem", "/proc/self/mem", "/proc/kcore", "/dev/mem"):
    open(path, "r+b").write(b"changed")
""",
    "/proc": """
import os
for path in (f"/proc/{PID}/environ", "/proc/self/environ", "/proc/1/environ", f"/proc/{os.getppid()}/environ", "/proc/1/cmdline"):
    try:
        print(open(path).read())
    except OSError:
        pass
print(dict(os.environ))
for path in ("/proc/sys/kernel/core_pattern", "/proc/self/oom_score_adj", f"/proc/{PID}/oom_score_adj", "/proc/sysrq-trigger"):
    try:
        open(path, "w").write("0")
    except OSError:
        pass
""",
    "user namespaces": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for flags in (0x10000000, 0x10020000, 0x20000, 0x40000000, 0x20000000):
    if libc.unshare(flags) == 0:
        print("ESCAPED")
if libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0) >= 0:
    print("ESCAPED")
""",
    "mounts": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for source, target, kind, flags in ((b"none", b"/tmp", b"tmpfs", 0), (b"/", b"/tmp", None, 4096), (b"none", b"/", None, 32)):
    if libc.mount(source, target, kind, flags, None) == 0:
        print("ESCAPED")
for path in (b"/tmp", b"/"):
    if libc.umount2(path, 2) == 0 or libc.chroot(path) == 0 or libc.pivot_root(path, path) == 0:
        print("ESCAPED")
""",
    "becoming someone": """
import os
for become in (lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: os.setuid(1)):
    try:
        become()
        print("ESCAPED")
    except OSError:
        pass
""",
    "limits of others": """
import ctypes, os, resource
for change in (
    lambda: resource.prlimit(PID, resource.RLIMIT_NOFILE, (0, 0)), lambda: os.setpriority(os.PRIO_PROCESS, PID, 19),
    lambda: os.sched_setaffinity(PID, {0}), lambda: os.sched_setscheduler(PID, os.SCHED_IDLE, os.sched_param(0)),
    lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)), lambda: os.nice(-10),
    lambda: os.setpriority(os.PRIO_USER, 0, 19),
):
    try:
        change()
        print("ESCAPED")
    except OSError:
        pass
""",
    "every system call": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
harmless = {0, 3, 15, 23, 34, 35, 60, 61, 72, 127, 128, 130, 202, 219, 230, 231, 232, 270, 271, 281, 7, 13, 14, 9, 10, 11, 12, 25, 28}
for number in range(470):
    if number not in harmless:
        libc.syscall(number, 0, 0, 0, 0, 0, 0)
for number in (0x40000000 + 39, 0x40000000 + 57):
    libc.syscall(number, 0, 0, 0, 0, 0, 0)
""",
    "overflowing the stack": """
import sys
sys.setrecursionlimit(1 << 30)
def double(number):
    return double(number)
""",
    "reading what is not there": """
import ctypes
ctypes.string_at(0)
""",
    "descriptors of the parent": """
import os
for number in range(256):
    try:
        print(number, os.readlink(f"/proc/self/fd/{number}"))
    except OSError:
        pass
    if number > 2:
        try:
            print(os.pread(number, 4096, 0))
        except OSError:
            pass
""",
}
