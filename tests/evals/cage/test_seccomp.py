"""The filter allows what it says, by the numbers that the kernel's headers have."""

import re
from pathlib import Path

import pytest

from bluejay.evals.cage.seccomp import CALLS, REFUSED, seccomp_filter

HEADERS = {
    0: [*Path("/usr/include").glob("**/asm/unistd_64.h")],
    1: [*Path("/usr/include").glob("asm-generic/unistd.h")],
}


@pytest.mark.parametrize("column", HEADERS)
def test_the_numbers_are_those_of_the_kernel(column):
    if not HEADERS[column]:
        pytest.skip("the kernel's headers are not installed")
    text = HEADERS[column][0].read_text()
    theirs = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    theirs.setdefault("newfstatat", theirs.get("fstatat", -1))
    ours = {name: numbers[column] for name, numbers in (CALLS | REFUSED).items() if numbers[column] is not None}
    assert {name: number for name, number in ours.items() if theirs.get(name) != number} == {}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_filter_fits_the_kernel(machine):
    filtered = seccomp_filter(machine)
    assert filtered and len(filtered) % 8 == 0 and len(filtered) // 8 < 4096


def test_an_unknown_machine_has_no_filter():
    assert seccomp_filter("riscv64") is None


@pytest.mark.parametrize(
    "dangerous", ["kill", "socket", "execve", "ptrace", "mount", "unshare", "chmod", "bpf", "clone3"]
)
def test_what_reaches_others_is_not_allowed(dangerous):
    assert dangerous not in CALLS
