"""Searches in the index of a corpus: longest matches, counts, places, and what follows.

`bluejay index CORPUS` makes the index. Matches are within documents. All numbers of tokens and documents are exact.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bluejay.tokenizer import Tokenizer
from bluejay.tokens import DOCUMENTS_TABLE
from bluejay.trace.document_rows import ROWS, Row, Rows, hash_of_table
from bluejay.trace.sections import Sections, advised, as_written, to_index
from bluejay.trace.suffix_arrays import (
    FOLDER,
    KIND,
    SUFFIXES,
    IndexShard,
    no_corpus,
    require_native,
)
from bluejay.train.data.content import hash_of_shard

Ids = Sequence[int] | NDArray[np.integer]


@dataclass(frozen=True)
class Places:
    """Places of several matches in an index shard: match by match, and of each in the order of the corpus."""

    shard: str
    """The token shard: train, valid, test."""
    matches: NDArray[np.int64]
    """The number of the match."""
    positions: NDArray[np.int64]
    """Where the match begins in the token shard, in tokens."""
    documents: NDArray[np.int64]
    """The number of its document in the token shard."""
    offsets: NDArray[np.int64]
    """Where the match begins in its document, in tokens."""
    rows: NDArray[np.int64]
    """The row of its document, which the copies of a document share."""
    part: IndexShard
    """The index shard that holds them."""


@runtime_checkable
class Documents(Protocol):
    """What is known of the documents of a set."""

    def rows(self, shard: str, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the row of each document of a token shard; copies of a document share a row."""
        ...

    def read(self, shard: str, rows: Sequence[int]) -> list[Row]:
        """Rows. Raises ValueError where the index is damaged."""
        ...


class Searcher:
    """Searches in index shards. All numbers of tokens and documents are exact."""

    def __init__(self, name: str, shards: Sequence[IndexShard], documents: Documents) -> None:
        self.name, self.shards, self.documents = name, list(shards), documents
        self.n_tokens = sum(len(shard.tokens) for shard in shards)

    def ids(self, text: str | Ids) -> NDArray[np.int32]:
        """The given ids, checked. Raises ValueError: they are a text or no list of integers, or one is negative or has
        more than 31 bits."""
        if isinstance(text, str):
            raise ValueError(f"{self.name} has no tokenizer; give token ids")
        ids = integers(text)
        if ids is None:
            raise ValueError("token ids are integers from 0 to 2^31 - 1, in one list")
        return ids

    def tokens_in(self, shard: str) -> int:
        """How many tokens of a token shard are searched."""
        return sum(len(part.tokens) for part in self.shards if part.shard == shard)

    def longest(self, text: str | Ids) -> NDArray[np.int32]:
        """For each token of a text, the length of the longest match that begins with it, (T,). Raises ValueError as
        `ids`."""
        ids = self.ids(text)
        found = np.zeros(len(ids), np.int32)
        for shard in sorted(self.shards, key=lambda shard: -len(shard.tokens)):  # small ones then have little to add
            shard.call("longest", ids, found)
        return found

    def find(self, text: str | Ids, firsts: Ids, lasts: Ids) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The suffixes that begin with the tokens firsts[i] .. lasts[i] - 1 of a text: their ranks in each index shard,
        from low to high - 1; both are (shards, n)."""
        ids = self.ids(text)
        bounds = np.asarray(firsts, np.int64), np.asarray(lasts, np.int64)
        found = [shard.call("find", ids, *bounds) for shard in self.shards]
        return np.stack([low for low, _ in found]), np.stack([high for _, high in found])

    def counts(self, text: str | Ids, firsts: Ids, lasts: Ids) -> NDArray[np.int64]:
        """How often the tokens firsts[i] .. lasts[i] - 1 of a text occur, (n,)."""
        low, high = self.find(text, firsts, lasts)
        return (high - low).sum(axis=0)

    def occurrences(self, ids: NDArray[np.int32]) -> NDArray[np.int64]:
        """How often each token occurs by itself, (T,)."""
        return np.sum([shard.occurrences(ids) for shard in self.shards], axis=0)

    def count(self, text: str | Ids) -> int:
        """How often a text occurs. Raises ValueError as `ids`."""
        ids = self.ids(text)
        return int(self.counts(ids, [0], [len(ids)])[0])

    def places(self, low: NDArray[np.int64], high: NDArray[np.int64], at_most: int) -> Iterator[Places]:
        """The places of matches from their ranks in each index shard (`find`), `at_most` of each match and shard."""
        for shard, first, last in zip(self.shards, low, high, strict=True):
            if not (first < last).any():
                continue
            positions, documents, ends = shard.call("places", first, last, at_most)
            matches = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
            offsets = positions - shard.starts[documents]
            documents = documents + shard.first_document
            rows = self.documents.rows(shard.shard, documents)
            yield Places(shard.shard, matches, positions + shard.first_token, documents, offsets, rows, shard)

    def next_tokens(self, text: str | Ids) -> tuple[int, dict[int, int]]:
        """What follows a text in the corpus: the length of the longest end of it that occurs, and how often each token
        follows that end; -1 stands for the end of a document (infini-gram, arXiv 2401.17377, section 2).
        Raises ValueError as `ids`."""
        ids = self.ids(text)
        reach = np.arange(len(ids)) + self.longest(ids)
        first = int(np.searchsorted(reach, len(ids)))
        return len(ids) - first, self.followers(ids[first:])

    def followers(self, text: str | Ids) -> dict[int, int]:
        """How often each token follows a text, the most frequent first; -1 stands for the end of a document."""
        ids = self.ids(text)
        low, high = self.find(ids, [0], [len(ids)])
        found: dict[int, int] = {}
        for shard, begin, end in zip(self.shards, low[:, 0], high[:, 0], strict=True):
            tokens, counts = shard.call("next", int(begin), int(end), len(ids))
            for token, count in zip(tokens.tolist(), counts.tolist(), strict=True):
                found[token] = found.get(token, 0) + count
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def around(self, shard: str, position: int, length: int, before: int, after: int) -> tuple[int, NDArray[np.int64]]:
        """The tokens around a match of `length` tokens at a position of a token shard, at most `before` tokens
        before it and `after` tokens behind it, all of its document: where the match begins in them, and the ids (T,).
        Raises ValueError: the shard has no such position."""
        for part in self.shards:
            if part.shard == shard and part.first_token <= position < part.last_token:
                at = position - part.first_token
                document = int(np.searchsorted(part.starts, at, "right")) - 1
                first = max(int(part.starts[document]), at - before)
                last = min(int(part.starts[document + 1]), at + length + after)
                return at - first, part.tokens[first:last].astype(np.int64)
        raise ValueError(f"{shard} has no token {position}")


def integers(values: Any) -> NDArray[np.int32] | None:
    """The integers of a list, an array or a tensor, (T,); None where it is no such thing, or one is below 0 or has more
    than 31 bits."""
    values = values.tolist() if hasattr(values, "tolist") and not isinstance(values, np.ndarray) else values
    try:
        found = np.asarray(values)
    except ValueError:  # lists of different lengths
        return None
    if found.ndim != 1 or (found.size and not (found.dtype.kind in "iu" and 0 <= found.min() <= found.max() < 2**31)):
        return None
    return found.astype(np.int32)


class NotIndexed(FileNotFoundError, ValueError):
    """Corpora have no index, or one that is half built; `bluejay index` makes it."""

    def __init__(self, message: str, corpora: Sequence[Path]) -> None:
        super().__init__(message)
        self.corpora = list(corpora)


class Index(Searcher):
    """The index of a corpus, opened.

    Raises FileNotFoundError: there is no corpus; NotIndexed: the corpus has no index, or a half built one; ValueError:
    it is damaged or of other tokens.
    """

    def __init__(self, corpus: str | Path) -> None:
        require_native()
        self.corpus = Path(corpus)
        directory, command = self.corpus / FOLDER, to_index(self.corpus)
        files = sorted(directory.glob(f"*{SUFFIXES}"))
        if not files and not any((self.corpus / "tokens").glob("*.idx")):
            raise FileNotFoundError(no_corpus(self.corpus))
        if not files:
            raise NotIndexed(f"{self.corpus} has no index; {command}", [self.corpus])
        if not (directory / ROWS).exists():
            raise NotIndexed(f"the index of {self.corpus} is half built; {command}", [self.corpus])
        with advised(self.corpus):
            rows, shards = Rows(directory / ROWS), [IndexShard.open(file, self.corpus) for file in files]
        super().__init__(str(corpus), shards, rows)
        self.content = rows.content
        for path in (self.corpus / "tokens").glob("*.bin"):
            parts = [shard for shard in self.shards if shard.shard == path.stem]
            covered = all(one.last_token == other.first_token for one, other in pairwise(parts))
            size = path.stat().st_size // self.shards[0].tokens.itemsize
            if size and not (parts and covered and (parts[0].first_token, parts[-1].last_token) == (0, size)):
                message = f"the index of {self.corpus} is half built: it does not hold all of {path}; {command}"
                raise NotIndexed(message, [self.corpus])

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the corpus. Raises FileNotFoundError if it has none."""
        return Tokenizer.load(self.corpus)

    def ids(self, text: str | Ids) -> NDArray[np.int32]:
        """The token ids of a text, or the given ones, checked. Raises ValueError as `Searcher.ids`."""
        return super().ids(self.tokenizer.encode(text) if isinstance(text, str) else text)

    def check(self) -> None:
        """Read the whole index, its tokens and their table, and compare the checksums. Raises ValueError where the
        index is damaged, or of other tokens or another table."""
        command, tokens = to_index(self.corpus), self.corpus / "tokens"
        others = f"which have changed; {command}"
        for shard in self.shards:
            path = Path(shard.name)
            with advised(self.corpus), as_written(path):
                sections = Sections(path, KIND)
                sections.check()
                digest = sections.values["sha256"]
            if hashlib.sha256(shard.tokens.data).hexdigest() != digest:
                raise ValueError(f"{shard.name} is the index of other tokens than {tokens / shard.shard}.bin, {others}")
        rows, table = Sections(self.corpus / FOLDER / ROWS, "documents"), tokens / DOCUMENTS_TABLE
        with advised(self.corpus):
            rows.check()
        if "table" in rows.values and rows.values["table"] != hash_of_table(table):  # older ones lack it
            raise ValueError(f"{rows.path} is of another table than {table}, which has changed; {command}")
        for name, content in self.content.items():
            if hash_of_shard(tokens / name) != content:
                raise ValueError(f"{self.corpus / FOLDER / ROWS} is of other tokens than {tokens / name}, {others}")
