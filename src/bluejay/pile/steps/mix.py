"""Random decisions about a document: its split, its copies, its place. Each is a function of its text and the seed.

So nothing depends on the order in which documents are read, on the number of workers, or on the rest of the corpus.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bluejay.pile.recipe import Component, Mix, Split
from bluejay.pile.text.text_batch import mix64

SPLITS = ("train", "valid", "test")
"""The names of the splits, by their numbers."""


def rehash(hashes: NDArray[np.uint64], seed: int, purpose: str) -> NDArray[np.uint64]:
    """Hash text hashes again, independently for each purpose."""
    salt = int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8])
    return mix64(hashes ^ np.uint64(salt))


def uniform(hashes: NDArray[np.uint64], seed: int, purpose: str) -> NDArray[np.float64]:
    """A uniform random number in [0, 1) for each text hash."""
    return (rehash(hashes, seed, purpose) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def split_of(hashes: NDArray[np.uint64], split: Split, seed: int) -> NDArray[np.uint8]:
    """The split of each cluster of near-copies, as an index in SPLITS; `hashes` are those of the representatives."""
    drawn = uniform(hashes, seed, "split")
    return np.where(drawn < split.test, 2, np.where(drawn < split.test + split.valid, 1, 0)).astype(np.uint8)


def copies_of(hashes: NDArray[np.uint64], epochs: float, seed: int) -> NDArray[np.int64]:
    """How often the training split holds each document: `epochs`, randomly rounded so that the mean is right."""
    return np.floor(epochs + uniform(hashes, seed, "epochs")).astype(np.int64)


def shuffle_keys(hashes: NDArray[np.uint64], copy: int, seed: int) -> NDArray[np.uint64]:
    """The sort key of the `copy`-th copy of each document."""
    return rehash(hashes, seed, f"order/{copy}")


def epochs_of(components: Sequence[Component], sizes: Mapping[str, int], mix: Mix) -> dict[str, float]:
    """How often each component is read, from its epochs, its weight, or its size in bytes and the temperature.

    Weights and temperature only fix shares. The total follows from the component that is repeated least, which is read
    once, so no text is left out.
    """
    wanted = {c.name: c.weight or sizes[c.name] ** (1 / mix.temperature) for c in components if sizes[c.name]}
    repeats = {name: share / sizes[name] for name, share in wanted.items()}
    least = min((repeats[c.name] for c in components if c.name in repeats and c.epochs is None), default=1.0)
    return {
        c.name: c.epochs if c.epochs is not None else min(repeats.get(c.name, least) / least, mix.most_epochs)
        for c in components
    }
