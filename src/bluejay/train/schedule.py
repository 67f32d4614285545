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
        for name in ("warmup", "decay", *(["cooldown"] if self.kind == "wsd" else [])):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(
                    f"train.schedule.{name} is {value:g}; it is a fraction of the run, such as 0.01: "
                    "N steps of M are N/M"
                )
        if not 0 <= self.final <= 1:
            raise ValueError(f"train.schedule.final is {self.final:g}; it is a fraction of train.lr, from 0 to 1")
        if not self.warmup < self.decay:
            raise ValueError(f"train.schedule.warmup is {self.warmup:g}; it must be below decay, {self.decay:g}")
        if self.kind == "wsd" and not 0 < self.cooldown <= 1 - self.warmup:
            raise ValueError(
                f"train.schedule.cooldown is {self.cooldown:g}; it must be above 0 and at most 1 - warmup, "
                f"{1 - self.warmup:g}"
            )

    def check_used(self) -> None:
        """Raise ValueError, naming it, if a field is set that this kind of schedule does not use, or if the rate is 0
        before the end of the run."""
        for name, kind in (("decay", "cosine"), ("cooldown", "wsd")):
            if self.kind != kind and (value := getattr(self, name)) != getattr(Schedule, name):
                raise ValueError(
                    f'train.schedule.{name} is {value:g}, and only a schedule of kind "{kind}" uses it; '
                    f'leave it out, or set train.schedule.kind = "{kind}" in place of "{self.kind}"'
                )
        if self.kind == "cosine" and self.final == 0 and self.decay < 1:
            raise ValueError(
                f"train.schedule.final is 0 and decay {self.decay:g}, so that the steps after this share of the run "
                "would change nothing; raise final, or leave decay out"
            )

    def cooldown_step(self, steps: int) -> int:
        """Number of steps before the cooldown in a run of `steps` steps; all of them if the kind has no cooldown."""
        return steps - math.ceil(self.cooldown * steps) if self.kind == "wsd" else steps


def learning_rate(step: int, steps: int, peak: float, schedule: Schedule) -> float:
    """Learning rate of a step, counted from 0, in a run of `steps` steps. A floor that is reached at the end of the run
    is the rate of the step after the last, so that with a floor of 0 every step changes the weights."""
    warmup, decay = schedule.warmup * steps, schedule.decay * steps
    if step < warmup:
        return peak * (step + 1) / (math.floor(warmup) + 1)
    stable = schedule.cooldown_step(steps)
    above = 1.0  # the way from the floor to the peak
    if schedule.kind == "cosine":
        above = (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, decay - warmup)))) / 2
    elif step >= stable:
        above = 1 - math.sqrt((step - stable) / (steps - stable))
    return peak * (schedule.final + (1 - schedule.final) * above)
