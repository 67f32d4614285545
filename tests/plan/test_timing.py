"""The planner's counts for a step are those of PyTorch, and each term follows its formula."""

import dataclasses

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bluejay.gpt.init import new_model
from bluejay.plan.hardware import Link
from bluejay.plan.memory import memory
from bluejay.plan.timing import attention, data, matmul, occupancy, operations, score_flops, seconds, traffic
from tests.plan.workloads import ONES, SHAPES, machine, per_token, workload


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
    weights = 6 * sum(rows * columns for rows, columns in counted.matrices.values())
    assert (two - one) / 256 == pytest.approx(weights + score_flops(counted), rel=0.03)


@pytest.mark.parametrize("window", [1, 100, 256, 1000])
def test_attention_within_a_window_counts_what_a_token_looks_at(window):
    visible = torch.ones(256, 256).tril().triu(1 - window).sum().item() / 256
    whole = torch.ones(256, 256).tril().sum().item() / 256
    found = score_flops(workload({"preset": "gpt-neo-125m", "window": window}))
    share = (1 + visible / whole) / 2  # of two layers, one has the window
    assert found / score_flops(workload(SHAPES["gpt-2"])) == pytest.approx(share, abs=0.004)


def test_the_traffic_of_separate_operations_is_what_torch_dispatches():
    counted = workload(SHAPES["gpt-j"])

    def moved(model: torch.nn.Module, tokens: torch.Tensor) -> float:
        with Traffic() as counter:
            model.hidden(tokens).sum().backward()
        return float(counter.total)

    blocks = traffic(counted) - traffic(workload({"n_layer": 1} | SHAPES["gpt-j"]))
    sums = 12 * counted.config.n_block / 1e12  # of gradients, which one pass does not add up
    assert per_token(moved, counted.config) == pytest.approx((blocks - sums) * 1e12 / 1024, rel=0.2)


def test_a_pipeline_idles_for_all_its_stages_but_one():
    deep = workload({"n_layer": 4}, ONES | {"pipeline": 4}, machine(devices=4, inside=Link(1e6, latency=0.0)))
    step = seconds(deep)
    busy = step.matmul + step.attention + step.memory + step.tensor
    assert deep.micro_batches == 32
    assert step.pipeline == pytest.approx(busy * 3 / 32, rel=0.05)


def test_sharding_leaves_each_device_its_part():
    alone, shared = workload({}), workload({}, ONES | {"shard": 4}, machine(devices=4))
    assert memory(shared).optimizer == pytest.approx(memory(alone).optimizer / 4)
    assert matmul(shared) == matmul(alone) and 4 * shared.micro_batches == alone.micro_batches
    halves = workload({}, ONES | {"tensor": 2}, machine(devices=2))
    assert memory(halves).gradients == pytest.approx(memory(alone).gradients / 2)
    assert seconds(halves).tensor > 0 == seconds(alone).tensor


def test_recomputing_takes_less_memory_and_more_time():
    kinds = [workload({"n_layer": 12}, recompute=kind) for kind in ("none", "selective", "full")]
    stored = [memory(kind).activations for kind in kinds]
    assert stored[0] > stored[1] > stored[2]
    none, selective, full = (matmul(kind) for kind in kinds)
    assert none == selective < full == pytest.approx(none * 4 / 3, rel=0.12)
    assert traffic(kinds[0]) < traffic(kinds[1]) == traffic(kinds[2])


def test_attention_has_a_rate_of_its_own():
    slow, fast = (workload({}, hardware=machine(matmul_share=0.8, attention_share=share)) for share in (0.2, None))
    assert attention(slow) == pytest.approx(4 * attention(fast))
    assert matmul(slow) == matmul(fast)


def test_a_last_round_of_tiles_leaves_multiprocessors_idle():
    assert occupancy(1024, 1280, 80) == 1.0  # 8 x 10 tiles
    assert occupancy(1024, 1281, 80) == pytest.approx(88 / 160)
    assert occupancy(128, 512, 132) == pytest.approx(4 / 132)
    assert occupancy(128, 512, 0) == 1.0
    wide, narrow = (workload({}, hardware=machine(multiprocessors=n)) for n in (0, 108))
    assert matmul(narrow) > matmul(wide)


def test_small_products_wait_for_the_program_that_starts_them():
    calm, starved = (workload({}, hardware=machine(launch=launch, pause=0.01)) for launch in (0.0, 1e-3))
    assert seconds(calm).launch == 0.01
    busy = seconds(starved).matmul + seconds(starved).attention + seconds(starved).memory
    assert seconds(starved).launch + busy == pytest.approx(32 * operations(starved) * 1e-3 + 0.01)
    assert (
        operations(workload({}, compile=True)) < operations(workload({})) < operations(workload({}, recompute="full"))
    )


def test_a_fast_network_hides_all_but_the_ends_of_sharding():
    def exposed(bandwidth: float, micro: int) -> float:
        hardware = machine(devices=8, node=8, inside=Link(bandwidth, latency=0.0))
        load = dataclasses.replace(workload({"n_layer": 8}, ONES | {"shard": 8}, hardware), micro=micro)
        return data(load, 1.0) / load.micro_batches

    config = workload({"n_layer": 8}).config
    ends = (4 + 4) * (config.n_block + config.n_parameters - 8 * config.n_block) * 7 / 8 / 1e9
    assert exposed(1.0, 256) == pytest.approx(ends, rel=1e-6)
    blocks = 12 * 8 * config.n_block * 7 / 8 / 1e6
    assert exposed(1e-3, 256) == pytest.approx(1000 * ends + blocks - 1.0, rel=0.1)


def test_replicas_sum_what_the_last_backward_pass_leaves_time_for():
    hardware = machine(devices=4, inside=Link(1e-3, latency=0.0))
    load = workload({}, ONES | {"replicate": 4}, hardware)
    whole = 2 * 4 * load.weights * 3 / 4 / 1e6
    assert data(load, 0.0) == pytest.approx(whole)
    assert data(load, 0.3) == pytest.approx(whole - 0.2)
    assert data(load, 1e6) == pytest.approx(whole * load.embedding_weights / load.weights)
