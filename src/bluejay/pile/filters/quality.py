"""A classifier of text quality, and the filter that drops texts by its score.

The classifier is a logistic regression on the mean of hashed words and word pairs: what fastText, whose layers are
linear, computes with word 2-grams. The Pile and GPT-3 trained theirs on selected texts against raw web pages.
`bluejay.pile.filters.quality_train` trains one.
"""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bluejay.files import write_bytes
from bluejay.pile.filters.rule import Reasons, Rule, dropping, split_threshold
from bluejay.pile.text.minhash import shingles_of
from bluejay.pile.text.text_batch import TextBatch, Texts, map_batches

USAGE = "quality:FILE>9"
ALPHA = 9.0
"""Parameter of GPT-3's Pareto distribution; The Pile took 3, which keeps more texts of low score."""
BUCKETS = 1 << 20
"""Hash buckets of words and word pairs."""
FORMAT = "bluejay text quality 1"
"""What a file with a classifier states as its format."""


@dataclass(frozen=True)
class Classifier:
    """A trained classifier."""

    weights: NDArray[np.float32]
    """(BUCKETS + 1,): the weight of each bucket, then the bias."""

    def scores(self, texts: Texts) -> NDArray[np.float32]:
        """The probability that each text is a good one, (n,)."""
        return np.concatenate([np.zeros(0, np.float32), *map_batches(texts, self.batch_scores)])

    def batch_scores(self, batch: TextBatch) -> NDArray[np.float32]:
        """The score of each text of a batch, (n,); 0 for a text without words."""
        buckets, bounds = features(batch)
        return np.where(np.diff(bounds) > 0, sigmoid(self.logits(buckets, bounds)), 0).astype(np.float32)

    def logits(self, buckets: NDArray[np.int32], bounds: NDArray[np.int64]) -> NDArray[np.float64]:
        """The mean weight of the features of each text, plus the bias: (n,). The features are as `features` gives."""
        filled = np.flatnonzero(np.diff(bounds))
        means = np.zeros(len(bounds) - 1)
        if len(filled):
            # Each text is summed by itself, so that rounding does not depend on the texts before it.
            totals = np.add.reduceat(self.weights[buckets].astype(np.float64), bounds[filled])
            means[filled] = totals / np.diff(bounds)[filled]
        return means + float(self.weights[-1])

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        write_bytes(path, save({"weights": self.weights}, {"format": FORMAT}))

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Read a safetensors file. Raises ValueError: the file is missing, or `save` did not write it."""
        try:
            with safe_open(path, "numpy") as file:
                weights = file.get_tensor("weights") if (file.metadata() or {}).get("format") == FORMAT else None
        except (OSError, SafetensorError):
            raise ValueError(f"{path} cannot be read; bluejay pile quality makes a classifier") from None
        if weights is None or weights.shape != (BUCKETS + 1,) or weights.dtype != np.float32:
            raise ValueError(f"{path} is not a classifier of text quality; bluejay pile quality makes one")
        return cls(weights)


def features(batch: TextBatch) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The buckets of the words and word pairs of all texts, one text after another; and where each text's begin.

    Shapes: (features,) and (texts + 1,).
    """
    single, single_bounds = shingles_of(batch, 1)
    double, double_bounds = shingles_of(batch, 2)
    bounds = single_bounds + double_bounds
    buckets = np.empty(bounds[-1], np.int32)
    for hashes, own, other in ((single, single_bounds, double_bounds[:-1]), (double, double_bounds, single_bounds[1:])):
        place = np.arange(len(hashes)) + np.repeat(other, np.diff(own))
        buckets[place] = hashes & np.uint64(BUCKETS - 1)
    return buckets, bounds


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), without overflow."""
    return (1 + np.tanh(logits / 2)) / 2


def parse(name: str, seed: int) -> Rule:
    """The rule that a recipe names. Raises ValueError: the name is malformed, or FILE is not a classifier."""
    _, alpha = split_threshold(name, USAGE, ALPHA)
    classifier = Classifier.load(model_file(name) or Path())
    return dropping(partial(quality_reasons, classifier=classifier, alpha=alpha, seed=seed))


def model_file(name: str) -> Path | None:
    """The file of the classifier that a recipe names; None for any other filter."""
    kind, _, argument = name.partition(":")
    return Path(argument.partition(">")[0]).expanduser() if kind == "quality" else None


def quality_reasons(batch: TextBatch, classifier: Classifier, alpha: float, seed: int) -> Reasons:
    """Why each text is dropped: a number drawn from a Pareto distribution does not exceed 1 - score.

    Most texts of a high score stay, and some of a low one (Brown et al. 2020, appendix A; The Pile, appendix C).
    """
    uniform = np.array([uniform_of(text, seed) for text in batch.texts])
    drawn = (1 - uniform) ** (-1 / alpha) - 1
    reasons = np.full(len(batch), None, np.object_)
    reasons[drawn <= 1 - classifier.batch_scores(batch)] = "quality: low score"
    return reasons


def uniform_of(text: str, seed: int) -> float:
    """A number in [0, 1) that follows from the text and the seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/quality/{text}".encode()).digest()[:6]) / 2**48
