"""The bytes that the planner counts are those that autograd stores and that a real process takes."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch

from bluejay.native import native
from bluejay.plan.memory import activations, kept, memory
from bluejay.plan.timing import traffic
from tests.plan.workloads import SHAPES, machine, per_token, workload


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bytes_stored_for_the_backward_pass_are_those_that_autograd_keeps(shape):
    counted = workload(SHAPES[shape])

    def stored(model: torch.nn.Module, tokens: torch.Tensor) -> float:
        weights = {parameter.data_ptr() for parameter in model.parameters()}
        storages: dict[int, torch.UntypedStorage] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.data_ptr() not in weights:
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            hidden = model.hidden(tokens)
        assert hidden.requires_grad
        return float(sum(storage.nbytes() for storage in storages.values()))

    assert per_token(stored, counted.config) == pytest.approx(kept(counted, "none"), rel=0.12)


STEP = """
import json, pathlib, re, sys, torch
torch.set_num_threads(1)
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.native import native
from bluejay.train.loss import head_loss
from bluejay.train.optimizer import adamw
from bluejay.train.recipe import Optimizer

def used_by(width, rows):
    model = new_model(GPTConfig(n_layer=8, d_model=width, n_head=8, vocab_size=4096), 0)
    optimizer = adamw(model, Optimizer())
    tokens = torch.zeros(rows, 256, dtype=torch.int64)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=sys.argv[1] == "bfloat16"):
            head_loss(model.hidden(tokens), *model.unembedding, tokens, 1.0).backward()
        optimizer.step()
        optimizer.zero_grad()
    # ru_maxrss would include the memory of the process that forked this one.
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

print(json.dumps(-used_by(32, 1) + used_by(512, 8)))
"""


LOSS = """
import pathlib, re, torch
torch.set_num_threads(1)
from bluejay.train.loss import head_loss

def peak(rows, vocabulary):
    head, hidden = torch.nn.Linear(16, vocabulary), torch.randn(1, rows, 16, requires_grad=True)
    head_loss(hidden, head.weight, head.bias, torch.zeros(1, rows, dtype=torch.int64), 1.0).backward()
    # ru_maxrss would include the memory of the process that forked this one.
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

print(-peak(64, 128) + peak(4096, 50_400))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_logits_of_a_large_vocabulary_take_the_memory_that_is_counted():
    # Three float32 copies of the logits are counted; in float32 the loss holds two, of the rows before and of these.
    size = {"n_layer": 1, "d_model": 16}
    small, large = (dataclasses.replace(workload(size | {"vocab_size": n}), micro=4096) for n in (128, 50_400))
    run = subprocess.run([sys.executable, "-c", LOSS], check=True, capture_output=True)
    measured = json.loads(run.stdout)
    assert measured < activations(large) - activations(small) < 1.6 * measured


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_memory_is_what_a_real_step_takes(precision):
    size = {"n_layer": 8, "d_model": 512, "n_head": 8, "vocab_size": 4096}
    batch = {"tokens": 2048, "batch_tokens": 2048, "precision": precision}
    counted = workload({"preset": "gpt-j"} | size, hardware=machine(fused_kernels=native is not None), **batch)
    counted = dataclasses.replace(counted, config=counted.recipe.gpt_config(4096), micro=2048)
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # else glibc keeps up to a third more, which varies
    run = subprocess.run([sys.executable, "-c", STEP, precision], check=True, capture_output=True, env=env)
    assert memory(counted).total == pytest.approx(json.loads(run.stdout), rel=0.15)


def test_a_compiled_head_holds_its_logits_and_their_gradient_in_the_type_of_products():
    gpu = dataclasses.replace(machine(), fused_kernels=False, bfloat16=2e12, float32=1e12)
    plain, compiled = (
        workload({"vocab_size": 50_000}, hardware=gpu, precision="bfloat16", compile=on) for on in (False, True)
    )
    logits = 1024 * 50_000
    assert activations(compiled) - activations(plain) == pytest.approx((2 * 2 - 3 * 4) * logits)
    assert traffic(compiled) < traffic(plain)
