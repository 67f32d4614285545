"""What an honest program sees of the cage, and how the cage is chosen."""

import math
import os
import signal
import subprocess
import sys
import threading
from decimal import Decimal
from fractions import Fraction

import pytest

from bluejay.evals import cage
from bluejay.evals.cage import Limits, NotPlain, Raised, launch
from bluejay.evals.cage.launch import failures
from bluejay.evals.cage.plain import decode


@pytest.fixture(params=cage.LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    if request.param in failures():
        pytest.skip(failures()[request.param])
    return request.param


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0, -7, 2**53, 2**200, -(10**5000), 0.1, -0.0, math.inf, 1j, "", "é\ud800\n", b"\0\xff"),
        *([], [[1], (2, "3")], (1,), {1, "a", (2, 3)}, set(), {}, {"a": [1], 2: {"b": None}, (1, 2): 3.5}),
        *(Fraction(1, -3), Decimal("1.50"), {frozenset({1}): frozenset({frozenset()})}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, set | int) else str(value)[:20],
)
def test_plain_values_come_back_as_they_are(value):
    source = hex(value) if type(value) is int else repr(value).replace("inf", "1e999")
    (given,) = cage.run("from decimal import Decimal; from fractions import Fraction", [source]).results
    assert given == value and type(given) is type(value) and (given != 0 or str(given) == str(value))


def test_other_values_equal_nothing():
    (given, same) = cage.run("class A: __eq__ = lambda self, other: True", ["A()", "[A()]"]).results
    assert isinstance(given, NotPlain) and given != given and same != [1] and repr(given) == "<A>"


@pytest.mark.parametrize(
    "wire", [{"decimal": "1" * 3000}, {"decimal": "1E+999999"}, {"fraction": ["0x1", "0x" + "1" * 3000]}]
)
def test_a_number_with_which_sums_would_take_long_is_not_plain(wire):
    assert isinstance(decode(wire), NotPlain)


@pytest.mark.parametrize("wire", [{"decimal": "x"}, {"fraction": ["0x1", "0x0"]}, {"fraction": ["0x1"]}])
def test_what_is_no_number_is_refused(wire):
    with pytest.raises(ValueError, match=r"decimal|denominator|fraction"):
        decode(wire)


def test_values_of_derived_types_are_plain():
    calls = ["collections.Counter('aab')", "collections.namedtuple('P', 'x y')(1, 2)", "frozenset([1])", "E.A"]
    program = "import collections, enum\nclass E(enum.IntEnum):\n    A = 3"
    assert cage.run(program, calls).results == ({"a": 2, "b": 1}, (1, 2), {1}, 3)


def test_calls_may_be_statements_and_do_not_see_each_other():
    program = "class Car:\n    km = 0\n    def drive(self, km):\n        self.km += km\n"
    outcome = cage.run(program, ["car = Car()\ncar.drive(3)\ncar.km", "car", "x = 1"])
    assert outcome.results == (3, Raised("NameError: name 'car' is not defined"), None) and outcome.ended is None


def test_every_level_says_its_name_and_what_was_printed(level):
    outcome = cage.run("print('out')\nimport sys\nprint('err', file=sys.stderr)", ["1 / 0"], cage=level)
    assert outcome.level == level and sorted(outcome.output.split()) == ["err", "out"]
    assert outcome.results == (Raised("ZeroDivisionError: division by zero"),) and outcome.ended is None


def test_a_program_that_fails_has_no_results(level):
    outcome = cage.run("import nothing_of_this_name", ["1"], cage=level)
    assert (
        outcome.results == () and outcome.ended == "raised ModuleNotFoundError: No module named 'nothing_of_this_name'"
    )


def test_the_standard_library_is_there(level):
    names = "re, math, json, random, itertools, collections, heapq, bisect, decimal, hashlib, datetime, string"
    outcome = cage.run(f"import typing, sqlite3, ssl, unittest, {names}", ["re.findall('a+', 'aab')"], cage=level)
    assert outcome.results == (["aa"],), outcome


def test_installed_packages_are_not_there(level):
    if level == "none":
        pytest.skip("nothing is hidden without a cage")
    program = "import sysconfig, pathlib\npath = pathlib.Path(sysconfig.get_paths()['purelib'])"
    outcome = cage.run(program, ["[str(one) for one in path.iterdir()]"], cage=level)
    (given,) = outcome.results
    assert given == [] or (isinstance(given, Raised) and "Error" in given.error)


def test_the_same_program_gives_the_same_value_each_time(level):
    program = "import random\nwords = [str(n) for n in range(50)]"
    runs = {repr(cage.run(program, ["list(set(words))", "random.random()"], cage=level).results) for _ in range(3)}
    assert len(runs) == 1


def test_temporary_files_can_be_written():
    if cage.level() != "bubblewrap":
        pytest.skip("only bubblewrap gives a file system of its own")
    assert cage.run("open('/tmp/x', 'w').write('hello')", ["open('x').read()"]).results == ("hello",)
    assert cage.run("", ["__import__('os').listdir('/tmp')"]).results == ([],)


def test_processor_time_is_counted_and_not_time_by_the_clock():
    counts_processor_time(cage.level())


@pytest.mark.slow
def test_processor_time_is_counted_at_every_level(level):
    counts_processor_time(level)


def counts_processor_time(level: str) -> None:
    """A sample may sleep for longer than it may work."""
    limits = Limits(cpu_seconds=1, sleep_seconds=30.0)
    assert cage.run("import time\ntime.sleep(1.5)", ["1"], limits, level).results == (1,)
    assert cage.run("while True: pass", ["1"], limits, level).ended == "took more than 1 s of processor time"


WORK_THEN_SLEEP = """
import os, time
from bluejay.evals.cage.launch import Sleep

sleep = Sleep(os.getpid(), 0)
start = sleep.seconds()
until = time.process_time() + 0.3
while time.process_time() < until:
    pass
print(sleep.seconds() - start)
time.sleep(0.5)
print(sleep.seconds() - start)
"""


def test_a_stopped_sample_waits_for_a_processor_but_does_not_sleep():
    """Time for which the machine does not let a sample run does not count. A process of its own: others have threads
    that may run meanwhile."""
    told = subprocess.run([sys.executable, "-c", WORK_THEN_SLEEP], stdout=subprocess.PIPE, check=True).stdout
    busy, slept = map(float, told.split())
    assert busy < 0.25 < 0.45 < slept


@pytest.mark.parametrize(
    ("uid_map", "users"),
    [
        ("         0          0 4294967295\n", range(1 << 30, (1 << 30) + (1 << 22))),
        ("         0     100000      65536\n", range(32768, 65536)),
        ("         0       1000          1\n         1     100000      65536\n", range(32769, 65537)),
    ],
)
def test_each_sample_has_a_user_of_its_own_that_there_is(uid_map, users):
    given = [launch.own_user(uid_map, thread) for thread in range(1000)]
    assert len(set(given)) == 1000 and set(given) <= set(users)
    assert launch.own_user("0 1000 1", 7) is None


def test_a_cage_that_cannot_be_built_is_no_verdict(monkeypatch):
    monkeypatch.setattr(launch, "INSIDE", "raise OSError('no room')")
    with pytest.raises(cage.CageError, match=r"could not be built(.|\n)*no room"):
        cage.run("", ["1"])


def test_without_a_cage_nothing_runs_unless_asked_for(monkeypatch):
    monkeypatch.setattr(launch, "failures", lambda: {"bubblewrap": "bwrap is not installed", "landlock": "too old"})
    with pytest.raises(ValueError, match=r"bwrap is not installed.*--cage none"):
        cage.run("", ["1"])
    assert cage.run("", ["1"], cage="none").results == (1,)
    with pytest.raises(ValueError, match="bubblewrap, landlock, none"):
        cage.run("", cage="docker")


def test_a_sample_dies_with_the_process_that_started_it(level):
    """Its parent is a process of its own here, which is killed while the sample sleeps."""
    if level == "none":
        pytest.skip("nothing is promised without a cage")
    reading, writing = os.pipe()
    child = os.fork() if threading.active_count() == 1 else None
    if child is None:
        pytest.skip("a process with threads does not fork")
    if child == 0:
        threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        os.set_inheritable(writing, True)
        cage.run("import time\ntime.sleep(1000)", cage=level)
        os._exit(1)
    os.close(writing)
    os.waitpid(child, 0)
    assert os.read(reading, 1) == b""  # the last copy of the other end is closed
    os.close(reading)


@pytest.mark.parametrize(("too_late", "built"), [(1, 2), (9, launch.ATTEMPTS)])
def test_a_cage_that_does_not_stand_in_time_is_built_again(monkeypatch, too_late, built):
    real, tried = launch.collect, []

    def collect(*given):
        found = real(*given)
        tried.append(found)
        return (b"", b"", "took more than 600 s by the clock") if len(tried) <= too_late else found

    monkeypatch.setattr(launch, "collect", collect)
    if too_late < launch.ATTEMPTS:
        assert launch.run("def f(): return 3", ["f()"], cage="none").results == (3,)
    else:
        with pytest.raises(launch.CageError, match="by the clock"):
            launch.run("", [], cage="none")
    assert len(tried) == built
