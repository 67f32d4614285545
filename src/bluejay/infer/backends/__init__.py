"""The interface between the scheduler and what runs the model: a step of a ragged batch over a paged cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from bluejay.gpt.config import GPTConfig


@dataclass(frozen=True)
class StepBatch:
    """New tokens of B sequences, one or many of each; all numbers are int32."""

    tokens: Int[np.ndarray, " T"]
    """The T new tokens of all sequences, concatenated."""
    starts: Int[np.ndarray, " B1"]
    """The offset in `tokens` at which the new tokens of each sequence begin, and T as the last of B + 1 numbers."""
    lengths: Int[np.ndarray, " B"]
    """The number of cached tokens of each sequence, which is the position of its first new token."""
    pages: Int[np.ndarray, "B P"]
    """The page numbers of each sequence in order, padded with -1, including the pages for its new tokens."""
    wanted: Int[np.ndarray, " R"]
    """Indices into `tokens` of the R new tokens whose logits are wanted, none below the one before it."""


@runtime_checkable
class Backend(Protocol):
    """A model with its key-value cache."""

    config: GPTConfig
    page_size: int
    """Number of tokens whose keys and values one page holds."""
    n_pages: int
    """Number of pages in the cache."""

    def step(self, batch: StepBatch) -> Float[Tensor, "R V"]:
        """Store the keys and values of the new tokens, and return the float32 logits of the wanted ones, in order."""
        ...

    def copy_page(self, source: int, target: int) -> None:
        """Copy the keys and values in page `source` to page `target`."""
        ...


def checked_logits(backend: Backend, batch: StepBatch) -> Float[Tensor, "R V"]:
    """The logits of a step. Raises ValueError if they are not all finite, naming a weight that is the cause if the
    backend has `weights` and one of them is not finite either."""
    logits = backend.step(batch)
    if logits.isfinite().all():
        return logits
    weights: Mapping[str, Tensor] = getattr(backend, "weights", {})
    for name, weight in weights.items():
        if not weight.isfinite().all():
            kind = "NaN" if weight.isnan().any() else "infinity"
            raise ValueError(f"the logits of the model are not numbers, because its {name} holds {kind}")
    raise ValueError("the logits of the model are not numbers; its activations are too large for the type it runs in")
