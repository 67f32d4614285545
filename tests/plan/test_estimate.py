"""The planner's counts for a step are those of PyTorch, and its memory is that of a real process."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bluejay import recipe as recipes
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.native import native
from bluejay.plan.estimate import Workload
from bluejay.plan.hardware import Hardware, Link
from bluejay.train.recipe import TrainRecipe

LINK = Link(100.0)
ONES = {"replicate": 1, "shard": 1, "tensor": 1, "pipeline": 1}
SHAPES = {
    "gpt-j": {"preset": "gpt-j"},
    "gpt-2": {"preset": "gpt2"},
    "llama": {"preset": "llama-2-7b", "n_kv_head": 2, "d_ff": 192},
}


def machine(**fields: object) -> Hardware:
    base = Hardware("a machine", 1, 8, 80.0, 1000.0, 100.0, 50.0, LINK, LINK, reserved=0.0)
    return dataclasses.replace(base, **fields)


def workload(
    model: dict[str, object], mesh: dict[str, int] = ONES, hardware: Hardware | None = None, **train: object
) -> Workload:
    size = {"n_layer": 2, "d_model": 64, "n_head": 4, "vocab_size": 128}
    values = {
        "name": "a workload",
        "data": {"train": [{"shards": "none"}], "valid": "none", "sequence_length": 256, "tokenizer": "gpt2"},
        "model": size | model,
        "train": {"tokens": 32768, "batch_tokens": 32768, "precision": "float32"} | train,
    }
    recipe = recipes.check(TrainRecipe, values, "the test")
    return Workload(recipe, recipe.gpt_config(128), hardware or machine(), mesh, 1024)


class Traffic(TorchDispatchMode):
    """Counts the bytes read and written by all operations that move data, except matrix products."""

    total = 0

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        result = operation(*arguments, **(keywords or {}))
        products = any(name in str(operation) for name in ("mm.", "_unsafe_view", "empty", "detach"))
        if not operation.is_view and not products:
            tensors = [leaf for leaf in tree_leaves((arguments, keywords, result)) if isinstance(leaf, torch.Tensor)]
            self.total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def per_token(count, config: GPTConfig) -> float:
    """What one block adds to a count for each token, without embedding, head and weights."""

    def of(layers: int, length: int) -> float:
        model = new_model(dataclasses.replace(config, n_layer=layers), 0)
        return count(model, torch.zeros(1, length, dtype=torch.int64))

    return ((of(2, 256) - of(1, 256)) - (of(2, 128) - of(1, 128))) / 128


@pytest.mark.parametrize("shape", SHAPES)
def test_the_arithmetic_is_what_torch_counts(shape):
    counted = workload(SHAPES[shape], hardware=machine(fused_attention=False))

    def flops(model: torch.nn.Module, tokens: torch.Tensor) -> float:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            model.hidden(tokens).sum().backward()
        return float(counter.get_total_flops())

    one, two = (
        flops(new_model(dataclasses.replace(counted.config, n_layer=n), 0), torch.zeros(1, 256, dtype=torch.int64))
        for n in (1, 2)
    )
    assert (two - one) / 256 == pytest.approx(counted.flops_of_block(), rel=0.03)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bytes_stored_for_the_backward_pass_are_those_that_autograd_keeps(shape):
    counted = workload(SHAPES[shape])

    def kept(model: torch.nn.Module, tokens: torch.Tensor) -> float:
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

    assert per_token(kept, counted.config) == pytest.approx(counted.kept("none"), rel=0.12)


def test_the_traffic_of_separate_operations_is_what_torch_dispatches():
    counted = workload(SHAPES["gpt-j"])

    def traffic(model: torch.nn.Module, tokens: torch.Tensor) -> float:
        with Traffic() as counter:
            model.hidden(tokens).sum().backward()
        return float(counter.total)

    blocks = counted.traffic() - workload({"n_layer": 1} | SHAPES["gpt-j"]).traffic()
    casts = 6 * counted.config.n_block / 1e12
    assert per_token(traffic, counted.config) == pytest.approx((blocks - casts) * 1e12 / 1024, rel=0.2)


def test_a_pipeline_idles_for_all_its_stages_but_one():
    deep = workload({"n_layer": 4}, ONES | {"pipeline": 4}, machine(devices=4, inside=Link(1e6, latency=0.0)))
    seconds = deep.seconds()
    busy = seconds.matmul + seconds.memory + seconds.tensor
    assert deep.micro_batches == 32
    assert seconds.pipeline == pytest.approx(busy * 3 / 32, rel=0.05)


def test_sharding_leaves_each_device_its_part():
    alone, shared = workload({}), workload({}, ONES | {"shard": 4}, machine(devices=4))
    assert shared.memory().optimizer == pytest.approx(alone.memory().optimizer / 4)
    assert shared.matmul() == alone.matmul() and 4 * shared.micro_batches == alone.micro_batches
    halves = workload({}, ONES | {"tensor": 2}, machine(devices=2))
    assert halves.memory().gradients == pytest.approx(alone.memory().gradients / 2)
    assert halves.seconds().tensor > 0 == alone.seconds().tensor


def test_recomputing_takes_less_memory_and_more_time():
    kinds = [workload({"n_layer": 12}, recompute=kind) for kind in ("none", "selective", "full")]
    memory, arithmetic = [kind.memory().activations for kind in kinds], [kind.matmul() for kind in kinds]
    assert memory[0] > memory[1] > memory[2]
    assert arithmetic[0] < arithmetic[1] < arithmetic[2] == pytest.approx(arithmetic[0] * 4 / 3, rel=0.12)


STEP = """
import json, resource, sys, torch
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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_logits_of_a_large_vocabulary_take_the_memory_that_is_counted():
    # Three float32 copies of the logits are counted; in float32 the loss holds two, of the rows before and of these.
    size = {"n_layer": 1, "d_model": 16}
    small, large = (dataclasses.replace(workload(size | {"vocab_size": n}), micro=4096) for n in (128, 50_400))
    run = subprocess.run([sys.executable, "-c", LOSS], check=True, capture_output=True)
    measured = json.loads(run.stdout)
    assert measured < large.activations() - small.activations() < 1.6 * measured


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_memory_is_what_a_real_step_takes(precision):
    size = {"n_layer": 8, "d_model": 512, "n_head": 8, "vocab_size": 4096}
    batch = {"tokens": 2048, "batch_tokens": 2048, "precision": precision}
    counted = workload({"preset": "gpt-j"} | size, hardware=machine(fused_kernels=native is not None), **batch)
    counted = dataclasses.replace(counted, config=counted.recipe.gpt_config(4096), micro=2048)
    run = subprocess.run([sys.executable, "-c", STEP, precision], check=True, capture_output=True, cwd=Path.cwd())
    assert counted.memory().total == pytest.approx(json.loads(run.stdout), rel=0.15)


def test_a_compiled_head_holds_its_logits_and_their_gradient_in_the_type_of_products():
    gpu = dataclasses.replace(machine(), fused_kernels=False, bfloat16=2e12, float32=1e12)
    plain, compiled = (
        workload({"vocab_size": 50_000}, hardware=gpu, precision="bfloat16", compile=on) for on in (False, True)
    )
    logits = 1024 * 50_000
    assert compiled.activations() - plain.activations() == pytest.approx((2 * 2 - 3 * 4) * logits)
    assert compiled.traffic() < plain.traffic()
