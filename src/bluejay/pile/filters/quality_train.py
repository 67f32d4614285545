"""Train the classifier of text quality: `bluejay pile quality`."""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import TypeAdapter

from bluejay.pile.documents import Document
from bluejay.pile.filters.quality import BUCKETS, Classifier, features, sigmoid
from bluejay.pile.sources import Source
from bluejay.pile.sources.folder import source_of
from bluejay.pile.sources.io.open import matching
from bluejay.pile.text.text_batch import TextBatch, Texts, split_texts
from bluejay.progress import counted, say

EPOCHS = 4
"""How often training reads each text."""
LEARNING_RATE = 1.0
"""Length of a step before it is divided, for each weight, by the root of its squared gradients so far (Adagrad)."""
BATCH_TEXTS = 32
"""Texts of one step of training."""
MAX_CHARACTERS = 20_000
"""Characters that training reads of a text."""
MAX_TEXTS = 100_000
"""Texts of each kind that are read from files; a million words take 8 MB of memory."""
HELD_OUT_EVERY = 10
"""One text in this many is held out from training, to measure the accuracy."""
TOO_FEW = f"its accuracy is not measured, which needs {HELD_OUT_EVERY} good and {HELD_OUT_EVERY} bad texts"
"""What is said in place of an accuracy."""


def train_from_files(good: Sequence[str], bad: Sequence[str], path: Path, seed: int = 0) -> float | None:
    """Train on files, which are read by the endings of their names (tables have a field text; patterns and URLs), and
    write `path`.

    Returns the accuracy on held-out texts, the mean of that on good and on bad ones; None where either has none held
    out. Says what of the files was not read. Raises ValueError: a file is missing, or has no text.
    """
    read = [first_texts(paths) for paths in (good, bad)]
    used, held_out = zip(*map(split_held_out, read), strict=True)
    classifier = train([used[0]], [used[1]], seed)
    scores = [classifier.scores(texts) for texts in held_out]
    accuracy = float(np.mean([(scores[0] > 0.5).mean(), (scores[1] <= 0.5).mean()])) if all(map(len, scores)) else None
    measured = TOO_FEW
    if accuracy is not None:
        measured = f"accuracy {accuracy:.1%} on {len(scores[0]):,} good and {len(scores[1]):,} bad ones"
    say(f"trained on {len(used[0]):,} good and {len(used[1]):,} bad texts; {measured}")
    classifier.save(path)
    return accuracy


def train(good: Iterable[Texts], bad: Iterable[Texts], seed: int) -> Classifier:
    """Train by Adagrad on the logistic loss; both classes weigh the same, whatever their sizes.

    Raises ValueError: a class holds no word.
    """
    rows = [list(text_features(texts)) for texts in (good, bad)]
    if not all(rows):
        raise ValueError(f"there are no words in the {'bad' if rows[0] else 'good'} texts to learn from")
    labels = np.repeat([1.0, 0.0], [len(rows[0]), len(rows[1])])
    documents, random = rows[0] + rows[1], np.random.RandomState(seed)
    classifier, squares = Classifier(np.zeros(BUCKETS + 1, np.float32)), np.full(BUCKETS + 1, 1e-8)
    weight = np.where(labels > 0, 0.5 / len(rows[0]), 0.5 / len(rows[1])) * len(labels)
    for _ in range(EPOCHS):
        order = random.permutation(len(documents))
        for at in range(0, len(order), BATCH_TEXTS):
            some = order[at : at + BATCH_TEXTS]
            step(classifier, squares, [documents[row] for row in some], labels[some], weight[some])
    return classifier


def split_held_out(texts: list[str]) -> tuple[Texts, Texts]:
    """The texts to train on, and the held-out ones."""
    is_held_out = [row % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 for row in range(len(texts))]
    held_out = list(itertools.compress(texts, is_held_out))
    used = [text for text, held in zip(texts, is_held_out, strict=True) if not held]
    return pa.array(used, pa.large_string()), pa.array(held_out, pa.large_string())


def first_texts(paths: Sequence[str]) -> list[str]:
    """The first MAX_TEXTS texts of files; says so where there are more."""
    texts = list(itertools.islice(texts_of(paths), MAX_TEXTS + 1))
    if len(texts) > MAX_TEXTS:
        say(f"{', '.join(paths)}: only the first {MAX_TEXTS:,} texts are read")
    return texts[:MAX_TEXTS]


def texts_of(paths: Sequence[str]) -> Iterator[str]:
    """Yield the texts of files, in order; says of each file how much of it gave none."""
    readers = TypeAdapter(Source)
    for path in (path for pattern in paths for path in matching(pattern)):
        source: Any = readers.validate_json(json.dumps(source_of(Path(path), path)))
        skipped, first = 0, ""
        try:
            for found in source.read(path):
                if isinstance(found, Document):
                    yield found.text
                else:
                    skipped, first = skipped + 1, first or found.reason
        finally:  # also where no more texts are asked for
            if skipped:
                say(f"{path}: {counted(skipped, 'piece')} skipped; the first: {first}")


def text_features(parts: Iterable[Texts]) -> Iterator[NDArray[np.int32]]:
    """Yield the features of each text that has any."""
    for texts in parts:
        for group in split_texts(texts):
            buckets, bounds = features(TextBatch([text[:MAX_CHARACTERS] for text in group]))
            yield from (row for row in np.split(buckets, bounds[1:-1]) if len(row))


def step(
    classifier: Classifier,
    squares: NDArray[np.float64],
    documents: list[NDArray[np.int32]],
    labels: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> None:
    """One step of Adagrad (Duchi et al. 2011), in place; `squares` (BUCKETS + 1,) sums the squared gradients."""
    sizes = np.array([len(row) for row in documents])
    buckets = np.concatenate(documents)
    logits = classifier.logits(buckets, np.append(0, np.cumsum(sizes)))
    slope = (sigmoid(logits) - labels) * weight
    touched, place = np.unique(buckets, return_inverse=True)
    gradient = np.append(np.bincount(place, np.repeat(slope / sizes, sizes)), slope.mean())
    touched = np.append(touched, BUCKETS)
    squares[touched] += gradient**2
    classifier.weights[touched] -= LEARNING_RATE * gradient / np.sqrt(squares[touched])
