"""Clusters are the connected components that networkx finds, and the same document of each stays, in any order."""

import random
from collections.abc import Iterable

import networkx
import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bluejay.pile.text import clusters, minhash
from bluejay.pile.text.minhash import MinHashSettings
from bluejay.pile.text.text_batch import Texts

EDGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=60)


def near_duplicates(texts: Iterable[Texts], near: MinHashSettings) -> NDArray[np.int64]:
    """The cluster of each document, all in memory: 500 bytes per document."""
    found = [np.zeros((0, near.bands * near.rows), np.uint32)]
    found += [minhash.signatures(part, near) for part in texts]
    signatures = np.concatenate(found)
    keys, rows = minhash.band_keys(signatures, near), np.arange(len(signatures))
    pairs = [clusters.candidate_pairs(keys[:, band], rows) for band in range(near.bands)]
    pairs = clusters.unique_pairs(np.concatenate(pairs))
    return clusters.components(pairs[clusters.agreeing_pairs(pairs, signatures, near)], len(signatures))


@settings(deadline=None)
@given(EDGES)
def test_components_are_those_of_networkx(edges: list[tuple[int, int]]) -> None:
    graph = networkx.Graph(edges)
    graph.add_nodes_from(range(41))
    labels = clusters.components(np.array(edges, np.int64).reshape(-1, 2), 41)
    for component in networkx.connected_components(graph):
        assert {labels[row] for row in component} == {min(component)}


def test_a_long_chain_is_one_cluster() -> None:
    rows = np.random.RandomState(0).permutation(100_000)
    labels = clusters.components(np.stack([rows[:-1], rows[1:]], axis=1), len(rows))
    assert (labels == 0).all()


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=40))
def test_candidates_are_all_pairs_with_equal_keys(keys: list[int]) -> None:
    rows = np.arange(len(keys)) * 3
    wanted = [(3 * i, 3 * j) for i in range(len(keys)) for j in range(i + 1, len(keys)) if keys[i] == keys[j] != 0]
    shuffled = np.random.RandomState(1).permutation(len(keys))
    pairs = clusters.candidate_pairs(np.array(keys, np.uint64)[shuffled], rows[shuffled])
    assert list(map(tuple, pairs.tolist())) == wanted


def test_a_crowded_bucket_stays_connected_in_linear_space() -> None:
    pairs = clusters.candidate_pairs(np.ones(5000, np.uint64), np.arange(5000))
    assert len(pairs) <= clusters.NEIGHBOURS * 5000
    assert (clusters.components(pairs, 5000) == 0).all()


def test_the_first_component_keeps_a_text_and_then_the_smallest_id() -> None:
    labels = np.array([0, 0, 0, 3, 4, 4])
    priority = np.array([1, 0, 0, 2, 1, 1])
    ids = np.array([b"a", b"c", b"b", b"x", b"z", b"y"])
    assert clusters.survivors(labels, priority, ids).tolist() == [False, False, True, True, False, True]
    assert clusters.survivors(labels[:0], priority[:0], ids[:0]).tolist() == []


def test_equal_ids_are_one_cluster() -> None:
    assert clusters.group_equal(np.array([b"q", b"a", b"q", b"b", b"a"])).tolist() == [0, 1, 0, 3, 1]


def test_near_copies_are_found_in_any_order_and_any_parts() -> None:
    random_ = random.Random(3)
    texts = []
    for group in range(60):
        words = [f"{group}w{random_.randrange(1000)}" for _ in range(300)]
        texts += [" ".join(words)] + [
            " ".join([*words[:150], f"edit{copy}", *words[150:]]) for copy in range(group % 4)
        ]
    order = list(range(len(texts)))
    random_.shuffle(order)
    near = MinHashSettings()
    whole = near_duplicates([pa.array(texts)], near)
    parts = near_duplicates([pa.array([texts[row]]) for row in order], near)
    assert len(set(whole.tolist())) == 60
    together = {frozenset(np.flatnonzero(whole == cluster).tolist()) for cluster in set(whole.tolist())}
    shuffled = {frozenset(order[row] for row in np.flatnonzero(parts == cluster)) for cluster in set(parts.tolist())}
    assert together == shuffled
    ids = np.array([str(hash(text)).encode() for text in texts])
    stays = clusters.survivors(whole, np.zeros(len(texts), np.int64), ids)
    again = clusters.survivors(parts, np.zeros(len(texts), np.int64), ids[order])
    assert {texts[row] for row in np.flatnonzero(stays)} == {texts[order[row]] for row in np.flatnonzero(again)}
    assert stays.sum() == 60


def test_texts_without_words_are_no_copies() -> None:
    assert near_duplicates([pa.array(["", "...", "--"])], MinHashSettings()).tolist() == [0, 1, 2]
    assert near_duplicates([], MinHashSettings()).tolist() == []
