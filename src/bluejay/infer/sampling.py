"""Choosing the next token: penalties, temperature, top-k, top-p, min-p, typical-p, in Hugging Face's order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bluejay.infer.params import SamplingParams

SHORTLIST = 1024
"""Likeliest tokens among which the cut of top-p is looked for first."""


LogitsProcessor = Callable[[list[int], Tensor], Tensor]
"""Gets the tokens that a sample has generated and the logits (V) of its next one; gives back those to draw from.

It is called once for every token of its sample, in order, so it may keep a state: a constraint on the text's form, for
one."""


@dataclass(frozen=True)
class Logprob:
    """How likely a model finds a token, before temperature and penalties."""

    token: int
    logprob: float
    """Natural logarithm of its probability."""
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens and theirs, the likeliest first, as many as were asked for."""


def logprobs_of(logits: Float[Tensor, "R V"], tokens: Sequence[int], n_top: int) -> list[Logprob]:
    """How likely each row of logits makes its token."""
    logprobs = logits.float().log_softmax(-1)
    chosen = logprobs.gather(1, torch.tensor(tokens, dtype=torch.long, device=logits.device)[:, None])[:, 0].tolist()
    values, ids = logprobs.topk(min(n_top, logits.shape[1]))
    tops = [tuple(zip(*pair, strict=True)) for pair in zip(ids.tolist(), values.tolist(), strict=True)]
    return [Logprob(*one) for one in zip(tokens, chosen, tops, strict=True)]


def penalised(
    logits: Float[Tensor, " V"], params: SamplingParams, tokens: list[int], n_prompt: int
) -> Float[Tensor, " V"]:
    """Logits with the penalties for `tokens`, of which `n_prompt` are the prompt, and with the biases."""
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
    """The tokens that may be drawn: their probabilities, up to a common factor, and their ids."""
    logits = logits.float()
    if params.temperature == 0:
        return torch.ones(1, device=logits.device), logits.argmax()[None]
    logits = (logits - logits.max()) / max(params.temperature, 1e-30)  # float32 makes a zero of what is far below
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
    """The likeliest tokens whose probabilities sum to top_p, the likeliest first: probabilities and ids."""
    # Mostly they are few, and finding the likeliest thousand is ten times faster than sorting them all.
    for size in (min(SHORTLIST, probabilities.numel()), probabilities.numel()):
        ordered, ids = probabilities.topk(size)
        keep = ordered.cumsum(-1) - ordered < top_p
        if not keep[-1]:
            break
    keep[0] = True  # also at top_p 0
    return ordered[keep], ids[keep]


def typical(probabilities: Float[Tensor, " C"], mass: float) -> Int[Tensor, " K"]:
    """Which tokens have a surprise closest to its expectation, as many as sum to `mass`."""
    surprise = -probabilities.log()
    expected = torch.special.entr(probabilities).sum()
    _, order = (surprise - expected).abs().sort(stable=True)
    return order[: int((probabilities[order].cumsum(-1) < mass).sum()) + 1]


def sample(logits: Float[Tensor, " V"], params: SamplingParams, generator: torch.Generator) -> int:
    """Draw one token id. `generator` lives on the CPU, so that a seed means the same on every device."""
    if params.temperature == 0:
        return int(logits.argmax())
    probabilities, ids = candidates(logits, params)
    if len(ids) == 1:
        return int(ids)
    cumulative = probabilities.double().cumsum(-1).cpu()
    drawn = torch.rand((), dtype=torch.float64, generator=generator) * cumulative[-1]
    return int(ids[torch.searchsorted(cumulative, drawn, right=True)])
