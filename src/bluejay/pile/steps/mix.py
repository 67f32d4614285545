"""What chance decides about a document: its part, its copies, its place. Each is a function of its text and the seed.

So nothing depends on the order in which documents are read, on the number of workers, or on what else is there.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bluejay.pile.recipe import Component, Mix, Split

SPLITS = ("train", "valid", "test")


def scrambled(hashes: NDArray[np.uint64], seed: int, purpose: str) -> NDArray[np.uint64]:
    """Other hashes, independent between purposes: splitmix64's finaliser (Steele et al. 2014) over hash and purpose."""
    salt = int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8])
    mixed = hashes ^ np.uint64(salt)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def uniform(hashes: NDArray[np.uint64], seed: int, purpose: str) -> NDArray[np.float64]:
    """Numbers in [0, 1)."""
    return (scrambled(hashes, seed, purpose) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def split_of(hashes: NDArray[np.uint64], split: Split, seed: int) -> NDArray[np.uint8]:
    """The part, as an index of SPLITS, that a cluster of near-copies belongs to; `hashes` are the clusters'."""
    at = uniform(hashes, seed, "split")
    return np.where(at < split.test, 2, np.where(at < split.test + split.valid, 1, 0)).astype(np.uint8)


def copies_of(hashes: NDArray[np.uint64], epochs: float, seed: int) -> NDArray[np.int64]:
    """How often the training part holds each document: `epochs` rounded down or up by chance, right on average."""
    return np.floor(epochs + uniform(hashes, seed, "epochs")).astype(np.int64)


def order_of(hashes: NDArray[np.uint64], copy: int, seed: int) -> NDArray[np.uint64]:
    """What documents are sorted by, anew for each copy."""
    return scrambled(hashes, seed, f"order/{copy}")


def epochs_of(components: Sequence[Component], sizes: Mapping[str, int], mix: Mix) -> dict[str, float]:
    """How often each component is read, from its epochs, its weight, or its size in bytes and the temperature.

    Weights and temperatures fix shares alone. The total follows from the component that is repeated least, which is
    read once, so no text is left out.
    """
    wanted = {c.name: c.weight or sizes[c.name] ** (1 / mix.temperature) for c in components if sizes[c.name]}
    repeats = {name: share / sizes[name] for name, share in wanted.items()}
    least = min((repeats[c.name] for c in components if c.name in repeats and c.epochs is None), default=1.0)
    return {
        c.name: c.epochs if c.epochs is not None else min(repeats.get(c.name, least) / least, mix.most_epochs)
        for c in components
    }
