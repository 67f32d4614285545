"""Many texts through a model at once, for what it computes of texts that are given: log-probabilities, logits and
hidden states. The texts stand one after another in steps of equal size, each with pages of the cache of its own."""

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bluejay.infer.backends import Backend, StepBatch, checked
from bluejay.infer.cache import pages_of
from bluejay.notebook import marked, page
from bluejay.progress import progress
from bluejay.tokenizer import well_formed

TOKENS_PER_STEP = 512
"""Tokens that one step computes, which bounds the memory for their logits."""
PAGE = 32
"""Tokens of the largest pages of a backend."""
PAGES_PER_STEP = 64
"""Pages of the cache that several windows of one step hold at most: a short one takes a whole page, too."""


@dataclass(frozen=True)
class Score:
    """The log-probabilities that a model assigns to the tokens of a text."""

    tokens: list[int]
    logprobs: list[float]
    """Natural logarithm of each token's probability, given at least half a context of text or all before it."""
    n_bytes: int
    """Length of the text in UTF-8."""
    texts: list[str]
    """The text of each token."""

    @property
    def logprob(self) -> float:
        """Natural logarithm of the text's probability."""
        return math.fsum(self.logprobs)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of UTF-8; lower is better. Models with different tokenizers can be compared. NaN where the
        tokens have no text."""
        return -self.logprob / math.log(2) / self.n_bytes if self.n_bytes else math.nan

    @property
    def perplexity(self) -> float:
        """The exponential of the mean loss of a token; only models with the same tokenizer can be compared."""
        return math.exp(-self.logprob / len(self.logprobs))

    def _repr_html_(self) -> str:
        total = f"{self.bits_per_byte:.3f} bits per byte" if self.n_bytes else f"perplexity {self.perplexity:.3f}"
        return page(
            f"The probability of each token: {total}",
            marked(self.texts, [math.exp(logprob) for logprob in self.logprobs]),
        )


def score_of(text: str | list[int], ids: list[int], rows: Float[Tensor, "T 2"], token_bytes: Sequence[bytes]) -> Score:
    """The score of a text, or of the ids of one, whose tokens have the log-probabilities in the first column of `rows`.
    Rows that pad the model's embedding have no text."""
    spelled = [token_bytes[id] if id < len(token_bytes) else b"" for id in ids]
    n_bytes = len(well_formed(text).encode()) if isinstance(text, str) else sum(map(len, spelled))
    return Score(ids, rows[:, 0].tolist(), n_bytes, [piece.decode("utf-8", errors="replace") for piece in spelled])


class LogLikelihood(NamedTuple):
    """How likely a continuation is; the pair that lm-evaluation-harness expects of a model."""

    logprob: float
    """Natural logarithm of the continuation's probability after its context."""
    is_greedy: bool
    """Whether each token of the continuation is the likeliest one, so that greedy decoding would write it."""


@dataclass(frozen=True)
class Window:
    """A piece of a text that is read at once, at most a context long."""

    text: int
    """The number of the text."""
    tokens: Sequence[int]
    """The tokens that are read, and one more: the token that follows, which is only predicted."""
    first: int
    """The index of the first token whose results are wanted."""

    @property
    def n_tokens(self) -> int:
        """Number of tokens that are read."""
        return len(self.tokens) - 1


@dataclass(frozen=True)
class Piece:
    """The tokens of a window, from `start` to `stop`, that one step reads."""

    window: Window
    start: int
    stop: int

    @property
    def wanted(self) -> range:
        """Those whose results are wanted."""
        return range(min(max(self.start, self.window.first), self.stop), self.stop)


def windows(text: int, tokens: Sequence[int], n_known: int, n_ctx: int) -> Iterator[Window]:
    """The windows in which a text is read so that each token from the index `n_known` on is predicted once.

    If the tokens to predict fit into one context, the window is the end of the text, as in lm-evaluation-harness.
    Otherwise windows overlap by half, so that each token has half a context before it, or all of the text so far.
    """
    at, last = n_known, len(tokens) - 1
    start = last - n_ctx if last - at < n_ctx else at - 1 - n_ctx // 2
    while at <= last:
        start = max(0, start)
        stop = min(start + n_ctx, last)
        yield Window(text, tokens[start : stop + 1], at - 1 - start)
        at = stop + 1
        start = stop - n_ctx // 2


def steps(windows: Iterable[Window], n_tokens: int = TOKENS_PER_STEP) -> list[list[Piece]]:
    """The windows in steps of at most `n_tokens` tokens, the longest first, since windows of one length attend
    together. Only the last window of a step may be incomplete, and several hold at most PAGES_PER_STEP pages."""
    found: list[list[Piece]] = []
    room = held = 0
    for window in sorted(windows, key=lambda window: -window.n_tokens):
        at, n_pages = 0, pages_of(window.n_tokens, PAGE)
        while at < window.n_tokens:
            if not room or (held and held + n_pages > PAGES_PER_STEP):
                found.append([])
                room, held = n_tokens, 0
            stop = min(window.n_tokens, at + room)
            found[-1].append(Piece(window, at, stop))
            room -= stop - at
            held += n_pages
            at = stop
    return found


def reserved(steps: Iterable[list[Piece]]) -> list[int]:
    """Lengths of sequences, in tokens, for which a cache of pages of up to PAGE tokens has room for any step."""
    return [PAGE] * max((sum(pages_of(piece.window.n_tokens, PAGE) for piece in step) for step in steps), default=0)


def batches(steps: Iterable[list[Piece]], backend: Backend) -> Iterator[tuple[list[Piece], StepBatch]]:
    """The batch of each step. A window holds its pages from the step that begins it to the one that completes it."""
    free, held = list(range(backend.n_pages))[::-1], dict[int, list[int]]()
    for pieces in steps:
        for piece in pieces:
            if not piece.start:
                held[id(piece.window)] = [free.pop() for _ in range(pages_of(piece.window.n_tokens, backend.page_size))]
        starts = np.cumsum([0, *(piece.stop - piece.start for piece in pieces)])
        wanted = [np.asarray(piece.wanted) + at - piece.start for piece, at in zip(pieces, starts, strict=False)]
        tokens = [token for piece in pieces for token in piece.window.tokens[piece.start : piece.stop]]
        lengths, pages = [piece.start for piece in pieces], [held[id(piece.window)] for piece in pieces]
        yield pieces, StepBatch.of(tokens, starts, lengths, pages, np.concatenate(wanted))
        for piece in pieces:
            if piece.stop == piece.window.n_tokens:
                free += reversed(held.pop(id(piece.window)))


def read(
    windows: Sequence[Window],
    backend_for: Callable[[list[int]], AbstractContextManager[Backend]],
    compute: Callable[[Backend, StepBatch, list[Piece]], Float[Tensor, "R X"]],
    advance: Callable[[int], object],
    summed: bool = False,
) -> list[Tensor]:
    """For each window, a whole text, what `compute` gives for its W wanted tokens in order, (W X), or their sum (X).

    `backend_for` opens a backend for sequences of given lengths; `advance` is called with the tokens of each step.
    """
    planned = steps(windows)
    found: list[list[Tensor]] = [[] for _ in windows]
    if not planned:
        return []
    with backend_for(reserved(planned)) as backend:
        for pieces, batch in batches(planned, backend):
            rows = compute(backend, batch, pieces).split([len(piece.wanted) for piece in pieces])
            for piece, part in zip(pieces, rows, strict=True):
                found[piece.window.text].append(part.sum(0) if summed else part)
            advance(len(batch.tokens))
    if summed:
        return [torch.stack(parts).sum(0) for parts in found]
    return [torch.cat(parts) for parts in found]  # copies, which may be changed, unlike tensors of inference mode


def wanted_logits(backend: Backend, batch: StepBatch, _: list[Piece]) -> Float[Tensor, "R V"]:
    """The logits of the wanted tokens. Raises LogitsError if they are not numbers."""
    return checked(backend, backend.step(batch)).cpu()


def wanted_hidden(backend: Backend, batch: StepBatch, _: list[Piece]) -> Float[Tensor, "R D"]:
    """The hidden states of the wanted tokens. Raises LogitsError if they are not numbers."""
    return checked(backend, backend.hidden(batch)).cpu()


@contextmanager
def bar_if(shown: bool, label: str, total: int, unit: str) -> Generator[Callable[[int], object]]:
    """A function that counts units as done, on a bar of `total` units if one is to be shown."""
    if not shown:
        yield lambda _: None
        return
    with progress(label, total, unit) as bar:
        yield bar.advance
