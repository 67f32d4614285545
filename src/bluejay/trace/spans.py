"""Maximal matches of a text in a corpus, the documents behind each, and their order: pure functions on arrays."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONTEXT_TOKENS = 128
"""Tokens on each side of a match that decide whether two documents are near-copies there."""
ALIKE = 0.7
"""Share of common shingles, of five tokens, from which two documents are one row."""
EMPTY = np.uint64(2**64 - 1)
"""A bin of a sketch without a shingle."""


@dataclass(frozen=True)
class Quoted:
    """A document that a span stands in."""

    id: str
    """SHA-256 of its text, in hexadecimal."""
    source: str
    licence: str
    """`unknown` where no licence is known."""
    component: str
    url: str
    corpus: str
    """The corpus or file of examples that the document is in."""
    split: str
    """The token shard: train, valid or test."""
    offset: int
    """Where the span begins in the document, in tokens; the first place if there are several."""
    occurrences: int
    """Places of the span in the document and its copies."""
    copies: int
    """How often the document with the span stands in the corpus, by its epochs."""
    position: int
    """Where the span begins in the token shard, in tokens."""
    steps: list[int] | None = None
    """Steps whose batches held the span, counted from 1; empty if it was not read, None if no run is known."""
    steps_in_part: list[int] = field(default_factory=list)
    """Steps whose batches held a part of the span, which the border of two sequences cuts."""
    near_copies: list[str] = field(default_factory=list)
    """Ids of documents that are left out, because around the span they say largely the same."""


@dataclass(frozen=True)
class Span:
    """A match that is part of no longer one."""

    start: int
    """Its first token in the text."""
    end: int
    """The token after its last one."""
    start_char: int
    end_char: int
    text: str
    count: int
    """How often it occurs."""
    n_documents: int
    """Different documents that it occurs in; of many occurrences only those that were looked at."""
    all_looked_at: bool
    """Whether all occurrences were looked at."""
    score: float
    """How rare the span is in the corpus, and how unlikely it was; spans are in the order of this."""
    documents: list[Quoted]


def maximal(longest: NDArray[np.int32], least: int) -> list[tuple[int, int]]:
    """The spans (start, end) of at least `least` tokens that are in no other, from the longest match at each token."""
    ends = np.arange(len(longest)) + longest
    reached = np.maximum.accumulate(np.concatenate([[0], ends[:-1]])) if len(ends) else ends
    return [(int(i), int(ends[i])) for i in np.flatnonzero((ends > reached) & (longest >= max(1, least)))]


def reach(longest: NDArray[np.int32]) -> NDArray[np.int64]:
    """For each place between tokens, 0 .. T, where the longest match that ends there begins, (T + 1,)."""
    ends = np.arange(len(longest)) + longest
    return np.minimum(np.searchsorted(ends, np.arange(len(longest) + 1)), np.arange(len(longest) + 1))


def char_offsets(pieces: Sequence[bytes]) -> list[int]:
    """Where each token begins in the decoded text, in characters, and where the last one ends. A token that begins
    within a character begins with it."""
    joined = b"".join(pieces)
    begins = np.frombuffer(joined, np.uint8) & 0xC0 != 0x80
    before = np.concatenate([[0], np.cumsum(begins)])
    bounds = np.cumsum([0, *map(len, pieces)])
    within = [int(bound) < len(joined) and not begins[bound] for bound in bounds]
    return [int(before[bound]) - inside for bound, inside in zip(bounds, within, strict=True)]


def score(count: int, n_tokens: int, bits: float) -> float:
    """The rank of a span: how rare it is, log2(n_tokens / count), and the logarithm of the bits that it told, so that
    neither a long span nor a boilerplate that stands in a thousand documents comes first for that alone."""
    return math.log2(max(1, n_tokens) / max(1, count)) + math.log2(1 + max(0.0, bits))


def fold(sketches: NDArray[np.uint64], most: int) -> list[list[int]]:
    """Numbers of documents in groups of near-copies, by the sketches of what is around the match, (n, bins): at most
    `most` groups. Equal bins estimate the share of common shingles."""
    groups: list[list[int]] = []
    left = np.ones(len(sketches), bool)
    filled = sketches != EMPTY
    while left.any() and len(groups) < most:
        first = int(np.argmax(left))
        either = (filled | filled[first]).sum(axis=1)
        equal = ((sketches == sketches[first]) & filled).sum(axis=1)
        alike = left & (equal >= ALIKE * either)
        groups.append(np.flatnonzero(alike).tolist())
        left &= ~alike
    return groups


def shares(longest: NDArray[np.int32], spans: Sequence[tuple[int, int]]) -> dict[str, float]:
    """How much of a text is quoted (in a span), interpolated (in a shorter match of at least two tokens), or new: parts
    of its tokens."""
    n = len(longest)
    quoted, known = np.zeros(n, bool), np.zeros(n, bool)
    for start, end in spans:
        quoted[start:end] = True
    for start in np.flatnonzero(longest >= 2):
        known[start : start + longest[start]] = True
    parts = {"quoted": quoted, "interpolated": known & ~quoted, "new": ~known & ~quoted}
    return {name: float(part.mean()) if n else 0.0 for name, part in parts.items()}


def as_json(value: Any) -> Any:
    """A dataclass as JSON types."""
    return asdict(value)
