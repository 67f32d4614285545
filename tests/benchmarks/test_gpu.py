"""The checks of a GPU run through on a CPU, at tiny sizes and without compiling."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu.py"
ONLY_ON_A_GPU = {"124 M, compiled, flex"}
"""Its attention has no backward pass on a CPU."""


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
    failed = [row for row in rows if "error" in row and row["name"] not in ONLY_ON_A_GPU]
    assert not failed, failed
    for row in rows:
        if row["check"] == "A2" and not row.get("bfloat16") and "gradients" in row:
            assert row["logits"] < 1e-4 and row["gradients"] < 1e-4, row


@pytest.mark.slow
def test_without_a_gpu_the_benchmark_says_what_is_missing() -> None:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True, env=environment)
    assert "GPU" in json.loads(done.stdout)["missing"]
