"""Spikes: steps that are skipped because their loss or gradient is not finite or far above that of recent steps."""

import dataclasses
import math
import statistics

from bluejay.train.checkpoint.state import State
from bluejay.train.recipe import Guard
from bluejay.train.step import Gradient

SPIKE_WINDOW = 128
"""Recent steps that a step is compared with, at least half of them (as in OLMo-core, `skip_step_optimizer.py`)."""
MAX_ROLLBACKS = 3
"""How often a run may roll back to the same checkpoint before it stops with an error."""


def spike_reason(gradient: Gradient, state: State, settings: Guard) -> str | None:
    """Why a gradient should not be applied, in a few words; None if it should."""
    recent = state.recent if settings.spike != "keep" and len(state.recent) >= SPIKE_WINDOW // 2 else ()
    for name, value, window in (
        ("loss", gradient.loss, [loss for loss, _ in recent]),
        ("gradient norm", gradient.norm, [norm for _, norm in recent]),
    ):
        if not math.isfinite(value):
            return f"its {name} is {value}"
        if window:
            mean, sigma = statistics.fmean(window), statistics.pstdev(window)
            if value > mean + settings.sigma * sigma:
                return f"its {name} is {value:.3g}, and that of recent steps {mean:.3g} ± {sigma:.2g}"
    return None


def advance(state: State, gradient: Gradient, problem: str | None, settings: Guard) -> State:
    """The state after a step, which was skipped if a `problem` is given."""
    if problem is not None:
        return dataclasses.replace(
            state, step=state.step + 1, skipped=state.skipped + 1, consecutive_skips=state.consecutive_skips + 1
        )
    recent = (*state.recent, (gradient.loss, gradient.norm))[-SPIKE_WINDOW:] if settings.spike != "keep" else ()
    return dataclasses.replace(state, step=state.step + 1, consecutive_skips=0, recent=recent)
