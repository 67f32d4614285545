"""How much of what a model writes stands nowhere in what it read, by n-grams (RAVEN, arXiv 2111.09509)."""

from collections.abc import Sequence

import numpy as np

from bluejay.evals.answers import AnswerFile
from bluejay.evals.estimates import Estimate, mean, ratio
from bluejay.evals.pictures import curves
from bluejay.evals.scorers import TOP_P, Scorer
from bluejay.evals.tasks import Generation
from bluejay.trace.report.drawing import Passage, Reading, documents_of
from bluejay.trace.report.findings import Finding

LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 20, 32)
"""The n of the n-grams, in tokens."""
PROMPT = 32
"""Tokens of each prompt."""
TEXT = (
    "The share of n-grams of tokens that stand in no sequence that the run read: of texts that the model wrote after "
    f"the first {PROMPT} tokens of held-out passages, drawn at temperature 1 and top-p {TOP_P}, and of how those "
    "passages really go on. Where the model's line is below the other, it copies more than people do."
)


def novelty(
    reading: Reading, scorer: Scorer, file: AnswerFile, prompts: Sequence[Passage], n_tokens: int, seed: int
) -> Finding:
    """The share of new n-grams in samples and in the texts that people wrote instead."""
    tokenizer = reading.tracer.tokenizer
    asked = [
        Generation(tokenizer.decode(list(one.tokens[:PROMPT])), (), n_tokens, temperature=1.0, seed=seed)
        for one in prompts
    ]
    answers = file.ask(scorer, asked, "samples")
    samples = [tokenizer.encode(text) for text in answers if isinstance(text, str)]
    originals = [list(one.tokens[PROMPT : PROMPT + n_tokens]) for one in prompts]
    clusters = documents_of(prompts)
    texts = {"model": longest_matches(reading, samples), "held-out text": longest_matches(reading, originals)}
    lines = {
        name: [(float(n), one) for n in LENGTHS if (one := new_share(matches, n, clusters)) is not None]
        for name, matches in texts.items()
    }
    rows = [(f"{name}, n = {n:.0f}", one) for name, line in lines.items() for n, one in line]
    rows += [
        (f"{name}, longest copy in a text, tokens", mean([one.max(initial=0) for one in matches], clusters))
        for name, matches in texts.items()
    ]
    picture = curves("share of new n-grams", "n, in tokens", lines, logarithmic=True)
    return Finding("novelty", "Novelty of samples", TEXT, "share", rows, [picture])


def longest_matches(reading: Reading, texts: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """For each token of each text the length of the longest match that begins with it."""
    return [reading.read.longest(np.array(ids, np.int32)) for ids in texts]


def new_share(matches: Sequence[np.ndarray], n: int, clusters: Sequence[str]) -> Estimate | None:
    """The share of n-grams that stand nowhere, over all texts; None if none is so long. `clusters` says which texts
    are not independent."""
    found = [matched[: max(0, len(matched) - n + 1)] < n for matched in matches]
    if not any(map(len, found)):
        return None
    return ratio([one.sum() for one in found], [len(one) for one in found], clusters, share=True)
