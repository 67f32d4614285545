"""The interface between the scheduler and what runs the model: a step of a ragged batch over a paged cache."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from bluejay.gpt.config import GPTConfig
from bluejay.infer.exceptions import LogitsError


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
    """Indices into `tokens` of the R new tokens whose logits are wanted, at most T, none below the one before it."""

    @classmethod
    def of(
        cls,
        tokens: Sequence[int],
        starts: Sequence[int] | np.ndarray,
        lengths: Sequence[int],
        pages: Sequence[list[int]],
        wanted: Sequence[int] | np.ndarray,
    ) -> "StepBatch":
        """A batch from lists; those of `pages` may have different lengths."""
        width = max(map(len, pages))
        padded = [numbers + [-1] * (width - len(numbers)) for numbers in pages]
        return cls(*(np.array(values, np.int32) for values in (tokens, starts, lengths, padded, wanted)))


@runtime_checkable
class Backend(Protocol):
    """A model with its key-value cache."""

    config: GPTConfig
    page_size: int
    """Number of tokens whose keys and values one page holds."""
    n_pages: int
    """Number of pages in the cache."""
    prompt_factor: int
    """How many times as many tokens of prompts a step computes as on a CPU."""

    def step(self, batch: StepBatch) -> Float[Tensor, "R V"]:
        """Store the keys and values of the new tokens, and return the float32 logits of the wanted ones, in order."""
        ...

    def draw(
        self, logits: Float[Tensor, "R V"], filters: Float[np.ndarray, "R 5"], uniforms: Float[np.ndarray, " R"]
    ) -> list[int]:
        """A token for each row of logits, as `bluejay.infer.sampling.draw` draws it."""
        ...

    def hidden(self, batch: StepBatch) -> Float[Tensor, "R D"]:
        """As `step`, but return the float32 hidden states of the wanted tokens, which are the input of the head."""
        ...

    def score(self, batch: StepBatch, targets: Int[np.ndarray, " R"]) -> Float[Tensor, "R 2"]:
        """As `step`, but return for each wanted token the log-probability that the token in `targets` follows, and by
        how much its logit falls short of the largest one. Here a token may be wanted several times in succession, with
        a target each."""
        ...

    def copy_page(self, source: int, target: int) -> None:
        """Copy the keys and values in page `source` to page `target`."""
        ...

    def clear(self) -> None:
        """Forget all keys and values if some that are not finite would change the result of later steps."""
        ...


def context_of(backend: Backend) -> int:
    """Tokens of the longest sequence that a backend can run: the model's context, if its cache holds as many."""
    return min(backend.config.n_ctx, backend.n_pages * backend.page_size)


def checked(backend: Backend, computed: Float[Tensor, "R X"]) -> Float[Tensor, "R X"]:
    """What a step computed. If it is not all finite, clears the backend and raises LogitsError, which names a weight
    that is the cause if the backend has `weights` and one of them is not finite either."""
    # The sum is found faster, and all but always finite. Threads of torch would be in the way of the native engine's.
    with np.errstate(all="ignore"):
        total = computed.numpy().sum() if computed.device.type == "cpu" else computed.sum().item()
    if np.isfinite(total) or computed.isfinite().all():
        return computed
    backend.clear()
    weights: Iterable[tuple[str, Tensor]] = getattr(backend, "weights", ())
    for name, weight in weights:
        if not weight.isfinite().all():
            kind = "NaN" if weight.isnan().any() else "infinity"
            raise LogitsError(f"the logits of the model are not numbers, because its {name} holds {kind}")
    raise LogitsError("the logits of the model are not numbers; its activations are too large for the type it runs in")
