"""Choosing the next token: penalties, temperature, top-k, top-p, min-p, typical-p, in Hugging Face's order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bluejay.infer.params import SamplingParams
from bluejay.native import native

GOLDEN_GAMMA = 0x9E3779B97F4A7C15
"""SplitMix64's distance between two states."""

ALL_BITS = 2**64 - 1

GREEDY = (0.0, 0.0, 1.0, 0.0, 1.0)
"""The filters of a sample that always takes the likeliest token."""

LARGEST_TOP_K = 2**31
"""More than any vocabulary has; a larger `top_k`, which may exceed a float's range, keeps all tokens as well."""

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
    logits: Float[Tensor, "R V"], tokens: Sequence[int], n_top: int, vocab_size: int | None = None
) -> list[Logprob]:
    """The log-probability of one token for each row of logits, with the `n_top` likeliest of the first `vocab_size`.
    Probabilities sum to one over all V, which include the rows that pad the embedding, as in transformers."""
    logprobs = logits.float().log_softmax(-1)
    chosen = logprobs.gather(1, torch.tensor(tokens, dtype=torch.long, device=logits.device)[:, None])[:, 0].tolist()
    drawable = logprobs[:, :vocab_size]
    values, ids = drawable.topk(min(n_top, drawable.shape[1]))
    tops = [tuple(zip(*pair, strict=True)) for pair in zip(ids.tolist(), values.tolist(), strict=True)]
    return [Logprob(*one) for one in zip(tokens, chosen, tops, strict=True)]


def bias_of(params: SamplingParams) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """The token ids and the values of `logit_bias`, whose conversion takes longer than the draw of a token."""
    biases = params.logit_bias or {}
    return torch.tensor(list(biases), dtype=torch.long), torch.tensor(list(biases.values()), dtype=torch.float32)


def apply_penalties(
    logits: Float[Tensor, " V"],
    params: SamplingParams,
    bias: tuple[Int[Tensor, " B"], Float[Tensor, " B"]],
    tokens: list[int],
    n_prompt: int,
) -> Float[Tensor, " V"]:
    """Logits with the biases, as of `bias_of`, and with the penalties for `tokens`, the first `n_prompt` of which are
    the prompt."""
    if params.repetition_penalty != 1:
        ids = torch.tensor(tokens, device=logits.device).unique()
        old = logits[ids]
        factor = params.repetition_penalty
        logits = logits.index_copy(0, ids, torch.where(old > 0, old / factor, old * factor))
    if (params.presence_penalty or params.frequency_penalty) and len(tokens) > n_prompt:
        ids, counts = torch.tensor(tokens[n_prompt:], device=logits.device).unique(return_counts=True)
        logits = logits.index_add(0, ids, -params.presence_penalty - params.frequency_penalty * counts.to(logits.dtype))
    ids, values = bias
    return logits.index_add(0, ids.to(logits.device), values.to(logits)) if len(ids) else logits


def adjusts(params: SamplingParams) -> bool:
    """Whether logits are changed before a token is drawn from them."""
    changes = params.presence_penalty or params.frequency_penalty or params.logit_bias
    return bool(changes) or params.repetition_penalty != 1


def filters_of(params: SamplingParams) -> tuple[float, ...]:
    """The columns of `draw`'s filters."""
    if params.temperature == 0:
        return GREEDY
    return params.temperature, float(min(params.top_k, LARGEST_TOP_K)), params.top_p, params.min_p, params.typical_p


def draw(
    logits: Float[Tensor, "R V"],
    filters: Float[np.ndarray, "R 5"],
    uniforms: Float[np.ndarray, " R"],
    masked: bool = False,
) -> list[int]:
    """A token for each row of logits, drawn with a number between 0 and 1. The token is -1 where logits are not finite,
    unless some may be `masked` by negative infinity. The tokens of a row are taken in the order of their ids, so that a
    number gives the same token on every device."""
    if logits.device.type not in ("cpu", "cuda"):  # others, as Apple's, may have no float64
        logits = logits.float().cpu()
    if native is not None and logits.device.type == "cpu" and logits.dtype == torch.float32:
        return native.draw(logits.numpy(), filters, uniforms, masked)
    cumulative = probabilities(logits.float(), filters).double().cumsum(-1)
    drawn = torch.from_numpy(uniforms).to(logits.device)[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, drawn, right=True)[:, 0].clamp(max=logits.shape[1] - 1)
    return tokens.tolist() if masked else torch.where(logits.isfinite().all(-1), tokens, -1).tolist()


def probabilities(logits: Float[Tensor, "R V"], filters: Float[np.ndarray, "R 5"]) -> Float[Tensor, "R V"]:
    """The probability of each token up to a factor of its row; 0 for those that the filters remove."""
    temperature, top_k, top_p, min_p, typical_p = torch.from_numpy(filters.T[..., None]).float().to(logits.device)
    uses = dict(zip(("temperature", "top_k", "top_p", "min_p", "typical_p"), filters.T, strict=True))
    likeliest = F.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature.clamp(min=1e-30)  # tiny ones leave one token
    if uses["top_k"].any():
        k = torch.where(top_k > 0, top_k, logits.shape[-1]).clamp(max=logits.shape[-1]).long()
        least = logits.sort(descending=True).values.gather(-1, k - 1)
        logits = logits.masked_fill(logits < least, -torch.inf)
    kept = logits.softmax(-1)
    if (uses["top_p"] < 1).any():
        ordered, ids = kept.sort(descending=True, stable=True)
        keep = (ordered.cumsum(-1) - ordered < top_p) | (top_p >= 1)
        keep[:, 0] = True  # also at top_p 0
        kept = kept.scatter(-1, ids, ordered * keep)
    if uses["min_p"].any():
        kept = kept * (kept >= min_p * kept.amax(-1, keepdim=True))
    if (uses["typical_p"] < 1).any():
        kept = kept * (typical(kept / kept.sum(-1, keepdim=True), typical_p) | (typical_p >= 1))
    return torch.where(temperature == 0, likeliest, kept)


def typical(probabilities: Float[Tensor, "R V"], mass: Float[Tensor, "R 1"]) -> Bool[Tensor, "R V"]:
    """Whether a token is one of those whose surprise is closest to its expectation and whose probabilities sum to
    `mass`."""
    expected = torch.special.entr(probabilities).sum(-1, keepdim=True)
    distance = torch.where(probabilities > 0, (-probabilities.log() - expected).abs(), torch.inf)
    order = distance.sort(stable=True).indices
    before = probabilities.gather(-1, order).cumsum(-1).roll(1, -1)
    before[:, 0] = 0
    return torch.zeros_like(probabilities, dtype=torch.bool).scatter(-1, order, before < mass.clamp(min=1e-30))


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) for a seed and a position: the output of the generator SplitMix64 that starts at the hash of
    the seed (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014, figure 17)."""
    return (mixed(mixed(seed) + (position + 1) * GOLDEN_GAMMA) >> 11) * 2.0**-53


def mixed(state: int) -> int:
    """SplitMix64's hash of the lowest 64 bits of a number."""
    state &= ALL_BITS
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & ALL_BITS
    state = (state ^ state >> 27) * 0x94D049BB133111EB & ALL_BITS
    return state ^ state >> 31
