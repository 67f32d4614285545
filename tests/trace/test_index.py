"""Searches in an index find what brute force finds, in any corpus."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bluejay.trace import Index
from bluejay.trace.indexing import index
from tests.trace.conftest import write_corpus

DOCUMENTS = st.one_of(
    st.lists(st.lists(st.integers(0, 2), max_size=12), min_size=1, max_size=12),
    st.lists(st.lists(st.integers(0, 200), max_size=12), min_size=1, max_size=12),
    st.lists(st.sampled_from([[], [1, 2, 1, 2, 1], [1, 2, 0], [0]]), min_size=1, max_size=60),
)
QUERIES = st.lists(st.integers(0, 3), min_size=1, max_size=16)


def occurrences(documents: list[list[int]], pattern: list[int]) -> list[tuple[int, int]]:
    """The documents and offsets at which a pattern stands."""
    n = len(pattern)
    places = ((d, at) for d, ids in enumerate(documents) for at in range(len(ids) - n + 1))
    return [(d, at) for d, at in places if documents[d][at : at + n] == pattern]


def check(opened: Index, documents: list[list[int]], query: list[int]) -> None:
    """Compare all searches with brute force."""
    longest = opened.longest(query).tolist()
    for start, length in enumerate(longest):
        assert length == 0 or occurrences(documents, query[start : start + length])
        assert start + length == len(query) or not occurrences(documents, query[start : start + length + 1])
    bounds = [(a, b) for a in range(len(query)) for b in range(a + 1, len(query) + 1)]
    firsts, lasts = zip(*bounds, strict=True)
    low, high = opened.find(query, firsts, lasts)
    found = [
        place
        for places in opened.places(low, high, 10**9)
        for place in zip(places.matches.tolist(), places.documents.tolist(), places.offsets.tolist(), strict=True)
    ]
    assert sorted(found) == [(i, *at) for i, (a, b) in enumerate(bounds) for at in occurrences(documents, query[a:b])]
    assert opened.counts(query, firsts, lasts).tolist() == [len(occurrences(documents, query[a:b])) for a, b in bounds]
    length, follows = opened.next_tokens(query)
    end = query[len(query) - length :]
    assert length == max(n for n in range(len(query) + 1) if n == 0 or occurrences(documents, query[-n:]))
    if length:
        after = [documents[d][at + length : at + length + 1] or [-1] for d, at in occurrences(documents, end)]
        tokens = [token for [token] in after]
        assert follows == {token: tokens.count(token) for token in tokens}


@settings(max_examples=60)
@given(DOCUMENTS, QUERIES, st.sampled_from([2**28, 7]), st.sampled_from([259, 70_000]))
@example([[1, 2, 3]] * 1000, [0, 1, 2, 3, 1], 2**28, 259)
@example([[1, 2, 3]] * 1000, [1, 2, 3], 500, 70_000)
@example([[], [], [5], []], [5, 5], 2**28, 259)
@example([[0, 1], [2, 0], [1, 2]], [0, 1, 2, 0, 1, 2], 3, 259)
def test_all_searches_equal_brute_force(documents, query, shard_tokens, vocab_size):
    shift = vocab_size - 259  # ids of four bytes are large, too
    documents = [[token + shift for token in ids] for ids in documents]
    query = [token + shift for token in query]
    with tempfile.TemporaryDirectory() as folder:
        directory = write_corpus(Path(folder), {"train": documents}, vocab_size)
        made = index(directory, shard_tokens)
        opened = Index(directory)
        assert made.shards == len(opened.shards) and opened.n_tokens == sum(map(len, documents))
        check(opened, documents, query)
        opened.check()


def test_tokens_that_the_corpus_does_not_have_match_nothing(tmp_path, corpus):
    index(corpus(tmp_path, {"train": [[1, 2, 258]]}))
    opened = Index(tmp_path)
    assert opened.longest([70_000, 1, 2, 2**31 - 1, 258]).tolist() == [0, 2, 1, 0, 1]
    assert opened.count([300]) == 0 and opened.count([2, 258]) == 1
    for ids in ([1.5], [[1, 2]], [True], [-1], [2**40]):
        with pytest.raises(ValueError, match=r"token ids are integers from 0 to 2\^31 - 1, in one list"):
            opened.count(ids)


def test_matches_of_many_documents_of_a_real_size(tmp_path, corpus):
    generator = np.random.default_rng(0)
    documents = [(generator.zipf(1.3, size) % 250).tolist() for size in generator.integers(0, 900, 300)]
    index(corpus(tmp_path, {"train": documents}), 40_000)
    opened = Index(tmp_path)
    assert len(opened.shards) > 2
    for ids in documents[::60]:
        if ids:
            query = ids[: len(ids) // 2][-6:]
            assert opened.longest(ids).tolist() == [len(ids) - i for i in range(len(ids))]
            assert opened.count(query) == len(occurrences(documents, query))


def test_what_stands_around_a_match_ends_with_its_document(tmp_path, corpus):
    index(corpus(tmp_path, {"train": [[9, 9], [1, 2, 3, 4], [8]]}))
    at, tokens = Index(tmp_path).around("train", 3, 2, before=5, after=5)
    assert (at, tokens.tolist()) == (1, [1, 2, 3, 4])
