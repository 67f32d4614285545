"""Copies and near-copies: pairs, clusters, and the one document of each cluster that stays.

Rows are numbers of documents. Nothing here needs more than one bucket of one band in memory, but for the label of each
document while clusters are made.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluejay.pile.text import minhash
from bluejay.pile.text.minhash import MinHashSettings
from bluejay.pile.text.text_batch import Texts

NEIGHBOURS = 64
"""In a bucket, each document is compared with so many that follow it: with all, unless the bucket is larger."""
PAIRS_AT_ONCE = 1 << 14


def group_equal(ids: NDArray[Any]) -> NDArray[np.int64]:
    """The cluster of each document, where equal ids are one cluster: the smallest row that has the id."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    return first[inverse]


def candidate_pairs(keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The pairs of rows (m, 2) with equal keys in one band, i < j, sorted; key 0 is equal to nothing."""
    order = np.lexsort((rows, keys))
    order = order[keys[order] != 0]
    keys, rows = keys[order], rows[order]
    at = np.arange(len(keys))
    pairs = [np.zeros((0, 2), np.int64)]
    for distance in range(1, NEIGHBOURS + 1):
        at = at[at + distance < len(keys)]
        at = at[keys[at] == keys[at + distance]]
        if not len(at):
            break
        pairs.append(np.stack([rows[at], rows[at + distance]], axis=1))
    return unique_pairs(np.concatenate(pairs))


def unique_pairs(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each pair once, in order."""
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return pairs[np.append(True, (np.diff(pairs, axis=0) != 0).any(axis=1))[: len(pairs)]]


def agreeing_pairs(
    pairs: NDArray[np.int64], signatures: NDArray[np.uint32], near: MinHashSettings
) -> NDArray[np.bool_]:
    """Which pairs agree in enough places of their signatures, which are looked up by row."""
    least = minhash.min_agreement(near)
    agree = [
        (signatures[pairs[at : at + PAIRS_AT_ONCE, 0]] == signatures[pairs[at : at + PAIRS_AT_ONCE, 1]]).sum(axis=1)
        for at in range(0, len(pairs), PAIRS_AT_ONCE)
    ]
    return np.concatenate([np.zeros(0, np.int64), *agree]) >= least


def components(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The cluster of each of `count` rows, joined by pairs: the smallest row in it."""
    labels = np.arange(count)
    while True:
        ends = labels[pairs]
        if (ends[:, 0] == ends[:, 1]).all():
            return labels
        # Labels only fall, so they make trees; each step hooks roots to smaller ones and flattens the trees.
        np.minimum.at(labels, ends.max(axis=1), ends.min(axis=1))
        while (labels[labels] != labels).any():
            labels = labels[labels]


def survivors(clusters: NDArray[np.int64], priority: NDArray[np.int64], ids: NDArray[Any]) -> NDArray[np.bool_]:
    """Which row of each cluster stays: the one of the lowest priority number, of several the one of the smallest id."""
    order = np.lexsort((ids, priority, clusters))
    first = np.ones(len(order), np.bool_)
    first[1:] = np.diff(clusters[order]) != 0
    stays = np.zeros(len(order), np.bool_)
    stays[order[first]] = True
    return stays


def near_duplicates(texts: Iterable[Texts], near: MinHashSettings) -> NDArray[np.int64]:
    """The cluster of each document, all in memory: 500 bytes per document."""
    found = [np.zeros((0, near.bands * near.rows), np.uint32)]
    found += [minhash.signatures(part, near) for part in texts]
    signatures = np.concatenate(found)
    keys, rows = minhash.band_keys(signatures, near), np.arange(len(signatures))
    pairs = unique_pairs(np.concatenate([candidate_pairs(keys[:, band], rows) for band in range(near.bands)]))
    return components(pairs[agreeing_pairs(pairs, signatures, near)], len(signatures))
