"""Requests, their samples and the tokens that the engine returns for them."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from bluejay.infer.cache import Lease
from bluejay.infer.params import SamplingParams
from bluejay.infer.sampling import LogitsProcessor, Logprob, bias_of
from bluejay.infer.speculation import PromptLookup
from bluejay.infer.text import TextStream


@dataclass(eq=False)
class Request:
    """One prompt that is continued `params.n` times."""

    prompt: list[int]
    params: SamplingParams
    seed: int
    """The caller's seed, or a random one where the caller gave none."""
    processor: Callable[[], LogitsProcessor] | None
    waiting: deque[int] = field(default_factory=deque)
    """Indices of the samples that do not run yet."""
    running: int = 0
    """Number of running samples."""
    read: bool = False
    """Whether a sample has computed the whole prompt, so that the other samples find its pages in the cache."""
    prompt_logprobs: list[Logprob] = field(default_factory=list)
    """Log-probabilities of all tokens of the prompt but the first, if requested; complete before the first chunk."""

    @cached_property
    def bias(self) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
        """The token ids and the values of the parameters' `logit_bias`, made once for all tokens."""
        return bias_of(self.params)


class Chunk(NamedTuple):
    """One new token of one sample."""

    index: int
    """The number of the sample, from 0 to n - 1."""
    text: str
    """The new text, which is empty while a character or a possible stop sequence is incomplete."""
    token: int | None
    """The new token; None if no token was requested or the request was ended early."""
    finish_reason: str | None = None
    """None before the end; "stop" after a stop sequence or the end of text, "length" at the limit of tokens."""
    logprob: Logprob | None = None
    """Log-probability of the token, if requested."""


@dataclass(eq=False)
class Sample:
    """One running continuation of a prompt."""

    request: Request
    index: int
    tokens: list[int]
    """The prompt and the generated tokens; the last ones may not be in the cache yet."""
    lease: Lease
    stream: TextStream
    seed: int
    processor: LogitsProcessor | None
    filters: tuple[float, ...]
    """How its tokens are drawn from the logits of a step (`bluejay.infer.sampling.draw`)."""
    adjusts: bool
    """Whether its logits are changed before a token is drawn, depending on the tokens so far."""
    limit: int
    """The most tokens that it can have, prompt included."""
    generates: bool = False
    """Whether its first token was drawn, since when one of its tokens is pending before each step."""
    lookup: PromptLookup = field(default_factory=PromptLookup)
    draft: list[int] = field(default_factory=list)
    """Tokens that this step computes speculatively after the pending one."""

    @property
    def n_pending(self) -> int:
        """Number of tokens whose keys and values are not computed yet."""
        return len(self.tokens) - self.lease.n_cached

    @property
    def n_generated(self) -> int:
        """Number of tokens drawn so far."""
        return len(self.tokens) - len(self.request.prompt)
