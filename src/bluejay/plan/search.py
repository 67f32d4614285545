"""The fastest of all meshes, micro-batches and kinds of recomputation that fit."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from bluejay.gpt.config import GPTConfig
from bluejay.plan.hardware import Hardware
from bluejay.plan.memory import memory
from bluejay.plan.plan import Plan, model_of, predict
from bluejay.plan.remedies import divisors, with_recompute
from bluejay.plan.timing import seconds
from bluejay.plan.workload import RECOMPUTE, Workload
from bluejay.train.distributed.parallel import check_mesh_sizes
from bluejay.train.recipe import TrainRecipe

MEMORY_UTILIZATION = 0.9
"""Fraction of a device's memory that a mesh found by `best` may use: the estimate is not exact."""
DOUBLINGS = 8
"""How often `best` doubles the number of devices to find one that is enough."""


def best(recipe: TrainRecipe, hardware: Hardware, recompute: Sequence[str] = RECOMPUTE) -> Plan:
    """The plan with the fastest mesh, micro-batch and kind of recomputation (one of `recompute`) that fit in memory.

    Raises ValueError, with the number of devices that is enough, if none does.
    """
    config, packed_bytes = model_of(recipe)
    meshes = list(mesh_choices(recipe, config, hardware))
    if not meshes:
        raise ValueError(
            f"{hardware.devices} devices cannot divide train.batch_tokens {recipe.train.batch_tokens} evenly; "
            "--hardware.devices changes their number"
        )
    kinds = [with_recompute(recipe, kind) for kind in recompute]
    workloads = (
        Workload(kind, config, hardware, mesh, micro, packed_bytes) for mesh, micro in meshes for kind in kinds
    )
    fitting = [workload for workload in workloads if needed(workload) <= 1.0]
    if fitting:
        return predict(min(fitting, key=lambda workload: seconds(workload).total))

    def least(devices: int) -> float:
        machine = dataclasses.replace(hardware, devices=devices)
        choices = mesh_choices(recipe, config, machine, most=1)
        lean = (Workload(kinds[-1], config, machine, mesh, micro, packed_bytes) for mesh, micro in choices)
        return min((needed(workload) for workload in lean), default=math.inf)

    gigabytes = least(hardware.devices) * MEMORY_UTILIZATION * hardware.memory
    more = (hardware.devices * 2**power for power in range(1, DOUBLINGS + 1))
    enough = next((devices for devices in more if least(devices) <= 1.0), None)
    raise ValueError(
        f"{recipe.name} does not fit on {hardware.devices} x {hardware.name}: the leanest mesh needs "
        f"{gigabytes:.1f} GB and each has {hardware.memory}; "
        + (f"it fits on {enough}" if enough else "no number of devices that was tried is enough")
    )


def needed(workload: Workload) -> float:
    """Memory of a workload as a fraction of what it may use."""
    return memory(workload).total / (MEMORY_UTILIZATION * 1e9 * workload.hardware.memory)


def mesh_choices(
    recipe: TrainRecipe, config: GPTConfig, hardware: Hardware, most: int | None = None
) -> Iterator[tuple[dict[str, int], int]]:
    """Every mesh that uses all devices and divides the model, with the `most` smallest micro-batches of the batch, if
    these are at least as many as the pipeline's stages."""
    length, rows = recipe.data.sequence_length, recipe.batch_rows
    for tensor in divisors(min(hardware.node, hardware.devices)) if recipe.lora is None else [1]:
        for pipeline in divisors(hardware.devices // tensor):
            data = hardware.devices // (tensor * pipeline)
            if hardware.devices % tensor or rows % data:
                continue
            try:
                check_mesh_sizes({"tensor": tensor, "pipeline": pipeline}, config, length)
            except ValueError:
                continue
            for shard in divisors(data):
                mesh = {"replicate": data // shard, "shard": shard, "tensor": tensor, "pipeline": pipeline}
                for micro in divisors(rows // data)[:most]:
                    if rows // data >= micro * pipeline:
                        yield mesh, micro * length
