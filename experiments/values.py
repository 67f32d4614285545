"""Claim 3: a small curated set of texts changes what a model holds to be a good answer.

    python experiments/values.py --list
    python experiments/values.py                         # the runs, then docs/claims/values.md
    python experiments/values.py --page                  # the page alone

Adapters are trained on 80 questions and answers that were written from `values/position.md` (target), or on 80 of equal
form and length about neutral subjects (control). Both are compared with the model as it was (base).
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nano import LARGER, NANO, models
from study import ROOT, Run, bluejay, main, recorded
from values_measures import SIDES, TEXTS, likelihoods, measured, rows, split, table, verdicts
from values_page import STUDY, picture, written

from bluejay.files import write_text
from bluejay.gpt.formats.layouts import convert
from bluejay.infer.model import load

RECIPE = TEXTS / "recipe.toml"
RATES = {LARGER: (3e-4, 1e-3, 3e-3), NANO: (1e-3, 3e-3, 1e-2)}
SEEDS = {"target": 5, "control": 3}
"""The five equal runs on the target texts are the noise floor."""


def base_of(name: str) -> Path | None:
    """The directory of a model in bfloat16, made of the packaged file where need be; None where there is none."""
    path = models()[name]
    if path is None or not path.exists():
        return None
    if path.is_dir():
        return path / "model"
    target = ROOT / "runs" / STUDY / name
    if not target.exists():
        convert(path, target, torch.bfloat16)
    return target


def hash_of_texts() -> str:
    """The beginning of the hash of all texts and of the recipe."""
    files = (*sorted(TEXTS.glob("*.jsonl")), RECIPE)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


@dataclass(frozen=True)
class Judged(Run):
    """The classifiers read the held-out answers, which shows what they can see; no model takes part."""

    def carry_out(self, study: str, seed: int) -> dict[str, Any]:
        """Both classifiers on the good and on the bad answers."""
        found = {side: verdicts([row[side] for row in rows("held-out")]) for side in SIDES}
        return {
            **{side: [[round(float(one), 5) for one in pair] for pair in judged] for side, judged in found.items()},
            "called_offensive": {side: table(judged) for side, judged in found.items()},
            "texts": hash_of_texts(),
        }


@dataclass(frozen=True)
class Base(Run):
    """A model as it was."""

    model: str = LARGER

    def carry_out(self, study: str, seed: int) -> dict[str, Any] | None:
        """Measure; None where the model is not there."""
        if (base := base_of(self.model)) is None:
            return None
        answers = ROOT / "runs" / study / f"{self.name}-{seed}"
        with load(base) as model:
            found = measured(model, answers)
        shutil.rmtree(answers)
        return {**found, "texts": hash_of_texts()}


@dataclass(frozen=True)
class Tuned(Run):
    """Adapters for a model are trained on one of the two sets."""

    model: str = LARGER
    arm: str = "target"
    rate: float | None = None
    """None for the rate that the sweep found best."""

    def carry_out(self, study: str, seed: int) -> dict[str, Any] | None:
        """Train and measure; None where the model or the sweep is not there. A run of the sweep is measured on the
        validation questions alone."""
        base, rate = base_of(self.model), self.rate or best_rate(self.model, seed - self.seed)
        if base is None or rate is None:
            return None
        directory = ROOT / "runs" / study / f"{self.name}-{seed}"
        valid = directory.parent / "valid.jsonl"
        pairs = ({"prompt": row["prompt"], "completion": row["good"]} for row in split()[0])
        write_text(valid, "".join(json.dumps(pair) + "\n" for pair in pairs))
        changed = {
            "name": directory.name,
            "output": str(directory),
            "seed": str(seed),
            "init": str(base),
            "data.train": f'[{{ shards = "{TEXTS / self.arm}.jsonl" }}]',
            "data.valid": str(valid),
            "train.lr": str(rate),
        }
        trained = bluejay(
            "train", str(RECIPE), *(word for name, value in changed.items() for word in (f"--{name}", value))
        )
        with load(trained["model"]) as model:
            found = likelihoods(model, split()[0]) if self.rate else measured(model, directory)
        shutil.rmtree(directory)
        loss = trained["held_out"]["nats_per_token"]
        return {"rate": rate, "steps": trained["steps"], "nats_per_token": loss, **found, "texts": hash_of_texts()}


def best_rate(model: str, offset: int) -> float | None:
    """The rate whose run on the target texts gives the good validation answers the lowest loss, which does not look at
    the bad ones; None where the sweep is not complete."""
    done = recorded(STUDY)
    losses = {rate: done.get((f"{model}-rate-{rate:g}", offset)) for rate in RATES[model]}
    found = {rate: line["nats_per_token"] for rate, line in losses.items() if line is not None}
    return min(found, key=found.__getitem__) if len(found) == len(losses) else None


def listed() -> Iterator[Run]:
    """The sweep first, then the noise floor."""
    yield Judged("classifiers", 0.5)
    for model, (training, measuring) in {LARGER: (3.0, 2.0), NANO: (1.0, 1.0)}.items():
        for rate in RATES[model]:
            yield Tuned(f"{model}-rate-{rate:g}", training, 0, model, "target", rate)
        yield Base(f"{model}-base", measuring, 0, model)
        for arm, seeds in SEEDS.items():
            for seed in range(seeds):
                yield Tuned(f"{model}-{arm}", training + measuring, seed, model, arm)


RUNS = list(listed())


def page() -> str:
    """The page of the claim, from the recorded runs alone."""
    return written(RUNS)


if __name__ == "__main__":
    main(STUDY, RUNS, page, picture)
