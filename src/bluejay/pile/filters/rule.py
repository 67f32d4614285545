"""What a filter is made of: rules, which say for each text of a batch why it is dropped."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bluejay.pile.text.text_batch import TextBatch

Reasons: TypeAlias = NDArray[np.object_]
"""For each text the reason why it is dropped, None where it is kept: (n,)."""
Rule: TypeAlias = Callable[[TextBatch], tuple[TextBatch, Reasons]]
"""Texts to texts, which the rule may have shortened, and the reasons."""


def dropping(reasons: Callable[[TextBatch], Reasons]) -> Rule:
    """A rule that changes no text."""
    return lambda batch: (batch, reasons(batch))


def first_reason(*checks: tuple[str, NDArray[np.bool_]]) -> Reasons:
    """For each text the reason of the first check that holds, None where no check holds."""
    reasons = np.full(len(checks[0][1]), None, np.object_)
    for reason, holds in reversed(checks):
        reasons[holds] = reason
    return reasons


def share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """part / whole; 0 where the whole is 0."""
    return part / np.maximum(whole, 1)


def split_threshold(name: str, usage: str, default: float) -> tuple[str, float]:
    """Split "kind:value>threshold" into value and threshold. Raises ValueError: the name has another form."""
    value, found, number = name.partition(":")[2].partition(">")
    try:
        threshold = float(number) if found else default
    except ValueError:
        threshold = -1.0
    if not value or not threshold > 0:
        raise ValueError(f"the filter {name!r} was not understood; write {usage}")
    return value, threshold
