"""Every module can be imported where Linux's own calls are missing, as on macOS."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "bluejay"
ELSEWHERE = """
import importlib, os, select, signal, socket, sys
begin = ("sched_", "SCHED_", "pidfd_", "memfd_", "eventfd", "EFD_")
linux_only = [(os, name) for name in dir(os) if name.startswith(begin)]
linux_only += [(os, name) for name in ("posix_fadvise", "splice", "setns", "unshare", "copy_file_range", "getrandom")]
linux_only += [(select, "epoll"), (signal, "SIGRTMIN"), (signal, "sigtimedwait"), (socket, "SO_REUSEPORT_LB")]
for module, name in linux_only:
    if hasattr(module, name):
        delattr(module, name)
own_open = open
def guarded(file, *arguments, **keywords):
    if str(file).startswith(("/proc", "/sys")):
        raise FileNotFoundError(2, "No such file or directory", file)
    return own_open(file, *arguments, **keywords)
import torch, numpy, matplotlib.figure  # the libraries look around by themselves
sys.platform = "darwin"
import builtins
builtins.open = guarded
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as missing:
        assert not (missing.name or "").startswith("bluejay"), missing
        if missing.name not in OPTIONAL:
            raise
from bluejay.machine import n_processors
assert n_processors() >= 1
"""
OPTIONAL = ("lm_eval", "ray", "shtab", "triton", "xllamacpp")


def modules() -> list[str]:
    paths = (path.relative_to(PACKAGE.parent).with_suffix("") for path in sorted(PACKAGE.rglob("*.py")))
    return [".".join(path.parts).removesuffix(".__init__") for path in paths]


def test_all_modules_are_imported_without_linuxs_own_calls():
    program = ELSEWHERE.replace("OPTIONAL", repr(OPTIONAL))
    run = subprocess.run([sys.executable, "-c", program, *modules()], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.mark.parametrize("call", ["os.sched_getaffinity(0)", "open('/proc/self/status')"])
def test_an_unguarded_call_would_be_found(call, tmp_path):
    (tmp_path / "unguarded.py").write_text(f"import os\n{call}\n")
    program = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n" + ELSEWHERE.replace("OPTIONAL", repr(OPTIONAL))
    program = program.replace("import torch, numpy, matplotlib.figure", "")
    assert subprocess.run([sys.executable, "-c", program, "unguarded"], capture_output=True).returncode != 0
