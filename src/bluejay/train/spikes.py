"""Steps that should not be taken: a loss or a gradient that is no number, or far outside what was usual."""

import dataclasses
import math
import statistics

from bluejay.train.checkpoint.state import State
from bluejay.train.recipe import Guard
from bluejay.train.step import Gradient

WINDOW = 128
"""Steps that say what is usual; half of them are enough to judge (as in OLMo-core, `skip_step_optimizer.py`)."""
MAX_ROLLBACKS = 3
"""How often a run may go back to the same checkpoint before it is given up."""


def spike_reason(gradient: Gradient, state: State, settings: Guard) -> str | None:
    """Why the weights should not take a step along a gradient, in a few words; None where they should."""
    recent = state.recent if settings.spike != "keep" and len(state.recent) >= WINDOW // 2 else ()
    for what, value, usual in (
        ("loss", gradient.loss, [loss for loss, _ in recent]),
        ("gradient norm", gradient.norm, [norm for _, norm in recent]),
    ):
        if not math.isfinite(value):
            return f"its {what} is {value}"
        if usual:
            mean, sigma = statistics.fmean(usual), statistics.pstdev(usual)
            if value > mean + settings.sigma * sigma:
                return f"its {what} is {value:.3g}, and {mean:.3g} ± {sigma:.2g} was usual"
    return None


def advance(state: State, gradient: Gradient, problem: str | None, settings: Guard) -> State:
    """The state after a step that was taken, or that was skipped for a problem."""
    if problem is not None:
        return dataclasses.replace(
            state, step=state.step + 1, skipped=state.skipped + 1, consecutive_skips=state.consecutive_skips + 1
        )
    watched = settings.spike != "keep"
    recent = (*state.recent, (gradient.loss, gradient.norm))[-WINDOW:] if watched else ()
    return dataclasses.replace(state, step=state.step + 1, consecutive_skips=0, recent=recent)
