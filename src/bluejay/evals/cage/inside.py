"""The program that is started inside the cage, as the text of `python -c`: it gives up what it may do, and only then
reads the sample.

It uses the standard library alone, and nothing in it is secret: it holds no test and no expected value.
"""

import ctypes
import json
import os
import resource
import stat
import sys
import types

SET_PDEATHSIG, SET_DUMPABLE, SET_SECCOMP, CAPBSET_DROP, SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
"""Requests of prctl(2)."""
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
"""System calls, of the same number on every machine."""
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
READ_FILE, READ_DIR = 1 << 2, 1 << 3
"""Rights of Landlock."""
PLAIN_INTEGER = 1 << 53


def check(answer, what):
    """Raise the error of a failed call to the C library."""
    if answer < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return answer


def give_up(request):
    """Give up the user, all capabilities, and, as the request says, the file system and most system calls."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    number = ctypes.c_ulong

    def control(what, value, *rest):
        return libc.prctl(what, number(value), *(number(one) for one in rest), *[number(0)] * (3 - len(rest)))

    for capability in range(64):
        control(CAPBSET_DROP, capability)  # fails past the last capability, and for a user who has none to drop
    if request["user"] is not None:
        os.setgroups([])
        os.setresgid(*[request["user"]] * 3)
        os.setresuid(*[request["user"]] * 3)
    check(control(SET_PDEATHSIG, 9), "PR_SET_PDEATHSIG")
    check(control(SET_DUMPABLE, 0), "PR_SET_DUMPABLE")
    check(control(SET_NO_NEW_PRIVS, 1), "PR_SET_NO_NEW_PRIVS")
    nothing = (ctypes.c_uint32 * 8)(0x20080522)  # the version, this process; then no effective, permitted, inheritable
    header, data = ctypes.byref(nothing), ctypes.byref(nothing, 8)
    check(libc.syscall(number(SYS_CAPSET[os.uname().machine]), header, data), "capset")
    if request["readable"] is not None:
        landlock(libc, request["readable"])
    code = ctypes.create_string_buffer(bytes.fromhex(request["filter"]))

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    whole = Filter((len(code) - 1) // 8, ctypes.addressof(code))
    check(control(SET_SECCOMP, 2, ctypes.addressof(whole)), "PR_SET_SECCOMP")


def landlock(libc, readable):
    """Allow reading these paths and nothing else of the file system, no network, and no signal to anyone outside."""
    number = ctypes.c_ulong
    version = check(libc.syscall(number(LANDLOCK_CREATE), None, number(0), number(1)), "Landlock")
    if version < 3:
        raise OSError("Landlock guards the truncation of files only from Linux 6.2 on")
    handled = (ctypes.c_uint64 * 3)((1 << (16 if version >= 5 else 15)) - 1, 3 * (version >= 4), 3 * (version >= 6))
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = check(libc.syscall(number(LANDLOCK_CREATE), ctypes.byref(handled), number(size), number(0)), "Landlock")

    class Rule(ctypes.Structure):
        _pack_ = 1
        _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]

    for path in readable:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        folder = stat.S_ISDIR(os.fstat(place).st_mode)
        rule = Rule(READ_FILE | READ_DIR if folder else READ_FILE, place)
        check(libc.syscall(number(LANDLOCK_ADD), number(rules), number(1), ctypes.byref(rule), number(0)), path)
        os.close(place)
    check(libc.syscall(number(LANDLOCK_RESTRICT), number(rules), number(0)), "Landlock")
    os.close(rules)


def plain(value):
    """A value as JSON: scalars and lists as they are, anything else as an object of one key, its kind."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        value = int.__int__(value)
        return value if abs(value) < PLAIN_INTEGER else {"int": hex(value)}
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, tuple):
        return {"tuple": [plain(one) for one in value]}
    if isinstance(value, (set, frozenset)):  # only the latter may be an element of another, or a key
        return {"set" if isinstance(value, set) else "frozenset": [plain(one) for one in value]}
    if isinstance(value, dict):
        return {"dict": [[plain(key), plain(one)] for key, one in value.items()]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    fractions, decimal = sys.modules.get("fractions"), sys.modules.get("decimal")  # where the sample has imported them
    if fractions and type(value) is fractions.Fraction:
        return {"fraction": [hex(value.numerator), hex(value.denominator)]}
    if decimal and type(value) is decimal.Decimal:
        return {"decimal": str(value)}
    return {"object": type(value).__qualname__}


def evaluate(source, names):
    """Run the statements of a call and return the value of its last expression."""
    import ast

    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<call>", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "<call>", "eval"), names)


def attempt(what, *arguments):
    """What a function returns, as a reply; or what it raised."""
    try:
        return {"value": plain(what(*arguments))}
    except BaseException as error:
        return {"raised": f"{type(error).__name__}: {error}"[:500]}


def main():
    request = json.load(sys.stdin)
    replies = os.dup(1)
    os.dup2(2, 1)
    nothing, end = os.pipe()
    os.dup2(nothing, 0)
    os.closerange(replies + 1, end + 1)
    for limited, most in request["limits"]:
        resource.setrlimit(limited, tuple(most))
    if request["filter"] is not None:
        give_up(request)

    def send(reply):
        line = json.dumps(reply).encode() + b"\n"
        if len(line) > request["most"]:
            line = b'{"raised": "OverflowError: the value is too large to compare"}\n'
        while line:
            line = line[os.write(replies, line) :]

    module = types.ModuleType("program")
    sys.modules["program"] = module
    send({"value": "ready"})
    if "random" in request["program"]:
        import random

        random.seed(0)
    started = attempt(exec, request["program"], module.__dict__)
    send(started)
    if "value" in started:
        for call in request["calls"]:
            send(attempt(evaluate, call, dict(module.__dict__)))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
