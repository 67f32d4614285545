"""The checks of a GPU run through on a CPU, at tiny sizes and without compiling."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from bluejay.gpt.config import Family

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu.py"


@pytest.mark.slow
@pytest.mark.parametrize("part", ["a", "b"])
def test_each_part_of_the_gpu_benchmark_runs_at_tiny_sizes(part: str, tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    command = [sys.executable, SCRIPT, "--tiny", "--part", part, "--output", output]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    last = json.loads(done.stdout.splitlines()[-1])
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert last["benchmark"] == "gpu" and last["results"] == rows
    failed = [row for row in rows if "error" in row]
    assert not failed, failed
    equal = [row for row in rows if row["check"] in ("A2", "A3") and "logits" in row and not row.get("bfloat16")]
    assert all(max(row["logits"], row.get("gradients", 0)) < 1e-4 for row in equal), equal
    if part == "a":
        for check in ("A2", "A3"):
            assert {row["family"] for row in equal if row["check"] == check} == set(get_args(Family))
        assert all(row["apart"] < 1e-6 for row in rows if row["check"] == "A7" and "apart" in row)


HANGS = """
import sys, time
sys.path.insert(0, {folder!r})
import gpu

def fails(setting):
    raise MemoryError("no room")

def hangs(setting):
    time.sleep(600)

def rows():
    yield dict(value=1)

log, setting = gpu.Log(None), gpu.Setting(gpu.torch.device("cpu"), True)
checks = [gpu.Check("1", "fails", fails), gpu.Check("2", "hangs", hangs), gpu.Check("3", "works", lambda setting: rows)]
gpu.run_round(checks[::2], setting, log, time.monotonic() + 60)
gpu.run_round(checks[1:2], setting, log, time.monotonic() + 1)
gpu.run_round(checks[2:], setting, log, time.monotonic() - 1)
"""


@pytest.mark.slow
def test_a_check_that_fails_or_hangs_leaves_the_others_alone_and_ends_in_time() -> None:
    program = HANGS.format(folder=str(SCRIPT.parent))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    errors = [(row["name"], row["error"]) for row in rows if "error" in row]
    assert [row["value"] for row in rows if "value" in row] == [1]
    assert [name for name, _ in errors] == ["fails", "hangs", "works"] and "no room" in errors[0][1]
    assert {error for _, error in errors[1:]} == {"left out: the time is up"}


@pytest.mark.slow
def test_without_a_gpu_the_benchmark_says_what_is_missing() -> None:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True, env=environment)
    assert "GPU" in json.loads(done.stdout)["missing"]
