"""A classifier that tells texts like some good ones from others, and the rule by which it drops texts.

Logistic regression on the mean of hashed words and pairs of words: what fastText computes with word 2-grams, whose
layers are linear. The Pile and GPT-3 trained theirs on chosen text against raw web pages.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bluejay.files import atomic_file
from bluejay.pile.documents import Document
from bluejay.pile.filters.verdict import Reasons
from bluejay.pile.sources.formats.tables import JSONLines, Parquet
from bluejay.pile.sources.formats.text import Text
from bluejay.pile.sources.io.open import matching
from bluejay.pile.text.minhash import shingles_of
from bluejay.pile.text.text_batch import TextBatch, Texts, map_batches, split_texts
from bluejay.progress import say

BUCKETS = 1 << 20
ALPHA = 9.0
"""GPT-3's; The Pile took 3, which keeps more of what scores low."""
EPOCHS = 4
STEP = 1.0
TOGETHER = 32
"""Texts of a step of training."""
LONGEST = 20_000
"""Characters of a text that training looks at."""
MOST = 100_000
"""Texts of each kind that are taken from files; a million words are 8 MB."""
HELD_OUT = 10
"""One text in so many is kept to see how well the others taught."""
FORMAT = "bluejay text quality 1"


@dataclass(frozen=True)
class Classifier:
    """What was learnt."""

    weights: NDArray[np.float32]
    """Of each bucket, (BUCKETS,), and of every text, (1,) more."""

    def scores(self, texts: Texts) -> NDArray[np.float32]:
        """For each text how likely it is a good one, (n,)."""
        return np.concatenate([np.zeros(0, np.float32), *map_batches(texts, self.batch_scores)])

    def batch_scores(self, batch: TextBatch) -> NDArray[np.float32]:
        """The same of one batch; 0 of a text without words."""
        buckets, bounds = features(batch)
        return np.where(np.diff(bounds) > 0, logistic(self.logits(buckets, bounds)), 0).astype(np.float32)

    def logits(self, buckets: NDArray[np.int32], bounds: NDArray[np.int64]) -> NDArray[np.float64]:
        """The mean weight of the features of each text."""
        filled = np.flatnonzero(np.diff(bounds))
        means = np.zeros(len(bounds) - 1)
        if len(filled):
            # Text by text, so that rounding does not depend on what stands before.
            totals = np.add.reduceat(self.weights[buckets].astype(np.float64), bounds[filled])
            means[filled] = totals / np.diff(bounds)[filled]
        return means + float(self.weights[-1])

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        with atomic_file(path) as temporary:
            save_file({"weights": self.weights}, temporary, {"format": FORMAT})

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Read one. Raises ValueError: it is missing, or is none of ours."""
        try:
            with safe_open(path, "numpy") as file:
                weights = file.get_tensor("weights") if (file.metadata() or {}).get("format") == FORMAT else None
        except (OSError, SafetensorError):
            raise ValueError(f"{path} cannot be read; bluejay pile quality makes a classifier") from None
        if weights is None or weights.shape != (BUCKETS + 1,) or weights.dtype != np.float32:
            raise ValueError(f"{path} is no classifier of text quality; bluejay pile quality makes one")
        return cls(weights)


def features(batch: TextBatch) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The buckets of the words and pairs of words of each text, text by text, and where those of each begin."""
    single, ones = shingles_of(batch, 1)
    double, twos = shingles_of(batch, 2)
    bounds = ones + twos
    buckets = np.empty(bounds[-1], np.int32)
    for hashes, own, other in ((single, ones, twos[:-1]), (double, twos, ones[1:])):
        place = np.arange(len(hashes)) + np.repeat(other, np.diff(own))
        buckets[place] = hashes & np.uint64(BUCKETS - 1)
    return buckets, bounds


def train(good: Iterable[Texts], bad: Iterable[Texts], seed: int) -> Classifier:
    """Learn to tell the texts of `good` from those of `bad`; both kinds weigh the same, however many there are.

    Raises ValueError: one of them holds no word.
    """
    rows = [list(rows_of(texts)) for texts in (good, bad)]
    if not all(rows):
        raise ValueError(f"there are no words in the {'bad' if rows[0] else 'good'} texts to learn from")
    labels = np.repeat([1.0, 0.0], [len(rows[0]), len(rows[1])])
    documents, random = rows[0] + rows[1], np.random.RandomState(seed)
    classifier, squares = Classifier(np.zeros(BUCKETS + 1, np.float32)), np.full(BUCKETS + 1, 1e-8)
    weight = np.where(labels > 0, 0.5 / len(rows[0]), 0.5 / len(rows[1])) * len(labels)
    for _ in range(EPOCHS):
        order = random.permutation(len(documents))
        for at in range(0, len(order), TOGETHER):
            some = order[at : at + TOGETHER]
            step(classifier, squares, [documents[row] for row in some], labels[some], weight[some])
    return classifier


def train_from_files(good: Sequence[str], bad: Sequence[str], path: Path, seed: int = 0) -> float:
    """Learn from files (.jsonl and .parquet with a field text, or plain text; patterns and addresses) and write `path`.

    Returns the share of held-out texts that are told rightly. Raises ValueError: a file is missing, or has no text.
    """
    taught, kept = zip(*(held_out(list(itertools.islice(texts_of(paths), MOST))) for paths in (good, bad)), strict=True)
    classifier = train([taught[0]], [taught[1]], seed)
    scores = [classifier.scores(texts) for texts in kept]
    right = np.append(scores[0] > 0.5, scores[1] <= 0.5)
    share = float(right.mean()) if len(right) else 0.0
    say(f"{len(taught[0]):,} good and {len(taught[1]):,} bad texts read; of {len(right):,} others {share:.1%} are told")
    classifier.save(path)
    return share


def held_out(texts: list[str]) -> tuple[Texts, Texts]:
    """Those to learn from, and one in HELD_OUT that are not."""
    kept = [text for row, text in enumerate(texts) if row % HELD_OUT == HELD_OUT - 1]
    taught = [text for row, text in enumerate(texts) if row % HELD_OUT != HELD_OUT - 1]
    return pa.array(taught, pa.large_string()), pa.array(kept, pa.large_string())


def texts_of(paths: Sequence[str]) -> Iterator[str]:
    """The texts of files, in order."""
    for path in (path for pattern in paths for path in matching(pattern)):
        kind = Path(path.removesuffix(".gz").removesuffix(".zst")).suffix.lower()
        source: Any = {
            ".jsonl": JSONLines(kind="jsonl", path=path),
            ".parquet": Parquet(kind="parquet", path=path),
        }.get(kind, Text(kind="text", path=path))
        yield from (found.text for found in source.read(path) if isinstance(found, Document))


def rows_of(parts: Iterable[Texts]) -> Iterator[NDArray[np.int32]]:
    """The features of each text that has any."""
    for texts in parts:
        for group in split_texts(texts):
            buckets, bounds = features(TextBatch([text[:LONGEST] for text in group]))
            yield from (row for row in np.split(buckets, bounds[1:-1]) if len(row))


def step(
    classifier: Classifier,
    squares: NDArray[np.float64],
    documents: list[NDArray[np.int32]],
    labels: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> None:
    """One step of Adagrad (Duchi et al. 2011) in place."""
    sizes = np.array([len(row) for row in documents])
    buckets = np.concatenate(documents)
    logits = classifier.logits(buckets, np.append(0, np.cumsum(sizes)))
    slope = (logistic(logits) - labels) * weight
    touched, place = np.unique(buckets, return_inverse=True)
    gradient = np.append(np.bincount(place, np.repeat(slope / sizes, sizes)), slope.mean())
    touched = np.append(touched, BUCKETS)
    squares[touched] += gradient**2
    classifier.weights[touched] -= STEP * gradient / np.sqrt(squares[touched])


def logistic(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), without overflow."""
    return (1 + np.tanh(logits / 2)) / 2


def below(batch: TextBatch, classifier: Classifier, alpha: float, seed: int) -> Reasons:
    """Why each text is dropped: a number with a Pareto distribution is not above what the score lacks to 1.

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
