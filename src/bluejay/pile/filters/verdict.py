"""What a rule says of the texts of a batch."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Reasons: TypeAlias = NDArray[np.object_]
"""For each text why it is dropped, None where it is kept."""


def first_reason(*checks: tuple[str, NDArray[np.bool_]]) -> Reasons:
    """For each text the reason of the first check that holds, None where none does."""
    reasons = np.full(len(checks[0][1]), None, np.object_)
    for reason, holds in reversed(checks):
        reasons[holds] = reason
    return reasons


def share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """part / whole, and 0 of nothing."""
    return part / np.maximum(whole, 1)
