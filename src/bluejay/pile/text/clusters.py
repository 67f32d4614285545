"""Copies and near-copies: pairs, clusters, and the one document of each cluster that stays.

Documents are given by their row numbers. Only `components` needs memory for all documents that have near-copies; the
other functions work on one bucket of one band at a time.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluejay.pile.text import minhash
from bluejay.pile.text.minhash import MinHashSettings

NEIGHBOURS = 64
"""Documents of a bucket that each is compared with: those that follow it."""
PAIRS_AT_ONCE = 1 << 14
"""Candidate pairs that are compared at once, which bounds the memory."""


def group_equal(ids: NDArray[Any]) -> NDArray[np.int64]:
    """For each document the smallest row with an equal id."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    return first[inverse]


def candidate_pairs(keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The pairs of rows (m, 2) with equal keys in one band, i < j, sorted; a key of 0 equals no other."""
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
    """Sort pairs and remove duplicates."""
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return pairs[np.append(True, (np.diff(pairs, axis=0) != 0).any(axis=1))[: len(pairs)]]


def agreeing_pairs(
    pairs: NDArray[np.int64], signatures: NDArray[np.uint32], near: MinHashSettings
) -> NDArray[np.bool_]:
    """Which pairs of rows of `signatures` agree in at least `min_agreement` positions, (m,)."""
    least = minhash.min_agreement(near)
    agree = [
        (signatures[pairs[at : at + PAIRS_AT_ONCE, 0]] == signatures[pairs[at : at + PAIRS_AT_ONCE, 1]]).sum(axis=1)
        for at in range(0, len(pairs), PAIRS_AT_ONCE)
    ]
    return np.concatenate([np.zeros(0, np.int64), *agree]) >= least


def components(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The connected components of `count` rows that pairs join: for each row the smallest row of its component."""
    labels = np.arange(count)
    while True:
        ends = labels[pairs]
        if (ends[:, 0] == ends[:, 1]).all():
            return labels
        # Labels only decrease, so they form trees; each step hooks roots to smaller rows and flattens the trees.
        np.minimum.at(labels, ends.max(axis=1), ends.min(axis=1))
        while (labels[labels] != labels).any():
            labels = labels[labels]


def survivors(clusters: NDArray[np.int64], priority: NDArray[np.int64], ids: NDArray[Any]) -> NDArray[np.bool_]:
    """Which row of each cluster stays: the lowest priority number wins, then the smallest id."""
    order = np.lexsort((ids, priority, clusters))
    first = np.ones(len(order), np.bool_)
    first[1:] = np.diff(clusters[order]) != 0
    stays = np.zeros(len(order), np.bool_)
    stays[order[first]] = True
    return stays
