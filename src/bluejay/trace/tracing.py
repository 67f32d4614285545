"""A text traced to the documents that it stands in: what `bluejay trace` prints and `POST /v1/trace` answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluejay.recipe import STRICT
from bluejay.tokenizer import Tokenizer
from bluejay.trace.index import Searcher
from bluejay.trace.reading import Read, ReadRun
from bluejay.trace.spans import (
    CONTEXT_TOKENS,
    Quoted,
    Span,
    char_offsets,
    fold,
    maximal,
    reach,
    score,
    shares,
    shingles,
)

LOOKED_AT = 4096
"""Occurrences of a span in one index shard that are looked at."""
COMPARED = 32
"""Documents of a span that are compared with each other."""
LARGEST = 1 << 20
"""Tokens of a text that are traced at once."""


@dataclass(frozen=True)
class TraceSettings:
    """What is traced, and how much of it is told."""

    __pydantic_config__ = STRICT
    min_tokens: int = 5
    """Tokens that a span has at least."""
    documents: int = 10
    """Documents that are told of each span, at most."""
    spans: int = 1000
    """Spans that are told, at most."""

    def __post_init__(self) -> None:
        for name, most in (("min_tokens", LARGEST), ("documents", COMPARED), ("spans", LARGEST)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 1 to {most:,}")


@dataclass(frozen=True)
class Source:
    """Documents that a text may come from, and the run that read them."""

    searcher: Searcher
    run: ReadRun | None = None
    parts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """For each token shard that the run read, which sets of `data.train` it is."""

    def read(self, shard: str, positions: Sequence[int], length: int) -> Read | None:
        """When the run read matches at places of a token shard; None if no run is known."""
        if self.run is None:
            return None
        found = [self.searcher.read(self.run, part, positions, length) for part in self.parts.get(shard, ())]
        steps = {step for read in found for step in read.steps}
        in_part = {step for read in found for step in read.in_part}
        return Read(tuple(sorted(steps)), tuple(sorted(in_part - steps)))


@dataclass(frozen=True)
class Traced:
    """The result of a trace."""

    text: str
    tokens: list[int]
    spans: list[Span]
    """The most telling ones first."""
    shares: dict[str, float]
    """How much of the text is quoted, interpolated and new."""
    notes: list[str]
    """What could not be traced, each in one sentence."""


class Tracer:
    """Traces texts in sources that share a tokenizer."""

    def __init__(self, sources: Sequence[Source], tokenizer: Tokenizer, notes: Sequence[str] = ()) -> None:
        self.sources, self.tokenizer, self.notes = list(sources), tokenizer, list(notes)
        self.n_tokens = sum(source.searcher.n_tokens for source in sources)

    def trace(
        self, text: str | Sequence[int], settings: TraceSettings, logprobs: Sequence[float | None] | None = None
    ) -> Traced:
        """Trace a text, or token ids. `logprobs` are the natural logarithms of the probabilities that a model gave its
        tokens; None for a token without one.

        Raises ValueError: the text is too long, or a file of an index is damaged.
        """
        ids = np.array(self.tokenizer.encode(text) if isinstance(text, str) else text, np.int32)
        if len(ids) > LARGEST:
            raise ValueError(f"the text has {len(ids):,} tokens; at most {LARGEST:,} are traced at once")
        longest = self.longest(ids)
        bounds = maximal(longest, settings.min_tokens)
        pieces = [self.tokenizer.token_bytes()[id] for id in ids.tolist()]
        prefix = len(self.tokenizer.prefix) if isinstance(text, str) else 0
        if pieces and prefix:  # a space that `encode` added in front
            pieces[0] = pieces[0][prefix:]
        chars = char_offsets(pieces)
        decoded = b"".join(pieces).decode("utf-8", errors="replace")
        bits = self.bits(ids, logprobs)
        found = [source.searcher.find(ids, *zip(*bounds, strict=True)) for source in self.sources] if bounds else []
        counts = np.sum([(high - low).sum(axis=0) for low, high in found], axis=0) if found else []
        scores = [
            score(int(count), self.n_tokens, bits[a:b].sum()) for (a, b), count in zip(bounds, counts, strict=True)
        ]
        best = sorted(range(len(bounds)), key=lambda i: (-scores[i], bounds[i]))[: settings.spans]
        spans = []
        for i in best:
            (start, end), where = bounds[i], [(low[:, i], high[:, i]) for low, high in found]
            documents, n_documents, complete = self.documents(where, end - start, settings.documents)
            place = (chars[start], chars[end], decoded[chars[start] : chars[end]])
            spans.append(Span(start, end, *place, int(counts[i]), n_documents, complete, scores[i], documents))
        return Traced(decoded, ids.tolist(), spans, shares(longest, bounds), self.notes)

    def longest(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """The longest match in any source, for each token."""
        found = [source.searcher.longest(ids) for source in self.sources]
        return np.max(found, axis=0) if found else np.zeros(len(ids), np.int32)

    def counts(self, ids: NDArray[np.int32], firsts: Any, lasts: Any) -> NDArray[np.int64]:
        """How often pieces of a text occur in all sources (`Searcher.counts`)."""
        return np.sum([source.searcher.counts(ids, firsts, lasts) for source in self.sources], axis=0)

    def bits(self, ids: NDArray[np.int32], logprobs: Sequence[float | None] | None) -> NDArray[np.float64]:
        """The bits that each token told: by a model's probabilities, else by how often the token occurs."""
        if logprobs is not None:
            known = [0.0 if value is None else value for value in logprobs]
            return -np.array(known) / math.log(2)
        different, which = np.unique(ids, return_inverse=True)
        if not len(different) or not self.sources:
            return np.zeros(len(ids))
        counts = self.counts(different.astype(np.int32), np.arange(len(different)), np.arange(1, len(different) + 1))
        return np.log2(self.n_tokens / np.maximum(1, counts))[which]

    def documents(
        self, where: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], length: int, most: int
    ) -> tuple[list[Quoted], int, bool]:
        """The documents of a span from its ranks in each source; how many there are; whether all places were seen."""
        found: list[tuple[Source, str, int, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
        n_documents, complete = 0, True
        for source, (low, high) in zip(self.sources, where, strict=True):
            complete = complete and bool((high - low <= LOOKED_AT).all())
            places = list(source.searcher.places(low, high, LOOKED_AT))
            for shard in dict.fromkeys(place.shard for place in places):
                here = [place for place in places if place.shard == shard]
                rows, positions, offsets, documents = (
                    np.concatenate([getattr(place, name) for place in here])
                    for name in ("rows", "positions", "offsets", "documents")
                )
                different, first = np.unique(rows, return_index=True)
                n_documents += len(different)
                for row, _ in sorted(zip(different.tolist(), first.tolist(), strict=True), key=lambda one: one[1])[
                    : COMPARED - len(found)
                ]:
                    chosen = rows == row
                    found.append((source, shard, row, positions[chosen], offsets[chosen], documents[chosen]))
        if len(found) > 1:
            contexts = [self.context(one[0].searcher, one[1], int(one[3][0]), length) for one in found]
            groups = fold(contexts, most)
        else:
            groups = [[number] for number in range(len(found))]
        return [self.quoted([found[number] for number in group], length) for group in groups], n_documents, complete

    def context(self, searcher: Searcher, shard: str, position: int, length: int) -> frozenset[int]:
        """The shingles of what stands around a match in its document."""
        at, tokens = searcher.around(shard, position, length, CONTEXT_TOKENS, CONTEXT_TOKENS)
        return shingles(tokens[:at]) | shingles(tokens[at + length :])

    def quoted(self, group: Sequence[tuple[Any, ...]], length: int) -> Quoted:
        """The first document of a group of near-copies, with the ids of the others."""
        source, shard, row, positions, offsets, documents = group[0]
        known = source.searcher.documents.read(shard, row)
        others = [one[0].searcher.documents.read(one[1], one[2]).id for one in group[1:]]
        read = source.read(shard, positions.tolist(), length)
        return Quoted(
            **{name: getattr(known, name) for name in ("id", "source", "licence", "component", "url")},
            corpus=source.searcher.name,
            split=shard,
            offset=int(offsets[0]),
            occurrences=len(positions),
            copies=len(np.unique(documents)),
            position=int(positions[0]),
            steps=None if read is None else list(read.steps),
            steps_in_part=[] if read is None else list(read.in_part),
            near_copies=others,
        )

    def infinigram(self, ids: NDArray[np.int32]) -> list[dict[str, Any]]:
        """For each token: the length of the longest text before it that occurs, how often that does, and how often the
        token follows it (arXiv 2401.17377)."""
        n, begins = len(ids), reach(self.longest(ids))[:-1]
        if not n or not self.sources:
            return []
        firsts, ends = np.tile(begins, 2), np.concatenate([np.arange(n), np.arange(1, n + 1)])
        counts = self.counts(ids, firsts, ends)
        return [
            {"context": int(i - begins[i]), "count": int(counts[i]), "followed": int(counts[n + i])} for i in range(n)
        ]
