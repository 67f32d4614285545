"""What is known of this machine."""

import subprocess
import sys

import pytest

from bluejay.machine import control_groups, free_in_group, free_memory, processors_in_group, stated_rate


def test_memory_of_a_control_group_is_what_its_limit_leaves(tmp_path):
    assert free_in_group(tmp_path) == 1 << 62
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 400\nfile 300\ninactive_file 250\n")
    for limit, free in (("max", 1 << 62), ("1000", 550), ("600", 150), ("400", 0)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert free_in_group(tmp_path) == free
    assert 0 < free_memory() <= 1 << 62


def test_a_limit_of_a_group_above_holds_as_a_cluster_or_systemd_sets_it(tmp_path):
    root, proc = tmp_path / "sys" / "fs" / "cgroup", tmp_path / "proc" / "self"
    assert control_groups(tmp_path) == [root]
    proc.mkdir(parents=True)
    for told, inside in (("0::/\n", ()), ("1:cpu:/old\n0::/slurm/job_7\n", ("slurm", "slurm/job_7"))):
        (proc / "cgroup").write_text(told)
        assert sorted(control_groups(tmp_path)) == [root, *(root / name for name in inside)]
    (root / "slurm").mkdir(parents=True)
    for quota, most in (("250000 100000", 2), ("max 100000", 1 << 62)):
        (root / "slurm" / "cpu.max").write_text(f"{quota}\n")
        assert min(map(processors_in_group, control_groups(tmp_path))) == most


def test_resident_memory_grows_and_is_given_back():
    program = """
from bluejay.machine import resident_memory, return_memory
before = resident_memory()
held = [bytearray(1000) for _ in range(50_000)]
grown = resident_memory() - before
del held
return_memory()
print(grown, resident_memory() - before)
"""  # in a process of its own: here the memory may come from what other tests have let go
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    grown, left = map(int, run.stdout.split())
    assert grown > 40_000_000 and left < 20_000_000


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_the_peak_of_the_data_sheet_is_found_by_the_name_of_the_card(name, teraflops):
    assert stated_rate(name) == (teraflops and teraflops * 1e12)
