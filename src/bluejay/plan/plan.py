"""Plans of training runs: whether a run fits in memory, how long it takes, what it costs; and the fastest mesh."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import open_model
from bluejay.gpt.formats.locate import locate
from bluejay.gpt.presets import PRESETS
from bluejay.plan.estimate import Memory, Seconds, Workload
from bluejay.plan.hardware import Hardware
from bluejay.progress import format_duration
from bluejay.train.distributed.parallel import check_mesh_sizes
from bluejay.train.initial import initial_model
from bluejay.train.recipe import TrainRecipe

MEMORY_UTILIZATION = 0.9
"""Fraction of a device's memory that a mesh found by `best` may use: the estimate is not exact."""


@dataclass(frozen=True)
class Plan:
    """The predicted memory, time and cost of a run."""

    recipe: str
    """Name of the recipe."""
    hardware: str
    """Name of the hardware."""
    devices: int
    """Number of devices."""
    mesh: dict[str, int]
    """Size of each mesh axis."""
    micro_batch_tokens: int
    """Tokens of a micro-batch on one device."""
    micro_batches: int
    """Micro-batches of a step on each device."""
    memory: Memory
    """Bytes that the device with the highest need uses."""
    capacity: float
    """Bytes of memory of a device."""
    seconds: Seconds
    """Seconds of a step."""
    steps: int
    """Optimizer steps of the run."""
    tokens: int
    """Training tokens of the run."""
    flops: float
    """FLOPs of the whole run without recomputation (PaLM, appendix B)."""
    share_of_peak: float
    """Model FLOPs utilisation (PaLM, appendix B), from 0 to 1."""
    price: float
    """US dollars for a device and hour."""

    @property
    def fits(self) -> bool:
        """Whether the run fits in the memory of each device."""
        return self.memory.total <= self.capacity

    @property
    def tokens_per_second(self) -> float:
        """Training tokens per second of all devices together."""
        return self.tokens / (self.steps * self.seconds.total)

    @property
    def days(self) -> float:
        """Duration of the run in days, without interruptions."""
        return self.steps * self.seconds.total / 86_400

    @property
    def cost(self) -> float:
        """Cost of the run in US dollars."""
        return self.days * 24 * self.devices * self.price

    def as_dict(self) -> dict[str, Any]:
        """All fields and derived values, for `--json`."""
        derived = ("fits", "tokens_per_second", "days", "cost")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in derived}

    def table(self) -> str:
        """A readable summary in several lines."""
        axes = " x ".join(f"{name} {size}" for name, size in self.mesh.items())
        fits = "fits" if self.fits else "DOES NOT FIT"
        used, capacity = self.memory.total / 1e9, self.capacity / 1e9
        rows = {
            "mesh": f"{axes}; a step is {self.micro_batches:,} micro-batches of {self.micro_batch_tokens:,} tokens",
            "memory": f"{render_sum(self.memory, 1e-9)} = {used:.1f} of {capacity:.1f} GB: {fits}",
            "step": f"{render_sum(self.seconds, 1.0)} = {self.seconds.total:.3g} s",
            "speed": f"{self.tokens_per_second:,.0f} tokens/s, {self.share_of_peak:.1%} of the matrix products' peak",
            "run": f"{self.steps:,} steps, {self.tokens:,} tokens, {self.flops:.3g} FLOPs, "
            + format_duration(86_400 * self.days)
            + (f", ${self.cost:,.0f}" if self.price else ""),
        }
        head = f"{self.recipe} on {self.devices:,} x {self.hardware}"
        return "\n".join([head, *(f"  {name:<8}{text}" for name, text in rows.items())])


def plan(recipe: TrainRecipe, hardware: Hardware) -> Plan:
    """The plan of a recipe with its own mesh. Raises ValueError if the mesh does not match model and hardware."""
    try:
        mesh = recipe.mesh.sizes(hardware.devices)
    except ValueError as error:
        reason = str(error).partition(";")[0]
        raise ValueError(f"{reason}; --best finds a mesh, --hardware.devices changes the number of devices") from None
    micro = recipe.micro_batch_rows(mesh["replicate"] * mesh["shard"]) * recipe.data.sequence_length
    config, frozen_bytes = model_of(recipe)
    check_mesh_sizes(mesh, config, recipe.data.sequence_length)
    return predict(Workload(recipe, config, hardware, mesh, micro, frozen_bytes))


def best(recipe: TrainRecipe, hardware: Hardware) -> Plan:
    """The plan with the fastest mesh and micro-batch that fit in memory. Raises ValueError if none does."""
    config, frozen_bytes = model_of(recipe)
    workloads = [
        Workload(recipe, config, hardware, mesh, micro, frozen_bytes)
        for mesh, micro in mesh_choices(recipe, config, hardware)
    ]
    if not workloads:
        raise ValueError(
            f"{hardware.devices} devices cannot divide train.batch_tokens {recipe.train.batch_tokens} evenly"
        )
    fitting = [
        workload for workload in workloads if workload.memory().total <= MEMORY_UTILIZATION * 1e9 * hardware.memory
    ]
    if not fitting:
        least = min(workload.memory().total for workload in workloads)
        raise ValueError(
            f"{recipe.name} does not fit on {hardware.devices} x {hardware.name}: the leanest mesh needs "
            f"{least / 1e9:.1f} GB and each has {hardware.memory}; more devices help, or train.recompute = 'full'"
        )
    return predict(min(fitting, key=lambda workload: workload.seconds().total))


def mesh_choices(recipe: TrainRecipe, config: GPTConfig, hardware: Hardware) -> Iterator[tuple[dict[str, int], int]]:
    """Every mesh that uses all devices and divides the model, with every micro-batch of 1, 2, 4, ... sequences."""
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
                micro = 1
                while rows // data % micro == 0:
                    yield mesh, micro * length
                    micro *= 2


def divisors(n: int) -> list[int]:
    """The divisors of n in ascending order."""
    return [d for d in range(1, n + 1) if n % d == 0]


def predict(workload: Workload) -> Plan:
    """The plan of a workload: all predicted values."""
    recipe, hardware, seconds = workload.recipe, workload.hardware, workload.seconds()
    tokens = recipe.steps * recipe.train.batch_tokens
    config = dataclasses.replace(workload.config, n_ctx=recipe.data.sequence_length)
    flops = tokens * config.flops_per_token * workload.products / 3
    peak = hardware.devices * hardware.rate(workload.precision)
    return Plan(
        recipe=recipe.name,
        hardware=hardware.name,
        devices=hardware.devices,
        mesh=workload.mesh,
        micro_batch_tokens=workload.micro,
        micro_batches=workload.micro_batches,
        memory=workload.memory(),
        capacity=1e9 * hardware.memory,
        seconds=seconds,
        steps=recipe.steps,
        tokens=tokens,
        flops=flops,
        share_of_peak=flops / recipe.steps / seconds.total / peak,
        price=hardware.price,
    )


def model_of(recipe: TrainRecipe) -> tuple[GPTConfig, float]:
    """The model of a recipe, and the bytes of its frozen weights.

    Neither corpus nor weights need to exist: `model.vocab_size` replaces the former, a preset's name in `init` the
    latter.
    """
    if recipe.init is None:
        given = recipe.model.get("vocab_size")
        return recipe.gpt_config(int(given)) if given else initial_model(recipe).config, 0.0
    if recipe.init in PRESETS and not Path(recipe.init).exists():
        config, size = PRESETS[recipe.init], 2 * PRESETS[recipe.init].n_parameters
    else:
        stored = open_model(locate(recipe.init))
        config, size = stored.config, stored.n_bytes if stored.packed else 2 * stored.config.n_parameters
    return config, float(size) if recipe.lora else 0.0


def shape_of(recipe: TrainRecipe) -> tuple[int, int]:
    """Tokens of a micro-batch, and the width of the model, for `bluejay.plan.hardware.measure`."""
    return recipe.micro_batch_rows(1) * recipe.data.sequence_length, model_of(recipe)[0].d_model


def render_sum(values: Memory | Seconds, factor: float) -> str:
    """The summands times `factor`, without negligible ones."""
    items = {name: value * factor for name, value in dataclasses.asdict(values).items()}
    return " + ".join(f"{name} {value:.3g}" for name, value in items.items() if value > 1e-3 * sum(items.values()))
