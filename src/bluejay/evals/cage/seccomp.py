"""The system calls that a program in the cage may make, as a filter for the kernel.

A list of what is allowed, so that calls unknown to it are refused: reading and writing files, memory, clocks, signals
to handlers of its own. No process, thread, program, socket, namespace, mount, tracing, or signal to anyone can be made,
and therefore limits of one process are limits of everything that a sample does. Nor is there a call by which the owner
of a file could change it without opening it, such as chmod, which Landlock does not guard.
Source: linux/seccomp.h and linux/bpf_common.h; the numbers are those of asm/unistd_64.h and asm-generic/unistd.h.
"""

import errno
import platform
import struct

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""By machine: the column of its numbers in `CALLS`, and its AUDIT_ARCH value."""
CALLS: dict[str, tuple[int | None, int | None]] = {
    # files
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "pwrite64": (18, 68),
    "lseek": (8, 62), "open": (2, None), "openat": (257, 56), "close": (3, 57), "close_range": (436, 436),
    "stat": (4, None), "fstat": (5, 80), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None),
    "readlinkat": (267, 78), "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "getdents64": (217, 61),
    "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "ftruncate": (77, 46),
    "fsync": (74, 82), "fdatasync": (75, 83), "umask": (95, 166), "dup": (32, 23), "dup2": (33, None),
    "dup3": (292, 24), "fcntl": (72, 25), "pipe": (22, None), "pipe2": (293, 59), "poll": (7, None), "ppoll": (271, 73),
    "select": (23, None), "pselect6": (270, 72), "ioctl": (16, 29), "fadvise64": (221, 223), "sendfile": (40, 71),
    "copy_file_range": (326, 285),
    # memory
    "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214),
    # its own signals and clocks
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "pause": (34, None), "alarm": (37, None), "setitimer": (38, 103), "getitimer": (36, 102), "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169),
    "time": (201, None), "times": (100, 153), "getrusage": (98, 165),
    # what it is, and its end
    "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getgroups": (115, 158), "getpgrp": (111, None), "getpgid": (121, 155),
    "getsid": (124, 156), "getresuid": (118, 148), "getresgid": (120, 150), "uname": (63, 160), "sysinfo": (99, 179),
    "getrlimit": (97, 163), "prlimit64": (302, 261), "sched_yield": (24, 124), "sched_getaffinity": (204, 123),
    "getcpu": (309, 168), "getrandom": (318, 278), "futex": (202, 98), "set_robust_list": (273, 99), "rseq": (334, 293),
    "membarrier": (324, 283), "exit": (60, 93), "exit_group": (231, 94), "restart_syscall": (219, 128),
}  # fmt: skip
"""The numbers on x86_64 and aarch64 of the calls that are allowed."""
REFUSED: dict[str, tuple[int | None, int | None]] = {"clone": (56, 220), "fork": (57, None), "vfork": (58, None)}
"""Calls that a program would rather see fail with "not permitted" than with "not implemented"."""
ONLY = {
    "prlimit64": (0, (0,)),  # its own limits
    "fcntl": (1, (0, 1, 2, 3, 4, 1030, 1032)),  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, ..., F_GETPIPE_SZ
    "ioctl": (1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),  # TCGETS, TIOCGWINSZ, FIONREAD, FIO(NBIO, [N]CLEX)
}
"""Calls that are allowed only where an argument, by its place, has one of these values. Other requests of fcntl have
signals sent, or keep others from opening a file; other requests of ioctl change files and terminals."""

LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
"""BPF: load a word of the call's description; jump if equal; jump if greater or equal; return."""
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
"""What a filter returns: SECCOMP_RET_ALLOW, _KILL_PROCESS, _ERRNO."""
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
"""Offsets in `struct seccomp_data`; an argument's lower half comes first on both machines."""
X32_BIT = 0x40000000
"""Numbers from here on are those of x86_64's other calling convention."""


def seccomp_filter(machine: str = platform.machine()) -> bytes | None:
    """The filter as an array of `struct sock_filter`, or None for a machine whose numbers are not known."""
    if machine not in ARCHITECTURES:
        return None
    column, audit = ARCHITECTURES[machine]
    refuse = [(RETURN, 0, 0, ERROR | errno.EPERM)]
    program = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, audit), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    program += [(AT_LEAST, 0, 1, X32_BIT), (RETURN, 0, 0, KILL)]
    for name, numbers in (CALLS | REFUSED).items():
        number = numbers[column]
        if number is None:
            continue
        answer = refuse if name in REFUSED else [(RETURN, 0, 0, ALLOW)]
        if name in ONLY:
            answer = one_of(*ONLY[name], answer, refuse)
        program += [(EQUAL, 0, len(answer), number), *answer]
    program.append((RETURN, 0, 0, ERROR | errno.ENOSYS))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


Instructions = list[tuple[int, int, int, int]]


def one_of(place: int, values: tuple[int, ...], yes: Instructions, no: Instructions) -> Instructions:
    """Instructions that continue with `yes`, which returns, if an argument has one of the values, else with `no`."""
    tests: Instructions = [(LOAD, 0, 0, ARGUMENTS + 8 * place)]
    tests += [(EQUAL, len(values) - 1 - at, 0, value) for at, value in enumerate(values[:-1])]
    return [*tests, (EQUAL, 0, len(yes), values[-1]), *yes, *no]
