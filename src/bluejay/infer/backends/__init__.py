"""What runs the model: one step of a ragged batch over a cache of pages. The scheduler knows nothing else of it."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from bluejay.gpt.config import GPTConfig


@dataclass(frozen=True)
class StepBatch:
    """New tokens of B sequences, one after the other, each with one or many; all numbers are int32."""

    tokens: Int[np.ndarray, " T"]
    """All new tokens of all sequences, end to end."""
    starts: Int[np.ndarray, " B1"]
    """Where each sequence's new tokens begin in `tokens`, and, last, where they all end (B + 1 numbers)."""
    lengths: Int[np.ndarray, " B"]
    """Tokens of each sequence that are in the cache already: the position of its first new one."""
    pages: Int[np.ndarray, "B P"]
    """The pages of each sequence in order, padded with -1. Those that the new tokens need are among them."""
    wanted: Int[np.ndarray, " R"]
    """The new tokens whose logits are wanted, as ascending indices into `tokens`."""


@runtime_checkable
class Backend(Protocol):
    """A model with its key-value cache."""

    config: GPTConfig
    page: int
    """Tokens whose keys and values one page holds."""
    n_pages: int
    """Pages there are, which bounds the memory."""

    def step(self, batch: StepBatch) -> Float[Tensor, "R V"]:
        """Store the keys and values of the new tokens; the float32 logits of those wanted come back, in order."""
        ...

    def copy_page(self, source: int, target: int) -> None:
        """Make page `target` hold what `source` holds."""
        ...
