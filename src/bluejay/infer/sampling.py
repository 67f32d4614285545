"""Choosing the next token: penalties, temperature, top-k, top-p, min-p, typical-p, in Hugging Face's order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bluejay.infer.params import SamplingParams

NUCLEUS_SHORTLIST = 1024
"""Number of likeliest tokens that top-p sorts first; it sorts all only if these do not reach its mass."""


LogitsProcessor = Callable[[list[int], Tensor], Tensor]
"""A function of the tokens that a sample has generated and the logits (V) of its next token; returns new logits (V).

It is called once for every token of its sample, in order, so it may keep state, as a constraint on the text does."""


@dataclass(frozen=True)
class Logprob:
    """The log-probability of a token, before temperature and penalties."""

    token: int
    logprob: float
    """Natural logarithm of the token's probability."""
    top: tuple[tuple[int, float], ...]
    """(token, log-probability) of the likeliest tokens, the likeliest first, as many as were requested."""


def logprobs_of(
    logits: Float[Tensor, "R V"], tokens: Sequence[int], n_top: int, n_tokens: int | None = None
) -> list[Logprob]:
    """The log-probability of one token for each row of logits, with the `n_top` likeliest of the first `n_tokens`.
    Probabilities sum to one over all V, which include the rows that pad the embedding, as in transformers."""
    logprobs = logits.float().log_softmax(-1)
    chosen = logprobs.gather(1, torch.tensor(tokens, dtype=torch.long, device=logits.device)[:, None])[:, 0].tolist()
    drawable = logprobs[:, :n_tokens]
    values, ids = drawable.topk(min(n_top, drawable.shape[1]))
    tops = [tuple(zip(*pair, strict=True)) for pair in zip(ids.tolist(), values.tolist(), strict=True)]
    return [Logprob(*one) for one in zip(tokens, chosen, tops, strict=True)]


def apply_penalties(
    logits: Float[Tensor, " V"], params: SamplingParams, tokens: list[int], n_prompt: int
) -> Float[Tensor, " V"]:
    """Logits with the biases and with the penalties for `tokens`, the first `n_prompt` of which are the prompt."""
    if params.repetition_penalty != 1:
        ids = torch.tensor(tokens, device=logits.device).unique()
        old = logits[ids]
        factor = params.repetition_penalty
        logits = logits.index_copy(0, ids, torch.where(old > 0, old / factor, old * factor))
    if (params.presence_penalty or params.frequency_penalty) and len(tokens) > n_prompt:
        ids, counts = torch.tensor(tokens[n_prompt:], device=logits.device).unique(return_counts=True)
        logits = logits.index_add(0, ids, -params.presence_penalty - params.frequency_penalty * counts.to(logits.dtype))
    if params.logit_bias:
        ids = torch.tensor(list(params.logit_bias), device=logits.device)
        logits = logits.index_add(
            0, ids, torch.tensor(list(params.logit_bias.values()), device=logits.device).to(logits.dtype)
        )
    return logits


def candidates(logits: Float[Tensor, " V"], params: SamplingParams) -> tuple[Float[Tensor, " C"], Int[Tensor, " C"]]:
    """The tokens that may be drawn, as probabilities up to a common factor and ids."""
    logits = logits.float()
    if params.temperature == 0:
        return torch.ones(1, device=logits.device), logits.argmax()[None]
    logits = (logits - logits.max()) / max(params.temperature, 1e-30)  # at tiny temperatures all others become 0
    if 0 < params.top_k < logits.numel():
        logits = logits.masked_fill(logits < logits.topk(params.top_k).values[-1], -torch.inf)
    probabilities = logits.softmax(-1)
    if params.top_p < 1:
        probabilities, ids = nucleus(probabilities, params.top_p)
    else:
        ids = torch.arange(len(probabilities), device=logits.device)
    if params.min_p > 0:
        keep = probabilities >= params.min_p * probabilities.max()
        probabilities, ids = probabilities[keep], ids[keep]
    if params.typical_p < 1:
        keep = typical(probabilities / probabilities.sum(), params.typical_p)
        probabilities, ids = probabilities[keep], ids[keep]
    return probabilities, ids


def nucleus(probabilities: Float[Tensor, " V"], top_p: float) -> tuple[Float[Tensor, " C"], Int[Tensor, " C"]]:
    """The likeliest tokens whose probabilities sum to top_p, as probabilities and ids, the likeliest first."""
    # Usually there are few, and finding the likeliest thousand is ten times faster than sorting all.
    for size in (min(NUCLEUS_SHORTLIST, probabilities.numel()), probabilities.numel()):
        ordered, ids = probabilities.topk(size)
        keep = ordered.cumsum(-1) - ordered < top_p
        if not keep[-1]:
            break
    keep[0] = True  # also at top_p 0
    return ordered[keep], ids[keep]


def typical(probabilities: Float[Tensor, " C"], mass: float) -> Int[Tensor, " K"]:
    """The indices of the tokens whose surprise is closest to its expectation and whose probabilities sum to `mass`."""
    surprise = -probabilities.log()
    expected = torch.special.entr(probabilities).sum()
    _, order = (surprise - expected).abs().sort(stable=True)
    return order[: int((probabilities[order].cumsum(-1) < mass).sum()) + 1]


def draw_token(logits: Float[Tensor, " V"], params: SamplingParams, generator: torch.Generator) -> int:
    """Draw one token id. `generator` is on the CPU, so that a seed gives the same numbers on every device."""
    if params.temperature == 0:
        return int(logits.argmax())
    probabilities, ids = candidates(logits, params)
    if len(ids) == 1:
        return int(ids)
    cumulative = probabilities.double().cumsum(-1).cpu()
    drawn = torch.rand((), dtype=torch.float64, generator=generator) * cumulative[-1]
    return int(ids[torch.searchsorted(cumulative, drawn, right=True)])
