"""MinHash signatures of texts (Broder 1997), the bands that propose pairs, and the pairs that both find in theory.

A text is the set of its n-grams of terms: runs of letters, digits and marks, in lower case. The share of equal
positions in two signatures estimates the Jaccard similarity of the two sets.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bluejay.pile.text.text_batch import TextBatch, Texts, map_batches, mix64
from bluejay.recipe import STRICT

NOTHING = np.uint32(0xFFFFFFFF)
"""Every entry of the signature of a text without terms."""
FACTOR = np.uint64(0xD6E8FEB86659FD93)
"""Odd factor that makes a hash depend on the order of its terms."""


@dataclass(frozen=True)
class MinHashSettings:
    """Settings of near-copies: MinHash over word n-grams, banded LSH, and a check of every pair that it proposes."""

    __pydantic_config__ = STRICT
    bands: int = 14
    """Groups of hashes; a pair is checked when all hashes of one band are equal. FineWeb has 14 bands of 8."""
    rows: int = 8
    """Hashes of a band."""
    ngram: int = 5
    """Words of a shingle."""
    threshold: float = 0.7
    """Share of equal hashes, an estimate of the Jaccard similarity, from which a pair is near-copies."""

    def __post_init__(self) -> None:
        if min(self.bands, self.rows, self.ngram) < 1 or not 0 < self.threshold <= 1:
            raise ValueError("dedup.near: bands, rows and ngram are from 1, threshold is above 0 and at most 1")


def signatures(texts: Texts, near: MinHashSettings) -> NDArray[np.uint32]:
    """The signature of each text, (n, bands * rows). A text of fewer terms than `ngram` is one shingle."""
    parts = map_batches(texts, lambda batch: batch_signatures(batch, near))
    return np.concatenate([np.zeros((0, near.bands * near.rows), np.uint32), *parts])


def batch_signatures(batch: TextBatch, near: MinHashSettings) -> NDArray[np.uint32]:
    """The signature of each text of a batch, (n, bands * rows)."""
    shingles, bounds = shingles_of(batch, near.ngram)
    filled = np.flatnonzero(np.diff(bounds))
    found = np.full((near.bands * near.rows, len(batch)), NOTHING)
    if not len(filled):
        return found.T
    # Multiplication by an odd number permutes 32-bit numbers. Zero would be the minimum of every permutation.
    points = (shingles >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
    places = np.empty_like(points)
    for row, factor in enumerate(permutations(len(found))):
        np.multiply(points, factor, out=places)
        found[row, filled] = np.minimum.reduceat(places, bounds[filled])
    return np.ascontiguousarray(found.T)


def permutations(count: int) -> NDArray[np.uint32]:
    """Fixed odd factors of the permutations, (count,)."""
    return mix64(np.arange(1, count + 1, dtype=np.uint64)).astype(np.uint32) | np.uint32(1)


def shingles_of(batch: TextBatch, n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hash of every n consecutive terms, text by text, and the bounds of each text's hashes, (texts + 1,)."""
    terms = batch.terms
    # A gap of n - 1 after each text, so that a text of fewer than n terms makes a shingle, too.
    places = np.arange(len(terms.starts)) + (n - 1) * terms.document
    spread = np.zeros(len(places) + (n - 1) * len(batch) + 1, np.uint64)
    spread[places] = batch.hashes(terms, batch.lower_prefix)
    hashes = np.zeros(len(spread) - n + 1, np.uint64)
    for k in reversed(range(n)):
        hashes = hashes * FACTOR + spread[k : k + len(hashes)]
    each = np.where(terms.counts > 0, np.maximum(terms.counts - n + 1, 1), 0)
    bounds = np.append(0, np.cumsum(each))
    first = np.repeat(terms.bounds[:-1] + (n - 1) * np.arange(len(batch)) - bounds[:-1], each)
    return mix64(hashes[first + np.arange(bounds[-1])]), bounds


def band_keys(signatures: NDArray[np.uint32], near: MinHashSettings) -> NDArray[np.uint64]:
    """A hash of each band of each signature, (n, bands); 0 for a text without terms, which has no near-copies."""
    rows = signatures.reshape(-1, near.bands, near.rows).astype(np.uint64)
    keys = np.zeros(rows.shape[:2], np.uint64)
    for row in range(near.rows):
        keys = mix64(keys * FACTOR + rows[:, :, row])
    keys[(signatures == NOTHING).all(axis=1)] = 0
    return keys


def curve(near: MinHashSettings, similarity: float) -> tuple[float, float]:
    """The probability that a band proposes a pair of this similarity; and that the pair also passes the threshold."""
    # The probability of m equal positions in one band; and the same, with a band of only equal ones counted as none.
    band = np.array(
        [math.comb(near.rows, m) * similarity**m * (1 - similarity) ** (near.rows - m) for m in range(near.rows + 1)]
    )
    broken = np.append(band[:-1], 0.0)
    every, missed = np.ones(1), np.ones(1)
    for _ in range(near.bands):
        every, missed = np.convolve(every, band), np.convolve(missed, broken)
    proposed = every - missed
    return float(proposed.sum()), float(proposed[min_agreement(near) :].sum())


def min_agreement(near: MinHashSettings) -> int:
    """Equal positions that two signatures of near-copies have at least."""
    return math.ceil(near.threshold * near.bands * near.rows - 1e-9)


def curve_table(near: MinHashSettings) -> str:
    """The S-curve as lines of text: the probability that a pair is found, by its similarity."""
    lines = ["similarity  proposed  verified"]
    for percent in (50, 60, 65, 70, 75, 80, 85, 90, 95):
        proposed, verified = curve(near, percent / 100)
        lines.append(f"{percent / 100:10.2f}  {proposed:8.3f}  {verified:8.3f}")
    return "\n".join(lines)
