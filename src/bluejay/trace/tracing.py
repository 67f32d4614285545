"""A text traced to the documents that it stands in: what `bluejay trace` prints and `POST /v1/trace` answers."""

import itertools
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bluejay.native import native
from bluejay.recipe import STRICT
from bluejay.tokenizer import Tokenizer
from bluejay.trace.display import Traced
from bluejay.trace.document_rows import Row
from bluejay.trace.index import Places, Searcher, integers
from bluejay.trace.reading import Read, ReadRun
from bluejay.trace.spans import (
    ALIKE,
    CONTEXT_TOKENS,
    Quoted,
    Span,
    char_offsets,
    kinds,
    maximal,
    reach,
    score,
    segments,
    shares,
)

LOOKED_AT = 4096
"""Occurrences of a span in one index shard that are looked at."""
COMPARED = 32
"""Documents of a span that are compared with each other."""
SKETCH = 64
"""Numbers in the sketch of a document."""
ROW_BITS = 32
"""Bits of the number of a row, above which the number of the set is."""
LARGEST = 1 << 20
"""Tokens of a text that are traced at once."""
Ranks = tuple[NDArray[np.int64], NDArray[np.int64]]
"""The ranks of spans in each index shard, low and high, as `Searcher.find` gives them: (shards, spans)."""


@dataclass(frozen=True)
class TraceSettings:
    """What is traced, and how much of it is reported."""

    __pydantic_config__ = STRICT
    min_tokens: int = 5
    """Tokens that a span has at least."""
    documents: int = 10
    """Documents that are reported of each span, at most."""
    spans: int = 1000
    """At most this many spans are shown."""

    def __post_init__(self) -> None:
        for name, most in (("min_tokens", LARGEST), ("documents", COMPARED), ("spans", LARGEST)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 1 to {most:,}")


class Placed(NamedTuple):
    """Where a token shard is in what a run read."""

    part: int
    """The number of the set in `data.train`."""
    first: int
    """The tokens of the shards before it in that set."""


@dataclass(frozen=True)
class Source:
    """Documents that a text may come from, and the run that read them."""

    searcher: Searcher
    run: ReadRun | None = None
    parts: dict[str, tuple[Placed, ...]] = field(default_factory=dict)
    """For each token shard that the run read, where it is in the sets of `data.train`."""


@dataclass(frozen=True)
class SpanPlaces:
    """The places of spans: span by span, of each set by set, and of each in the order of the corpus."""

    places: list[Places]
    """The places as each index shard gave them."""
    names: list[tuple[int, str]]
    """The sets: of each the number of its searcher, and its token shard."""
    spans: NDArray[np.int64]
    """The span of each place."""
    parts: NDArray[np.int64]
    """The number of its index shard in `places`."""
    sets: NDArray[np.int64]
    """The number of its set."""
    positions: NDArray[np.int64]
    documents: NDArray[np.int64]
    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, searchers: Sequence[Searcher], where: Sequence[Ranks]) -> "SpanPlaces":
        """The places from the ranks in each searcher, at most `LOOKED_AT` of each span and index shard."""
        parts = [
            (number, places)
            for number, (searcher, ranks) in enumerate(zip(searchers, where, strict=True))
            for places in searcher.places(*ranks, LOOKED_AT)
        ]
        names, places = [(number, one.shard) for number, one in parts], [one for _, one in parts]
        sets = {name: number for number, name in enumerate(dict.fromkeys(names))}
        part = np.repeat(np.arange(len(parts)), [len(one.positions) for one in places])
        order = np.argsort(np.concatenate([one.matches for one in places]), kind="stable")
        spans, positions, documents, offsets, rows = (
            np.concatenate([getattr(one, name) for one in places])[order]
            for name in ("matches", "positions", "documents", "offsets", "rows")
        )
        part, set_of_part = part[order], np.array([sets[name] for name in names])
        return cls(places, list(sets), spans, part, set_of_part[part], positions, documents, offsets, rows)

    def sketches(
        self, firsts: NDArray[np.int64], ends: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> NDArray[np.uint64]:
        """Sketches of what is around places, end to end; the places of each span end at `ends`, and one that is alone
        has none."""
        found = np.zeros((len(firsts), SKETCH), np.uint64)
        compared = np.diff(ends, prepend=0)[self.spans[firsts]] > 1
        for number, one in enumerate(self.places):
            here = np.flatnonzero((self.parts[firsts] == number) & compared)
            at, length = self.positions[firsts[here]] - one.part.first_token, lengths[self.spans[firsts[here]]]
            found[here] = one.part.call("sketches", at, length, CONTEXT_TOKENS).reshape(-1, SKETCH)
        return found.ravel()


@dataclass(frozen=True)
class Matches:
    """Matches: a span in a document and its copies. At most `COMPARED` of each span are compared with each other."""

    of_places: NDArray[np.int64]
    """The match of each place; -1 of a place in a further document."""
    firsts: NDArray[np.int64]
    """The first place of each match."""
    copies: NDArray[np.int64]
    """How often the document of each match stands in the corpus with the span."""
    groups: NDArray[np.int64]
    """For each match the first match of its group of near-copies; -1 for a match that is in no group that is shown."""
    n_documents: NDArray[np.int64]
    """Different documents of each span among the places that were looked at."""

    @classmethod
    def of(cls, places: SpanPlaces, lengths: NDArray[np.int64], most: int) -> "Matches":
        """The matches at places of spans of so many tokens, in at most `most` groups of each span."""
        ends = np.searchsorted(places.spans, np.arange(len(lengths)), "right")
        keys = places.rows + (places.sets << ROW_BITS)
        of_places, firsts, copies, match_ends, n = native.first_rows(keys, places.documents, ends, COMPARED)
        sketches = places.sketches(firsts, match_ends, lengths)
        return cls(of_places, firsts, copies, native.near_copies(sketches, match_ends, most, ALIKE), n)

    def near_copies(self) -> dict[int, list[int]]:
        """The matches of each group, by the first of them."""
        found: dict[int, list[int]] = {}
        for match, first in enumerate(self.groups.tolist()):
            if first >= 0:
                found.setdefault(first, []).append(match)
        return found


class SpanDocuments(NamedTuple):
    """The documents of a span."""

    quoted: list[Quoted]
    n: int
    """Different documents among the places that were looked at."""
    complete: bool
    """Whether all places were looked at."""


class Tracer:
    """Traces texts in sources that share a tokenizer. What several runs read is searched and counted once; the steps of
    a document are those of the first run that read it."""

    def __init__(self, sources: Sequence[Source], tokenizer: Tokenizer, notes: Sequence[str] = ()) -> None:
        self.sources, self.tokenizer, self.notes = list(sources), tokenizer, list(notes)
        self.searchers = list(dict.fromkeys(source.searcher for source in sources))
        self.names: list[str] = []
        """What each searcher is called; no two are called the same."""
        for one in self.searchers:
            self.names.append(free_name(one.name, self.names))
        self.n_tokens = sum(searcher.n_tokens for searcher in self.searchers)

    @cached_property
    def short_names(self) -> dict[str, str]:
        """For each of `names` its last part, with a number behind it where that would name another searcher."""
        found: dict[str, str] = {}
        for name in self.names:
            found[name] = free_name(Path(name).name or name, {*self.names, *found.values()} - {name})
        return found

    def trace(
        self,
        text: str | Sequence[int],
        settings: TraceSettings | None = None,
        logprobs: Sequence[float | None] | None = None,
    ) -> Traced:
        """Trace a text, or token ids. `logprobs` are the natural logarithms of the probabilities that a model gave its
        tokens; None for a token without one.

        Raises ValueError: the text is too long, there is not a logprob for each token, or an index is damaged.
        """
        settings = settings or TraceSettings()
        ids = self.ids(text)
        longest = self.longest(ids)
        bounds = maximal(longest, settings.min_tokens)
        pieces = self.pieces(ids.tolist(), encoded=isinstance(text, str))
        chars = char_offsets(pieces)
        decoded = b"".join(pieces).decode("utf-8", errors="replace")
        bits = self.bits(ids, logprobs)
        found = [searcher.find(ids, *zip(*bounds, strict=True)) for searcher in self.searchers] if bounds else []
        counts = np.sum([(high - low).sum(axis=0) for low, high in found], axis=0) if found else []
        total_bits = np.concatenate([[0.0], np.cumsum(bits)])
        scores = [
            score(int(count), self.n_tokens, float(total_bits[b] - total_bits[a]))
            for (a, b), count in zip(bounds, counts, strict=True)
        ]
        best = sorted(range(len(bounds)), key=lambda i: (-scores[i], bounds[i]))[: settings.spans]
        lengths = np.array([end - start for start, end in bounds], np.int64)
        where = [(low[:, best], high[:, best]) for low, high in found]
        spans = []
        for i, (quoted, n_documents, complete) in zip(
            best, self.documents(where, lengths[best], settings.documents) if best else (), strict=True
        ):
            start, end = bounds[i]
            place = (chars[start], chars[end], decoded[chars[start] : chars[end]])
            spans.append(Span(start, end, *place, int(counts[i]), n_documents, complete, scores[i], quoted))
        of_token = kinds(longest, bounds)
        return Traced(decoded, ids.tolist(), spans, shares(of_token), segments(of_token, chars), self.notes)

    def ids(self, text: str | Sequence[int]) -> NDArray[np.int32]:
        """The token ids of a text, or the given ones. Raises ValueError: they are no list of integers, too many, or
        unknown."""
        ids = self.tokenizer.encode(text) if isinstance(text, str) else text
        found, last = integers(ids), self.tokenizer.vocab_size - 1
        if found is None or (found.size and found.max() > last):
            raise ValueError(f"what is traced is a text, or one list of token ids, which are integers from 0 to {last}")
        if len(found) > LARGEST:
            raise ValueError(f"the text has {len(found):,} tokens; at most {LARGEST:,} are traced at once")
        return found

    def pieces(self, ids: Sequence[int], encoded: bool) -> list[bytes]:
        """The bytes of each token; of a text that was `encoded`, without the space that this added in front."""
        table = self.tokenizer.token_bytes()
        pieces = [table[id] for id in ids]
        if pieces and encoded:
            pieces[0] = pieces[0][len(self.tokenizer.prefix) :]
        return pieces

    def longest(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """The longest match in any source, for each token."""
        found = [searcher.longest(ids) for searcher in self.searchers]
        return np.max(found, axis=0) if found else np.zeros(len(ids), np.int32)

    def counts(self, ids: NDArray[np.int32], firsts: Any, lasts: Any) -> NDArray[np.int64]:
        """How often pieces of a text occur in all sources (`Searcher.counts`)."""
        return np.sum([searcher.counts(ids, firsts, lasts) for searcher in self.searchers], axis=0)

    def bits(self, ids: NDArray[np.int32], logprobs: Sequence[float | None] | None) -> NDArray[np.float64]:
        """The surprise of each token, in bits: by a model's probabilities, else by how often the token occurs. Raises
        ValueError: there is not one for each token, or one is not finite."""
        if logprobs is not None:
            if len(logprobs) != len(ids):
                raise ValueError(
                    f"there are {len(logprobs)} logprobs for {len(ids)} tokens; give one for each, or None for it"
                )
            known = [0.0 if value is None else value for value in logprobs]
            if wrong := [value for value in known if not math.isfinite(value)]:
                raise ValueError(f"logprobs holds {wrong[0]}; give a finite number for each token, or None for it")
            return -np.array(known) / math.log(2)
        return self.bits_of_tokens[ids]

    @cached_property
    def bits_of_tokens(self) -> NDArray[np.float64]:
        """The bits of each token of the vocabulary by how often it occurs, (V,)."""
        ids = np.arange(self.tokenizer.vocab_size, dtype=np.int32)
        occurrences = np.sum([np.zeros(len(ids)), *(one.occurrences(ids) for one in self.searchers)], axis=0)
        return np.log2(max(1, self.n_tokens) / np.maximum(1, occurrences))

    def documents(self, where: Sequence[Ranks], lengths: NDArray[np.int64], most: int) -> list[SpanDocuments]:
        """The documents of spans of so many tokens, at most `most` of each, from their ranks in each searcher."""
        complete = np.all([(high - low <= LOOKED_AT).all(axis=0) for low, high in where], axis=0)
        places = SpanPlaces.of(self.searchers, where)
        matches = Matches.of(places, lengths, most)
        rows, reads = self.rows_of(places, matches), self.reads_of(places, matches, lengths)
        occurrences = np.bincount(matches.of_places[matches.of_places >= 0], minlength=len(matches.firsts)).tolist()
        answers: list[list[Quoted]] = [[] for _ in lengths]
        for match, (_, *others) in matches.near_copies().items():
            at, row, read = matches.firsts[match], rows[match], reads.get(match)
            of, shard = places.names[places.sets[at]]
            quoted = Quoted(
                id=row.id,
                source=row.source,
                licence=row.licence,
                component=row.component,
                url=row.url,
                corpus=self.names[of],
                split=shard,
                offset=int(places.offsets[at]),
                occurrences=occurrences[match],
                copies=int(matches.copies[match]),
                position=int(places.positions[at]),
                steps=None if read is None else list(read.steps),
                steps_in_part=[] if read is None else list(read.in_part),
                near_copies=[rows[other].id for other in others],
            )
            answers[places.spans[at]].append(quoted)
        counts = matches.n_documents.tolist()
        return [SpanDocuments(*one) for one in zip(answers, counts, complete.tolist(), strict=True)]

    def rows_of(self, places: SpanPlaces, matches: Matches) -> dict[int, Row]:
        """What is known of the document of each match in a group."""
        found: dict[int, Row] = {}
        for number, (of, shard) in enumerate(places.names):
            here = np.flatnonzero((places.sets[matches.firsts] == number) & (matches.groups >= 0))
            rows = self.searchers[of].documents.read(shard, places.rows[matches.firsts[here]].tolist())
            found |= zip(here.tolist(), rows, strict=True)
        return found

    def reads_of(self, places: SpanPlaces, matches: Matches, lengths: NDArray[np.int64]) -> dict[int, Read]:
        """When the first match of each group was read, where that is known: by the first run that read it."""
        found: dict[int, Read] = {}
        is_first = matches.groups == np.arange(len(matches.groups))
        for number, (of, shard) in enumerate(places.names):
            here = np.flatnonzero((places.sets[matches.firsts] == number) & is_first)
            rank = np.full(len(matches.firsts) + 1, -1)  # the last one is of the places without a match
            rank[here] = np.arange(len(here))
            at = np.flatnonzero(rank[matches.of_places] >= 0)
            asked = places.positions[at], lengths[places.spans[at]], rank[matches.of_places[at]], len(here)
            for source in self.sources:
                if source.searcher is self.searchers[of] and source.run is not None:
                    reads = zip(here.tolist(), source.run.reads(source.parts.get(shard, ()), *asked), strict=True)
                    found |= {match: read for match, read in reads if not found.get(match)}
        return found

    def next_tokens(self, ids: NDArray[np.int32]) -> tuple[int, dict[int, int]]:
        """What follows the longest end of a text that occurs in any source, and its length (`Searcher.next_tokens`)."""
        first = int(reach(self.longest(ids))[-1])
        total: dict[int, int] = {}
        for searcher in self.searchers:
            for token, count in searcher.followers(ids[first:]).items():
                total[token] = total.get(token, 0) + count
        return len(ids) - first, dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))

    def snippet(self, corpus: str, split: str, position: int, length: int, around: int) -> dict[str, str]:
        """The text before, in and after a match of `length` tokens, with `around` tokens on each side; `corpus` is one
        of `names` or of `short_names`. Raises ValueError if there is no such place."""
        named = zip(self.names, self.short_names.values(), self.searchers, strict=True)
        searcher = next((one for name, short, one in named if corpus in (name, short)), None)
        if searcher is None:
            raise ValueError(f"there is no corpus {corpus!r} here")
        at, tokens = searcher.around(split, position, length, around, around)
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
        if not n or not self.searchers:
            return []
        firsts, ends = np.tile(begins, 2), np.concatenate([np.arange(n), np.arange(1, n + 1)])
        counts = self.counts(ids, firsts, ends)
        return [
            {"context": int(i - begins[i]), "count": int(counts[i]), "followed": int(counts[n + i])} for i in range(n)
        ]


def free_name(name: str, taken: Container[str]) -> str:
    """A name, with a number behind it where it is taken."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in taken)
