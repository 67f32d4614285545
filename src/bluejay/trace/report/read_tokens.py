"""What runs read, indexed in memory: each sequence that was read, once, cut where documents end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bluejay.machine import free_memory
from bluejay.progress import format_bytes
from bluejay.trace.index import Searcher
from bluejay.trace.reading import ReadRun, ranges
from bluejay.trace.suffix_arrays import IndexShard, memory_bytes
from bluejay.trace.tracing import Source


@dataclass(frozen=True)
class Pieces:
    """Pieces of the documents of an index shard, each read in one sequence."""

    shard: IndexShard
    begins: NDArray[np.int64]
    """Where each begins, in tokens of the index shard."""
    ends: NDArray[np.int64]

    @property
    def n_tokens(self) -> int:
        """The tokens of all pieces."""
        return int((self.ends - self.begins).sum())

    @property
    def memory(self) -> int:
        """The most memory that their index takes, in bytes."""
        return memory_bytes(self.n_tokens, len(self.begins), self.shard.tokens.itemsize == 2)

    def index(self) -> IndexShard:
        """Their index, in which each piece is a document."""
        bounds = zip(self.begins.tolist(), self.ends.tolist(), strict=True)
        tokens = np.concatenate([self.shard.tokens[begin:end] for begin, end in bounds])
        starts = np.concatenate([[0], np.cumsum(self.ends - self.begins)])
        return IndexShard.in_memory(self.shard.name, self.shard.shard, tokens, starts)


def pieces_read(sources: Sequence[Source]) -> Iterator[Pieces]:
    """What the runs of sources read of each index shard; of one that is in several sets, what was read of each set."""
    bounds_read = cache(ReadRun.bounds_read)
    for source, run in ((one, one.run) for one in sources if one.run is not None):
        for shard in source.searcher.shards:
            documents = shard.starts.astype(np.int64)
            for part, first in source.parts.get(shard.shard, ()):
                before = first + shard.first_token
                begins, ends = ((bounds - before).clip(0, documents[-1]) for bounds in bounds_read(run, part))
                begins, ends = begins[begins < ends], ends[begins < ends]
                low = np.searchsorted(documents, begins, "right") - 1
                which, document = ranges(low, np.searchsorted(documents, ends) - low)
                begins, ends = np.maximum(begins[which], documents[document]), ends[which]
                ends = np.minimum(ends, documents[document + 1])
                if (full := begins < ends).any():
                    yield Pieces(shard, begins[full], ends[full])


def index_read(sources: Sequence[Source]) -> Searcher | str:
    """An index in memory of what the runs of sources read, for longest matches alone, because its documents are pieces;
    where too little memory is free, a sentence that says so."""
    pieces = list(pieces_read(sources))
    needed, free = sum(one.memory for one in pieces), free_memory()
    if needed > free:
        there = sum(len(shard.tokens) for shard in {one.shard for one in pieces})
        read = sum(one.n_tokens for one in pieces)
        return (
            f"novelty and contamination are about the whole token shards that the run read from, of whose {there:,} "
            f"tokens it read {read:,}: an index of these needs {format_bytes(needed)} of memory, and "
            f"{format_bytes(free)} are free"
        )
    return Searcher("what was read", [one.index() for one in pieces], sources[0].searcher.documents)
