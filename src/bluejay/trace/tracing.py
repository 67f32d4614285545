"""A text traced to the documents that it stands in: what `bluejay trace` prints and `POST /v1/trace` answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluejay.recipe import STRICT
from bluejay.tokenizer import Tokenizer
from bluejay.trace.index import Places, Searcher
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
        found = [self.run.read_of(part, positions, length) for part in self.parts.get(shard, ())]
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


@dataclass(frozen=True)
class Match:
    """The places of a span in a document and its copies."""

    source: Source
    places: list[Places]
    """Places of the span in the document's token shard, also those in other documents."""
    row: int

    def all(self, name: str) -> NDArray[np.int64]:
        """An attribute of the places in the document."""
        return np.concatenate([getattr(place, name)[place.rows == self.row] for place in self.places])

    def sketch(self, length: int) -> NDArray[np.uint64]:
        """A sketch of what is around the first place."""
        place = next(place for place in self.places if (place.rows == self.row).any())
        position = place.positions[place.rows == self.row][:1] - place.part.first_token
        return place.part.call("sketches", position, length, CONTEXT_TOKENS)


def quoted(group: Sequence[Match], length: int) -> Quoted:
    """The first document of a group of near-copies, with the ids of the others."""
    match, shard = group[0], group[0].places[0].shard
    known, *others = (one.source.searcher.documents.read(one.places[0].shard, one.row) for one in group)
    positions = match.all("positions").tolist()
    read = match.source.read(shard, positions, length)
    return Quoted(
        known.id,
        known.source,
        known.licence,
        known.component,
        known.url,
        corpus=match.source.searcher.name,
        split=shard,
        offset=int(match.all("offsets")[0]),
        occurrences=len(positions),
        copies=len(set(match.all("documents").tolist())),
        position=positions[0],
        steps=None if read is None else list(read.steps),
        steps_in_part=[] if read is None else list(read.in_part),
        near_copies=[other.id for other in others],
    )


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
        ids = self.ids(text)
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

    def ids(self, text: str | Sequence[int]) -> NDArray[np.int32]:
        """The token ids of a text, or the given ones. Raises ValueError: they are too many, or unknown."""
        ids = np.array(self.tokenizer.encode(text) if isinstance(text, str) else text, np.int64)
        if len(ids) > LARGEST:
            raise ValueError(f"the text has {len(ids):,} tokens; at most {LARGEST:,} are traced at once")
        if len(ids) and not 0 <= ids.min() <= ids.max() < self.tokenizer.vocab_size:
            raise ValueError(f"token ids are from 0 to {self.tokenizer.vocab_size - 1}")
        return ids.astype(np.int32)

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
        occurrences = np.zeros(len(ids), np.int64)
        for source in self.sources:
            occurrences += source.searcher.occurrences(ids)
        return np.log2(max(1, self.n_tokens) / np.maximum(1, occurrences))

    def documents(
        self, where: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], length: int, most: int
    ) -> tuple[list[Quoted], int, bool]:
        """The documents of a span from its ranks in each source; how many there are; whether all places were seen."""
        found: list[Match] = []
        n_documents, complete = 0, True
        for source, (low, high) in zip(self.sources, where, strict=True):
            complete = complete and bool((high - low <= LOOKED_AT).all())
            places = list(source.searcher.places(low.tolist(), high.tolist(), LOOKED_AT))
            for name in dict.fromkeys(place.shard for place in places):
                here = [place for place in places if place.shard == name]
                rows = np.concatenate([place.rows for place in here])
                different = list(dict.fromkeys(rows.tolist()))
                n_documents += len(different)
                found += [Match(source, here, row) for row in different[: COMPARED - len(found)]]
        groups = fold(np.stack([match.sketch(length) for match in found]), most) if len(found) > 1 else [[0]]
        return [quoted([found[number] for number in group], length) for group in groups], n_documents, complete

    def next_tokens(self, ids: NDArray[np.int32]) -> tuple[int, dict[int, int]]:
        """What follows the longest end of a text that occurs in any source, and its length (`Searcher.next_tokens`)."""
        first = int(reach(self.longest(ids))[-1])
        total: dict[int, int] = {}
        for source in self.sources:
            for token, count in source.searcher.followers(ids[first:]).items():
                total[token] = total.get(token, 0) + count
        return len(ids) - first, dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))

    def snippet(self, corpus: str, split: str, position: int, length: int, around: int) -> dict[str, str]:
        """The text before, in and after a match of `length` tokens, with `around` tokens on each side; of `corpus` its
        last part suffices. Raises ValueError if there is no such place."""
        names = {
            name: one.searcher for one in self.sources for name in (Path(one.searcher.name).name, one.searcher.name)
        }
        if corpus not in names:
            raise ValueError(f"there is no corpus {corpus!r} here")
        at, tokens = names[corpus].around(split, position, length, around, around)
        ends = {"before": tokens[:at], "match": tokens[at : at + length], "after": tokens[at + length :]}
        pieces = self.tokenizer.token_bytes()
        return {
            name: b"".join(pieces[id] for id in part.tolist()).decode("utf-8", errors="replace")
            for name, part in ends.items()
        }

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
