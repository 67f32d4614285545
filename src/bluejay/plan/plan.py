"""Plans of training runs: whether a run fits in memory, how long it takes, what it costs."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import open_model
from bluejay.gpt.formats.locate import locate
from bluejay.gpt.presets import PRESETS
from bluejay.plan.hardware import Hardware
from bluejay.plan.memory import Memory, memory
from bluejay.plan.remedies import remedies
from bluejay.plan.timing import Seconds, seconds
from bluejay.plan.workload import Workload
from bluejay.progress import format_duration
from bluejay.train.distributed.parallel import check_mesh_sizes, check_micro_batches
from bluejay.train.initial import check_initial, initial_model
from bluejay.train.recipe import TrainRecipe

SPREAD = (0.6, 1.5)
"""Time of published runs in relation to their plans, from the least to the most (docs/planning.md)."""


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
    recompute: str
    """Kind of recomputation."""
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
    remedies: tuple[str, ...] = ()
    """If the run does not fit, changes of the recipe each of which would make it fit."""

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
            "mesh": f"{axes}; a step is {self.micro_batches:,} micro-batches of {self.micro_batch_tokens:,} tokens; "
            f"recompute {self.recompute}",
            "memory": f"{render_sum(self.memory, 1e-9)} = {used:.1f} of {capacity:.1f} GB: {fits}",
            "step": f"{render_sum(self.seconds, 1.0)} = {self.seconds.total:.3g} s",
            "speed": f"{self.tokens_per_second:,.0f} tokens/s, {self.share_of_peak:.1%} of the matrix products' peak",
            "fits if": "; or ".join(self.remedies),
            "run": f"{self.steps:,} steps, {self.tokens:,} tokens, {self.flops:.3g} FLOPs, "
            + format_duration(86_400 * self.days)
            + (f", ${self.cost:,.{0 if self.cost >= 10 else 2}f}" if self.price else "")
            + f"; published runs took {SPREAD[0]} to {SPREAD[1]} times their plans",
        }
        head = f"{self.recipe} on {self.devices:,} x {self.hardware}"
        return "\n".join([head, *(f"  {name:<8}{text}" for name, text in rows.items() if text)])


def plan(recipe: TrainRecipe, hardware: Hardware) -> Plan:
    """The plan of a recipe with its own mesh. Raises ValueError if that does not match model, batch and hardware."""
    try:
        mesh = recipe.mesh.sizes(hardware.devices)
        rows = recipe.micro_batch_rows(mesh["replicate"] * mesh["shard"])
    except ValueError as error:
        reason = str(error).partition(";")[0]
        raise ValueError(f"{reason}; --best finds a mesh, --hardware.devices changes the number of devices") from None
    micro = rows * recipe.data.sequence_length
    config, packed_bytes = model_of(recipe)
    check_mesh_sizes(mesh, config, recipe.data.sequence_length)
    workload = Workload(recipe, config, hardware, mesh, micro, packed_bytes)
    check_micro_batches(workload.micro_batches, mesh["pipeline"])
    return predict(workload)


def predict(workload: Workload) -> Plan:
    """The plan of a workload: all predicted values."""
    recipe, hardware, step = workload.recipe, workload.hardware, seconds(workload)
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
        recompute=recipe.train.recompute,
        memory=memory(workload),
        capacity=1e9 * hardware.memory,
        seconds=step,
        steps=recipe.steps,
        tokens=tokens,
        flops=flops,
        share_of_peak=flops / recipe.steps / step.total / peak,
        price=hardware.price,
        remedies=remedies(workload),
    )


def model_of(recipe: TrainRecipe) -> tuple[GPTConfig, int]:
    """The model of a recipe, and the bytes of that which it starts from if that is quantised, else 0.

    Neither corpus nor weights need to exist: `model.vocab_size` replaces the former, a preset's name in `init` the
    latter. Raises ValueError if the model that it starts from cannot be trained so.
    """
    if recipe.init is None:
        given = "vocab_size" in recipe.model
        return recipe.gpt_config(1) if given else initial_model(recipe).config, 0
    if recipe.init in PRESETS and not Path(recipe.init).exists():
        config, packed_bytes = PRESETS[recipe.init], 0
    else:
        stored = open_model(locate(recipe.init))
        config, packed_bytes = stored.config, stored.n_bytes if stored.packed else 0
    check_initial(recipe, config)
    return config, packed_bytes


def shape_of(recipe: TrainRecipe) -> tuple[int, int]:
    """Tokens of a micro-batch, and the width of the model, for `bluejay.plan.hardware.measure`."""
    return recipe.micro_batch_rows(1) * recipe.data.sequence_length, model_of(recipe)[0].d_model


def render_sum(values: Memory | Seconds, factor: float) -> str:
    """The summands times `factor`, without negligible ones."""
    items = {name: value * factor for name, value in dataclasses.asdict(values).items()}
    return " + ".join(f"{name} {value:.3g}" for name, value in items.items() if value > 1e-3 * sum(items.values()))
