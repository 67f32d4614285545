"""No hostile program passes, gets out or harms anything, as root and as an ordinary user, in each kind of cage."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import bluejay.evals.cage
from bluejay.evals.cage.launch import LEVELS, failures
from bluejay.evals.cage.readable import for_every_user, interpreter
from tests.evals.cage.cheating import CHEATING
from tests.evals.cage.hostile import ENDLESS, HOSTILE

HERE = Path(__file__).parent
PACKAGE = Path(bluejay.evals.cage.__file__).parents[2]
ORDINARY_USER = 54321


def interpreter_for_everyone(folder: Path) -> str:
    """An interpreter that an ordinary user can run: this one, the system's, or a copy of this one."""
    if for_every_user():
        return str(interpreter())
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        tried = "import sys, tomllib; print(sys.version_info >= (3, 11))"
        if subprocess.run(["/usr/bin/python3", "-c", tried], capture_output=True, check=True).stdout == b"True\n":
            return "/usr/bin/python3"
    library = Path(os.__file__).parent
    left_out = shutil.ignore_patterns("site-packages", "test", "idlelib", "__pycache__", "config-*")
    shutil.copytree(library, folder / "lib" / library.name, ignore=left_out)
    for shared in Path(sys.base_prefix, "lib").glob("libpython*"):
        shutil.copy(shared, folder / "lib")
    (folder / "bin").mkdir()
    return str(shutil.copy(interpreter(), folder / "bin"))


@cache
def attacked(folder: Path, level: str, user: int, endless: bool) -> dict:
    """What hostile programs did in a cage of this level that this user built."""
    place = folder / f"{level}-{user}-{endless}"
    source = place / "source"
    for room in ("cage", "code"):
        shutil.copytree(PACKAGE / "evals" / room, source / "bluejay" / "evals" / room)
    for path in (source / "bluejay", source / "bluejay" / "evals"):
        (path / "__init__.py").touch()
    for name in ("attack.py", "cheating.py", "hostile.py"):
        shutil.copy(HERE / name, source)
    work = place / "work"
    work.mkdir()
    how, python = {}, str(interpreter())
    if user != os.getuid():
        python = interpreter_for_everyone(place / "python")
        os.chown(work, user, user)
        how = {"user": user, "group": user, "extra_groups": []}
    command = [python, "-B", str(source / "attack.py"), level, str(work), *programs(endless)]
    environment = {"PYTHONPATH": str(source), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, **how)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def programs(endless: bool) -> list[str]:
    return [name for name in HOSTILE | CHEATING if (name in ENDLESS) == endless]


@pytest.fixture(scope="module")
def attack() -> Iterator[Callable[[str, str, bool], dict]]:
    """Tries the programs in a cage of a level that root or an ordinary user builds."""

    def of(level: str, who: str, endless: bool) -> dict:
        if level in failures():
            pytest.skip(failures()[level])
        if who == "root" and os.getuid():
            pytest.skip("only root can try it as root")
        user = 0 if who == "root" else os.getuid() or ORDINARY_USER
        return attacked(Path(folder), level, user, endless)

    with tempfile.TemporaryDirectory() as folder:  # pytest's own are for the user who tests alone
        Path(folder).chmod(0o755)
        yield of


def test_there_are_programs_of_every_kind():
    every = HOSTILE | CHEATING
    assert len(every) == len(HOSTILE) + len(CHEATING) >= 50 and every.keys() > ENDLESS


@pytest.mark.parametrize("endless", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["brief", "endless"])
@pytest.mark.parametrize("who", ["root", "an ordinary user"])
@pytest.mark.parametrize("level", LEVELS[:-1])
def test_no_hostile_program_passes_gets_out_or_harms(attack, level, who, endless):
    result = attack(level, who, endless)
    assert result["honest"] is None
    assert [*result["report"]] == programs(endless)
    assert {name: harm for name, (_, _, harm) in result["report"].items() if harm} == {}
    assert {used for used, _, _ in result["report"].values()} == {level}
    assert result["left"] == [] and result["same"]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("fork bomb", "PermissionError"),
        ("output flood", "wrote more than"),
        ("memory hog", "MemoryError|processor time"),  # to fill its memory may take all of its second
        ("exit 0", "ended before its tests did"),
        ("reading what is not there", "crashed with SIGSEGV"),
    ],
)
def test_the_reason_says_what_stopped_it(attack, name, how):
    level = next(one for one in LEVELS if one not in failures())
    assert re.search(how, attack(level, "an ordinary user", False)["report"][name][1])


@pytest.mark.slow
def test_the_reason_says_which_time_ran_out(attack):
    level = next(one for one in LEVELS if one not in failures())
    report = attack(level, "an ordinary user", True)["report"]
    assert report.pop("sleeping")[1] == "slept for more than 1 s"
    assert {ended for _, ended, _ in report.values()} == {"took more than 1 s of processor time"}
