"""The learning rate of each step of a run."""

import math
from dataclasses import dataclass
from typing import Literal

from bluejay.recipe import STRICT


@dataclass(frozen=True)
class Schedule:
    """Learning-rate schedule: a linear warm-up, then one of three kinds."""

    __pydantic_config__ = STRICT
    kind: Literal["cosine", "constant", "wsd"] = "cosine"
    """After the warm-up, "cosine" decays to the floor and stays there (GPT-3, appendix B); "constant" stays at the
    peak; "wsd" (warm-up, stable, decay) does until a cooldown along 1 - sqrt (Haegele et al. 2024, section 3)."""
    warmup: float = 0.01
    """Fraction of the run during which the learning rate rises from 0 to its peak."""
    decay: float = 1.0
    """Fraction of the run after which the learning rate of "cosine" stays at its floor."""
    cooldown: float = 0.2
    """Last fraction of the run, in which the learning rate of "wsd" falls to its floor."""
    final: float = 0.1
    """Floor of the learning rate, as a fraction of the peak."""

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < self.decay <= 1 or not 0 <= self.final <= 1:
            raise ValueError("train.schedule needs 0 <= warmup < decay <= 1 and 0 <= final <= 1")
        if self.kind == "wsd" and not 0 < self.cooldown <= 1 - self.warmup:
            raise ValueError("train.schedule needs cooldown above 0 and at most 1 - warmup")

    def cooldown_step(self, steps: int) -> int:
        """Number of steps before the cooldown in a run of `steps` steps; all of them if the kind has no cooldown."""
        return steps - math.ceil(self.cooldown * steps) if self.kind == "wsd" else steps


def learning_rate(step: int, steps: int, peak: float, schedule: Schedule) -> float:
    """Learning rate of a step, counted from 0, in a run of `steps` steps (`bluejay.train.recipe.Schedule`)."""
    warmup, decay = schedule.warmup * steps, schedule.decay * steps
    if step < warmup:
        return peak * (step + 1) / (math.floor(warmup) + 1)
    stable = schedule.cooldown_step(steps)
    above = 1.0  # the way from the floor to the peak
    if schedule.kind == "cosine":
        above = (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, decay - warmup)))) / 2
    elif step >= stable:
        above = 1 - math.sqrt((step + 1 - stable) / (steps - stable))
    return peak * (schedule.final + (1 - schedule.final) * above)
