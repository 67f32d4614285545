"""Maximal matches of a text in a corpus, the documents behind each, and their order: pure functions on arrays."""

import codecs
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

CONTEXT_TOKENS = 128
"""Tokens on each side of a match that decide whether two documents are near-copies there."""
ALIKE = 0.7
"""Share of common shingles, of five tokens, from which two documents are one row."""
KINDS = ("quoted", "interpolated", "new")
"""What a token of a text can be."""


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
class Segment:
    """Neighbouring tokens of a text that are of one kind."""

    kind: str
    """One of `KINDS`."""
    start_char: int
    end_char: int


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
    within a character begins with it; bytes that are not UTF-8 are decoded with `errors="replace"`."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    *begins, end = accumulate((len(decoder.decode(piece)) for piece in pieces), initial=0)
    return [*begins, end + len(decoder.decode(b"", final=True))]


def score(count: int, n_tokens: int, bits: float) -> float:
    """The rank of a span: how rare it is, log2(n_tokens / count), and the logarithm of its surprise in bits, so that
    neither a long span nor boilerplate that stands in a thousand documents comes first for that alone."""
    return math.log2(max(1, n_tokens) / max(1, count)) + math.log2(1 + max(0.0, bits))


def kinds(longest: NDArray[np.int32], spans: Sequence[tuple[int, int]]) -> NDArray[np.int8]:
    """For each token the number of its kind in `KINDS`: quoted (in a span), interpolated (in a shorter match of at
    least two tokens), or new."""
    places = np.arange(len(longest))
    reached = np.maximum.accumulate(np.where(longest >= 2, places + longest, 0))
    found = np.where(places < reached, KINDS.index("interpolated"), KINDS.index("new")).astype(np.int8)
    for start, end in spans:
        found[start:end] = KINDS.index("quoted")
    return found


def shares(kinds: NDArray[np.int8]) -> dict[str, float]:
    """How much of a text is of each kind: parts of its tokens."""
    return {name: float((kinds == number).mean()) if len(kinds) else 0.0 for number, name in enumerate(KINDS)}


def segments(kinds: NDArray[np.int8], chars: Sequence[int]) -> list[Segment]:
    """A text cut into segments of one kind, from the kind of each token, (T,), and where each token begins in
    characters, (T + 1,)."""
    firsts = np.flatnonzero(np.diff(kinds, prepend=-1)).tolist()
    bounds = zip(firsts, [*firsts[1:], len(kinds)], strict=True) if firsts else ()
    return [Segment(KINDS[kinds[first]], chars[first], chars[end]) for first, end in bounds]
