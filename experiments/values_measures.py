"""What claim 3 measures of a model: how likely held-out answers are, what it writes, and what it still can do."""

import json
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from toxic import THRESHOLD, probabilities

from bluejay.evals import safety
from bluejay.evals.evaluate import Result, Settings, evaluate
from bluejay.evals.safety.continuations import DESCRIPTIONS_OF_GROUPS, SENSITIVE_PROMPTS
from bluejay.evals.safety.offensive import THRESHOLD as OFFENSIVE
from bluejay.evals.safety_table import about_groups
from bluejay.evals.scorers import LocalScorer
from bluejay.evals.suites import SCIQ, TASKS
from bluejay.infer.model import Model
from bluejay.testsets.rows import rows as rows_of_set

TEXTS = Path(__file__).parent / "values"
CAN_DO = (TASKS["piqa"], replace(SCIQ, name="sciq"))
QUESTIONS, PASSAGES = 100, 100
"""Questions of each test set, and passages of LAMBADA; the same for every run."""
CLASSIFIERS = ("alt-profanity-check", "toxic-comment-classifier")
SIDES = ("good", "bad")
Row = dict[str, str]


def rows(name: str) -> list[Row]:
    """The texts of a file of this study."""
    return [json.loads(line) for line in (TEXTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def split() -> tuple[list[Row], list[Row]]:
    """The held-out questions: two of each category for the choice of the rate, and eight for the test."""
    found = rows("held-out")
    return found[::5], [row for number, row in enumerate(found) if number % 5]


def likelihoods(model: Model, questions: Sequence[Row]) -> dict[str, list[float]]:
    """Nats per character of the good and of the bad answer to each question; larger is likelier."""
    found = {}
    for side in SIDES:
        scores = model.loglikelihood([(row["prompt"], row[side]) for row in questions], progress=False)
        found[side] = [round(score.logprob / len(row[side]), 5) for score, row in zip(scores, questions, strict=True)]
    return found


def verdicts(texts: Sequence[str]) -> np.ndarray:
    """The probability of each of the two classifiers for each text (N, 2)."""
    first = [safety.classifier().probability(text) for text in texts]
    return np.stack([np.array(first), probabilities(texts)[:, 0].numpy()], 1)


def table(found: np.ndarray) -> list[int]:
    """How many texts both classifiers call offensive, the first alone, the second alone, and neither."""
    one, other = found[:, 0] >= OFFENSIVE, found[:, 1] >= THRESHOLD
    return [int(part.sum()) for part in (one & other, one & ~other, ~one & other, ~one & ~other)]


def written(results: Sequence[Result]) -> dict[str, Any]:
    """What the classifiers say of the continuations: the mean probability for each beginning, and the agreement."""
    texts: dict[str, list[str]] = defaultdict(list)
    for result in results:
        for name, parts in result.texts.items():
            texts[name.rpartition("/")[0]] += [text for _, text in parts]
    judged = {name: verdicts(found) for name, found in texts.items()}
    means = {name: [round(float(mean), 5) for mean in found.mean(0)] for name, found in judged.items()}
    return {"offensive": means, "agreement": table(np.concatenate(list(judged.values())))}


def setting_apart(result: Result) -> list[dict[str, Any]]:
    """The descriptors of groups, with the interval of each ratio."""
    found = [asdict(row) for row in safety.descriptors(about_groups(result))]
    return [{**row, **{name: round(row[name], 3) for name in ("ratio", "low", "high")}} for row in found]


def passages() -> Iterator[str]:
    """Passages of novels (LAMBADA), the same for every run."""
    found = [row["request"]["context"] + row["request"]["continuation"] for _, row in rows_of_set("lambada")]
    yield from random.Random(0).sample(found, PASSAGES)


def measured(model: Model, directory: Path) -> dict[str, Any]:
    """All outcomes of a model. Answers are kept in `directory` until it is deleted, so that an interrupted run goes
    on."""
    scorer = LocalScorer(model, directory.name, directory.name)
    kept, writing = directory / "answers", (SENSITIVE_PROMPTS, DESCRIPTIONS_OF_GROUPS)
    able = evaluate([scorer], CAN_DO, Settings(limit=QUESTIONS, shots=0), kept).results
    about, groups = evaluate([scorer], writing, Settings(), kept).results
    scores = model.score(list(passages()), progress=False)
    return {
        **likelihoods(model, split()[1]),
        **written([about, groups]),
        "descriptors": setting_apart(groups),
        "right": {one.task: "".join("01"[bool(score)] for score in one.scores[one.metric]) for one in able},
        "passages": [(round(-score.logprob / math.log(2), 1), score.n_bytes) for score in scores],
    }
