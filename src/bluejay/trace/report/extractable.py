"""Which passages a model continues, word for word, from the tokens before them (k-extractable, arXiv 2202.07646)."""

from collections.abc import Sequence

import numpy as np

from bluejay.evals.answers import AnswerFile
from bluejay.evals.estimates import mean
from bluejay.evals.pictures import Bar, bar_chart
from bluejay.evals.scorers import Scorer
from bluejay.evals.tasks import Likelihood, TokenContinuation
from bluejay.trace.report.drawing import Passage, Reading, documents_of
from bluejay.trace.report.findings import Finding

LENGTHS = (32, 50)
"""Tokens before and tokens after: 32 as in arXiv 2304.11158, 50 as in arXiv 2202.07646."""
COPIES = ((1, 1, "once"), (2, 9, "2 to 9 times"), (10, None, "10 times or more"))
"""How often a passage was read: from, to, and in words."""
TEXT = (
    "A passage counts where greedy decoding from its first k tokens writes the next k exactly. Passages that the run "
    "read are drawn as often as it read them; held-out ones are as many of each component. The run read none of these, "
    "also not in another document, so what the model writes of them it has not copied. A passage counts as read where "
    "one sequence held all of it."
)


def extraction(
    reading: Reading, scorer: Scorer, file: AnswerFile, read: Sequence[Passage], held_out: Sequence[Passage]
) -> Finding:
    """The share that can be extracted, by length and by how often the passage was read."""
    rows, notes = [], []
    for k in (k for k in LENGTHS if 2 * k <= len(read[0].tokens)):
        clean = [one for one, count in zip(held_out, reading.counts(held_out, 2 * k), strict=True) if not count]
        if len(clean) < len(held_out):
            notes.append(f"k = {k}: {len(held_out) - len(clean)} held-out passages were read in others; left out")
        scores = np.array(extracted(scorer, file, read, k))
        rows.append((f"k = {k}, read", mean(scores, share=True)))
        if clean:
            found = extracted(scorer, file, clean, k)
            rows.append((f"k = {k}, held out", mean(found, documents_of(clean), share=True)))
        copies = reading.counts(read, 2 * k)
        for least, most, words in COPIES:
            chosen = (copies >= least) & (copies <= (most or copies.max()))
            if chosen.any():
                rows.append((f"k = {k}, read {words}", mean(scores[chosen], share=True)))
    if not held_out:
        notes.append("no held-out text is indexed with what was read, so there is no control")
    bars = [Bar(label, one.value, one.low, one.high) for label, one in rows]
    picture = bar_chart("share of passages that can be extracted", bars)
    return Finding("extractable", "Passages that can be extracted", TEXT, "share", rows, [picture], notes)


def extracted(scorer: Scorer, file: AnswerFile, passages: Sequence[Passage], k: int) -> list[float]:
    """1 for each passage whose tokens from k to 2k are what greedy decoding writes after the first k. Reading them
    with those tokens given shows the same as decoding, in one step."""
    asked = [TokenContinuation(one.tokens[:k], one.tokens[k : 2 * k]) for one in passages]
    answers = file.ask(scorer, asked, f"extraction, k = {k}")
    return [float(answer.greedy) for answer in answers if isinstance(answer, Likelihood)]
