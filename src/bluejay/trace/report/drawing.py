"""Passages that a run read, and others that it did not, drawn at random: what the figures of a report are about.

A passage is within one document, of those in a random window of a sequence's length, whether it was read or held out:
so both come from long documents as often as their tokens do. Of a document that was read, and of its copies, one
passage is drawn; held-out text is scarce, so once no more documents are found each may give another, and intervals
count them as dependent.
"""

import bisect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from bluejay.gpt.formats.locate import locate
from bluejay.tokens import TokenShard
from bluejay.trace.corpora import is_corpus, open_tracer
from bluejay.trace.index import Index, Searcher
from bluejay.trace.reading import ReadRun, read_run
from bluejay.trace.report.read_tokens import index_read
from bluejay.trace.tracing import LOOKED_AT, Source, Tracer

TRIES = 50
"""Places that are drawn for each passage that is wanted, at most."""
MOST_OF_ONE = 8
"""Passages of one held-out document, at most."""


@dataclass(frozen=True)
class Passage:
    """Neighbouring tokens of a document."""

    tokens: tuple[int, ...]
    component: str
    part: int
    """The set of `data.train` that it is in; -1 for held-out text."""
    document: str
    """What identifies its document; the same for copies."""


@dataclass(frozen=True)
class Shard:
    """A token shard to draw from."""

    index: Index
    name: str

    @cached_property
    def path(self) -> Path:
        """The shard, without the end of its files' names."""
        return self.index.corpus / "tokens" / self.name


class Reading:
    """What the run of a model read, and text that was held out from it.

    Raises FileNotFoundError or ValueError: there is no such model, or nothing that its run read can be traced.
    """

    def __init__(self, target: str, corpora: Sequence[Path]) -> None:
        if is_corpus(Path(target)):
            raise ValueError(f"{target} is a corpus; a report is about a model, such as runs/quickstart/model")
        whole = open_tracer(target, corpora)
        self.model, run = locate(target), read_run(locate(target))
        own = [source for source in whole.sources if run and source.run and source.run.recipe == run.recipe]
        indexed = [source for source in own if isinstance(source.searcher, Index)]
        if not indexed or indexed[0].run is None:
            why = "; ".join([f"no token shard that the run of {target} read can be traced", *whole.notes])
            raise ValueError(why)
        self.run: ReadRun = indexed[0].run
        self.tracer = Tracer(only_read(whole.sources), whole.tokenizer, whole.notes)
        """Searches in all of each token shard that was read from, and not in the others of their corpora."""
        read = index_read(self.tracer.sources)
        self.read = self.tracer if isinstance(read, str) else Tracer([Source(read)], whole.tokenizer)
        """Longest matches in what the run read alone; in all of `tracer` where memory is too small, as a note says."""
        self.notes = [*whole.notes, *([read] if isinstance(read, str) else [])]
        self.sets: dict[int, list[tuple[int, Shard]]] = {}
        """For each set of `data.train` its shards, each with the tokens before it."""
        for source in indexed:
            assert isinstance(source.searcher, Index)
            for name, places in source.parts.items():
                for part, first in places:
                    self.sets.setdefault(part, []).append((first, Shard(source.searcher, name)))
        for shards in self.sets.values():
            shards.sort(key=lambda one: one[0])
        self.held_out = [
            Shard(source.searcher, name)
            for source in indexed
            if isinstance(source.searcher, Index)
            for name in dict.fromkeys(shard.shard for shard in source.searcher.shards)
            if name not in read_of(source.searcher, whole.sources)
        ]
        """Token shards of the same corpora that were not read, such as valid and test."""
        self.opened: dict[Path, TokenShard] = {}

    def drawn_read(self, n: int, length: int, seed: int, first: int = 1, last: int | None = None) -> list[Passage]:
        """Passages of `length` tokens whose documents the run read for the first time in the steps from `first` to
        `last` (the end), as often from each set as it was read; fewer than `n` where there are no more."""
        run, rng = self.run, np.random.default_rng(seed)
        rows, last = run.recipe.batch_rows, run.steps if last is None else last
        bounds = run.batch_of(first) * rows, (run.batch_of(last) + 1) * rows

        def draw(n: int) -> list[tuple[int, int]]:
            places = [run.order.place(number) for number in rng.integers(*bounds, size=n).tolist()]
            steps = self.first_steps(places)
            return [place for place, step in zip(places, steps, strict=True) if first <= step <= last]

        return self.passages(n, length, rng, draw)

    def drawn_unread(self, n: int, length: int, seed: int, like: Sequence[Passage]) -> list[Passage]:
        """Passages of sequences of the same sets that the run never read, as many of each set as among `like`; none
        where it read all."""
        run, rng = self.run, np.random.default_rng(seed)
        parts = [passage.part for passage in like]

        def draw(n: int) -> list[tuple[int, int]]:
            some = [parts[number] for number in rng.integers(len(parts), size=n).tolist()]
            places = [(part, int(rng.integers(run.sets[part].size))) for part in some]
            return [place for place, step in zip(places, self.first_steps(places), strict=True) if step == 0]

        return self.passages(n, length, rng, draw) if parts else []

    def first_steps(self, places: Sequence[tuple[int, int]]) -> list[int]:
        """The first step that read each sequence (set, number); 0 for one that was not read, or is of another set."""
        found, (parts, windows) = np.zeros(len(places), np.int64), np.array(places).T
        for part in self.sets:
            here = np.flatnonzero(parts == part)
            which, steps = self.run.when(part, windows[here])
            first = np.full(len(here), self.run.steps + 1)
            np.minimum.at(first, which, steps)
            found[here] = np.where(first > self.run.steps, 0, first)
        return found.tolist()

    def passages(
        self, n: int, length: int, rng: np.random.Generator, draw: Callable[[int], list[tuple[int, int]]]
    ) -> list[Passage]:
        """A passage of each sequence (set, number) that `draw` gives of so many tries, of different documents."""
        found, used = list[Passage](), set[tuple[Path, int]]()
        for part, window in (place for _ in range(TRIES) for place in draw(n)):
            if len(found) == n:
                break
            size = self.run.recipe.data.sequence_length
            begin = window * size
            before, shard = self.sets[part][bisect.bisect_right(self.sets[part], begin, key=lambda one: one[0]) - 1]
            begin, end = begin - before, begin - before + size + 1
            passage = self.passage(shard, begin, end, length, rng, used, part)
            found += [] if passage is None else [passage]
        return found

    def drawn_held_out(self, n: int, length: int, seed: int, like: Sequence[Passage]) -> list[Passage]:
        """Passages of random windows of the held-out token shards, of each component as many as among `like`, as far as
        there are so many; drawn as those that were read are."""
        rng, window = np.random.default_rng(seed), self.run.recipe.data.sequence_length
        wanted, found = Counter(passage.component for passage in like), list[Passage]()
        sizes = np.array([len(self.open(shard).tokens) for shard in self.held_out], np.int64)
        if not sizes.sum():
            return found
        for _ in range(MOST_OF_ONE):
            used = set[tuple[Path, int]]()
            for _ in range(TRIES):
                before, numbers = len(found), rng.choice(len(sizes), n, p=sizes / sizes.sum())
                begins = rng.integers(np.maximum(1, sizes[numbers] - window))
                for number, begin in zip(numbers.tolist(), begins.tolist(), strict=True):
                    shard = self.held_out[number]
                    passage = self.passage(shard, begin, begin + window + 1, length, rng, used, -1)
                    if passage is not None and wanted[passage.component] > 0 and len(found) < n:
                        wanted[passage.component] -= 1
                        found.append(passage)
                if len(found) in (before, n):
                    break
        return found

    def passage(
        self,
        shard: Shard,
        begin: int,
        end: int,
        length: int,
        rng: np.random.Generator,
        used: set[tuple[Path, int]],
        part: int,
    ) -> Passage | None:
        """A passage of one of the documents between two places of a shard, whose row is noted in `used`; None where
        they are too short, or the document was used already. `part` is what `Passage` has."""
        tokens = self.open(shard)
        offsets = tokens.offsets
        first = int(np.searchsorted(offsets, begin, "right")) - 1
        last = int(np.searchsorted(offsets, min(end, offsets[-1]), "left"))
        bounds = [int(offset) for offset in offsets[first : last + 1]]
        pieces = [
            (document, max(begin, low), min(end, high - 1))  # without the end token
            for document, (low, high) in enumerate(pairwise(bounds), first)
        ]
        pieces = [one for one in pieces if one[2] - one[1] >= length]
        if not pieces:
            return None
        document, low, high = pieces[int(rng.integers(len(pieces)))]
        row = int(shard.index.documents.rows(shard.name, np.array([document]))[0])
        if (shard.path, row) in used:
            return None
        used.add((shard.path, row))
        start = int(rng.integers(low, high - length + 1))
        component = shard.index.documents.read(shard.name, [row])[0].component
        name = f"{shard.index.corpus} {row}"
        return Passage(tuple(tokens.tokens[start : start + length].tolist()), component, part, name)

    def open(self, shard: Shard) -> TokenShard:
        """The tokens of a shard."""
        if shard.path not in self.opened:
            self.opened[shard.path] = TokenShard(shard.path)
        return self.opened[shard.path]

    def places(self, passages: Sequence[Passage], length: int) -> np.ndarray:
        """At how many places of the token shards, read or not, the first `length` tokens of passages stand, (n,)."""
        return self.tracer.counts(*first_tokens(passages, length))

    def counts(self, passages: Sequence[Passage], length: int) -> np.ndarray:
        """How often the first `length` tokens of each passage were read whole, in one sequence, (n,); of a passage
        that stands at more than `LOOKED_AT` places of an index shard, those are looked at."""
        found = np.zeros(len(passages), np.int64)
        for source, run in ((one, one.run) for one in self.tracer.sources if one.run is not None):
            low, high = source.searcher.find(*first_tokens(passages, length))
            for places in source.searcher.places(low, high, LOOKED_AT):
                for part, first in source.parts.get(places.shard, ()):
                    lengths = np.full(len(places.positions), length)
                    held = run.steps_at(part, places.positions + first, lengths)
                    found += np.bincount(places.matches[held.match[held.whole]], minlength=len(found))
        return found


def first_tokens(passages: Sequence[Passage], length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first `length` tokens of each passage, end to end, and where each begins and ends."""
    ids = np.array([passage.tokens[:length] for passage in passages], np.int32).reshape(-1)
    firsts = np.arange(len(passages)) * length
    return ids, firsts, firsts + length


def documents_of(passages: Sequence[Passage]) -> list[str]:
    """The documents of passages, within which they are not independent."""
    return [passage.document for passage in passages]


def read_of(searcher: Searcher, sources: Sequence[Source]) -> set[str]:
    """The token shards of a corpus that the run of any source read."""
    return {name for source in sources if source.searcher is searcher for name in source.parts}


def only_read(sources: Sequence[Source]) -> list[Source]:
    """Sources whose searches leave out the token shards that no run read."""
    narrow: dict[Searcher, Searcher] = {}
    for searcher in dict.fromkeys(source.searcher for source in sources if source.parts):
        read = read_of(searcher, sources)
        shards = [shard for shard in searcher.shards if shard.shard in read]
        narrow[searcher] = Searcher(searcher.name, shards, searcher.documents)
    return [Source(narrow[one.searcher], one.run, one.parts) for one in sources if one.parts]


def alike(read: Sequence[Passage], others: Sequence[Passage]) -> tuple[list[Passage], list[Passage]]:
    """As many of both from each component, so that two kinds of passages differ in nothing but in being read."""
    least = Counter(passage.component for passage in read) & Counter(passage.component for passage in others)
    return at_most(read, least), at_most(others, least)


def at_most(passages: Sequence[Passage], counts: Counter[str]) -> list[Passage]:
    """The first passages of each component, as many as are counted."""
    left, found = Counter(counts), []
    for passage in passages:
        if left[passage.component] > 0:
            left[passage.component] -= 1
            found.append(passage)
    return found
