"""Choosing the next token: temperature, then top-k, then top-p, the order that Hugging Face applies them in."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

SHORTLIST = 1024
"""Likeliest tokens among which the cut of top-p is looked for first."""


@dataclass(frozen=True)
class SamplingParams:
    """How to continue one prompt. Raises ValueError for values outside their range."""

    max_tokens: int = 128
    """Tokens to generate at most; fewer where the context is full before."""
    temperature: float = 0.8
    """Divides the logits; 0 is greedy: always the likeliest token."""
    top_p: float = 0.9
    """Keep the smallest set of likeliest tokens whose probabilities sum to this (Holtzman et al., section 3.1)."""
    top_k: int = 0
    """Keep this many of the likeliest tokens; 0 keeps all."""
    seed: int | None = None
    """The same seed gives the same text; None draws a new one each time."""
    stop: tuple[str, ...] = ()
    """Generation ends before the first of these strings; they are not part of the answer."""
    n: int = 1
    """Samples of the same prompt. Sample i uses seed + i."""

    def __post_init__(self) -> None:
        for name, low, high in (("temperature", 0, 2), ("top_p", 0, 1)):
            value = getattr(self, name)
            if not low <= value <= high:  # NaN fails too
                raise ValueError(f"{name} is {value}; it must be between {low} and {high}")
        for name, low in (("max_tokens", 1), ("top_k", 0), ("n", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {low}")
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; it must fit in 64 bits")
        if "" in self.stop:
            raise ValueError("stop holds an empty string, which would end every answer at once")


def candidates(logits: Float[Tensor, " V"], params: SamplingParams) -> tuple[Float[Tensor, " C"], Int[Tensor, " C"]]:
    """The tokens that may be drawn: their probabilities, up to a common factor, and their ids."""
    logits = logits.float()
    if params.temperature == 0:
        return torch.ones(1, device=logits.device), logits.argmax()[None]
    logits = (logits - logits.max()) / params.temperature  # shifted, so that no temperature is too small
    if 0 < params.top_k < logits.numel():
        logits = logits.masked_fill(logits < logits.topk(params.top_k).values[-1], -torch.inf)
    probabilities = logits.softmax(-1)
    if params.top_p == 1:
        return probabilities, torch.arange(logits.numel(), device=logits.device)
    # Top-p mostly keeps few tokens, and finding the likeliest thousand is ten times faster than sorting them all.
    for size in (min(SHORTLIST, logits.numel()), logits.numel()):
        ordered, ids = probabilities.topk(size)
        keep = ordered.cumsum(-1) - ordered < params.top_p
        if not keep[-1]:
            break
    keep[0] = True  # also at top_p 0
    return ordered[keep], ids[keep]


def sample(logits: Float[Tensor, " V"], params: SamplingParams, generator: torch.Generator) -> int:
    """Draw one token id. `generator` lives on the CPU, so that a seed means the same on every device."""
    probabilities, ids = candidates(logits, params)
    if len(ids) == 1:
        return int(ids)
    cumulative = probabilities.double().cumsum(-1).cpu()
    drawn = torch.rand((), dtype=torch.float64, generator=generator) * cumulative[-1]
    return int(ids[torch.searchsorted(cumulative, drawn, right=True)])
