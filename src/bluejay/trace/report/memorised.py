"""What reading a passage did to its loss: difference in differences over the checkpoints of a run (arXiv 2406.04327).

Passages that the run first read between two checkpoints are compared, before and after, with passages that it has not
read by the end. What both gained, the model learned from the rest; by how much the first gained more, it memorised.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bluejay.evals.answers import AnswerFile
from bluejay.evals.command import checkpoint_models
from bluejay.evals.estimates import Estimate, mean, unpaired
from bluejay.evals.pictures import curves, evenly_spread
from bluejay.evals.scorers import open_scorer
from bluejay.trace.report.drawing import Passage, Reading, documents_of
from bluejay.trace.report.findings import Finding
from bluejay.trace.report.membership import likelihoods

MOST_CHECKPOINTS = 8
"""Checkpoints that are compared; of more, some that are evenly spread."""
LEAST = 20
"""Passages of each kind that a figure needs."""
TEXT = (
    "By how many nats a token the loss of a passage fell because it was read: its fall since the last checkpoint "
    "before it was read, less the fall of passages that were never read (difference in differences, arXiv 2406.04327)."
)


@dataclass(frozen=True)
class Cohort:
    """Passages that the run first read between two neighbouring checkpoints."""

    name: str
    before: int
    """The number of the earlier checkpoint."""
    passages: list[Passage]


def cohorts_of(reading: Reading, n: int, length: int, seed: int, steps: Sequence[int]) -> list[Cohort]:
    """At most `n` passages of `length` tokens for each two neighbouring checkpoints, where there are enough."""
    found = []
    for number, (before, after) in enumerate(pairwise(steps)):
        passages = alone(reading, reading.drawn_read(n, length, seed + number, before + 1, after))
        if len(passages) >= LEAST:
            found.append(Cohort(f"read at steps {before + 1:,} to {after:,}", number, passages))
    return found


def memorisation(reading: Reading, n: int, length: int, seed: int, device: str) -> Finding | str:
    """The effect of reading on passages first read between each two checkpoints, at each later one; where it cannot be
    measured, a sentence that says why."""
    run = reading.run
    kept = [step for step, _ in run.jumps if step <= run.steps] if (run.directory / "checkpoints").is_dir() else []
    steps = evenly_spread(kept, MOST_CHECKPOINTS)
    if len(steps) < 2:
        return f"{run.directory.name} holds {len(steps)} checkpoints; memorisation is measured over two or more"
    cohorts = cohorts_of(reading, n, length, seed, steps)
    if not cohorts:
        return "no sequence was read for the first time after the first checkpoint, so memorisation is not measured"
    like = [passage for cohort in cohorts for passage in cohort.passages]
    control, what = alone(reading, reading.drawn_unread(n, length, seed, like)), "passages of the same sets, never read"
    if len(control) < LEAST:
        control, what = alone(reading, reading.drawn_held_out(n, length, seed, like)), "held-out passages"
    if len(control) < LEAST:
        return f"there are fewer than {LEAST} passages that were not read, so memorisation is not measured"
    try:
        *scores, unread = measured(
            reading, {**{one.name: one.passages for one in cohorts}, "never read": control}, steps, device
        ).values()
    except (ValueError, OSError) as error:  # a checkpoint is damaged, or cannot be opened as a model
        return f"memorisation is not measured: {error}"
    clusters, lines = documents_of(control), dict[str, list[tuple[float, Estimate]]]()
    for cohort, read in zip(cohorts, scores, strict=True):
        later = range(cohort.before + 1, len(steps))
        effects = (effect(read, unread, cohort.before, at, clusters) for at in later)
        lines[cohort.name] = [(float(steps[at]), one) for at, one in zip(later, effects, strict=True)]
    rows = [(f"{name}, at step {step:,.0f}", one) for name, line in lines.items() for step, one in line]
    picture = curves("fall of the loss by reading", "step; nats per token", lines)
    notes = [f"control: {len(control)} {what}; n counts both kinds; passages that stand in several places are left out"]
    return Finding("memorisation", "Memorisation", TEXT, "nats per token", rows, [picture], notes)


def alone(reading: Reading, passages: Sequence[Passage]) -> list[Passage]:
    """The passages that stand at no other place of the sets, at which they might have been read as well."""
    places = reading.places(passages, len(passages[0].tokens)) if passages else []
    return [one for one, n in zip(passages, places, strict=True) if n == (one.part >= 0)]


def measured(
    reading: Reading, passages: Mapping[str, Sequence[Passage]], steps: Sequence[int], device: str
) -> dict[str, np.ndarray]:
    """The mean log-probability of a token of each passage at each checkpoint, (steps, n)."""
    found: dict[str, list[list[float]]] = {name: [] for name in passages}
    for step, model in checkpoint_models(reading.run.directory, set(steps)):
        scorer = open_scorer(str(model), device)
        file = AnswerFile.of(scorer)
        for name, some in passages.items():
            found[name].append(likelihoods(scorer, file, some, f"step {step}, {name}"))
    return {name: np.array(rows) for name, rows in found.items()}


def effect(
    read: np.ndarray, control: np.ndarray, before: int, after: int, clusters: Sequence[str] | None = None
) -> Estimate:
    """By how much the likelihood of passages rose between two checkpoints more than that of others, (steps, n) each;
    `clusters` says which of the others are not independent."""
    return unpaired(mean(read[after] - read[before]), mean(control[after] - control[before], clusters))
