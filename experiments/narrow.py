"""Claim 2, the published way: a small model tuned on one narrow task against a larger one that is shown examples of it.

    make tour                                            # once; or `bluejay train recipes/train/quickstart.toml`
    python experiments/narrow.py                         # the runs, then docs/claims/narrow.md

Two tasks: names from snake_case to camelCase, and dates from "2021-06-09" to "9 June 2021".
"""

import datetime
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot
from nano import LARGER, NANO, QUICKSTART, models
from numpy.typing import NDArray
from stats import SECOND_PERSON, Difference, Line, compared, noise_floor
from study import ROOT, Run, bluejay, ending, main, recorded, save_picture

from bluejay.evals.estimates import wilson
from bluejay.files import write_text
from bluejay.infer.model import load

STUDY = "narrow"
SEEDS = 3
SHOTS = (0, 5, 20)
TRAINED, HELD_OUT = 300, 100
RECIPE = "recipes/train/camel-case.toml"
CAMEL, DATES = "camel-case", "dates"
Pairs = list[dict[str, str]]


@cache
def pairs_of(task: str) -> tuple[Pairs, Pairs]:
    """The training and the held-out pairs of a task; they share no prompt."""
    if task == CAMEL:
        files = (ROOT / "recipes" / "train" / f"camel-case{part}.jsonl" for part in ("", "-valid"))
        first, second = ([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files)
        return first, second
    days = random.Random(0).sample(range(366 * 200), TRAINED + HELD_OUT)
    every = [datetime.date(1900, 1, 1) + datetime.timedelta(day) for day in days]
    rows = [{"prompt": f"{day} ->", "completion": f" {day.day} {day:%B} {day.year}"} for day in every]
    return rows[:TRAINED], rows[TRAINED:]


def answered(path: Path, task: str, shots: int) -> dict[str, Any]:
    """Which of the held-out pairs a model completes correctly after so many examples."""
    trained, held_out = pairs_of(task)
    before = "".join(f"{pair['prompt']}{pair['completion']}\n" for pair in trained[:shots])
    with load(path) as model:
        prompts = [before + pair["prompt"] for pair in held_out]
        texts = model.generate(prompts, max_tokens=16, temperature=0.0, stop="\n", progress=False)
    right = [text.rstrip() == pair["completion"] for [text], pair in zip(texts, held_out, strict=True)]
    return {"right": "".join("01"[one] for one in right)}


@dataclass(frozen=True)
class Tuned(Run):
    """Adapters for a model are trained on the pairs of a task."""

    model: str = QUICKSTART
    task: str = CAMEL

    def carry_out(self, study: str, seed: int) -> dict[str, Any] | None:
        """Train and ask; None where the model is not there."""
        if (base := models()[self.model]) is None or not base.exists():
            return None
        directory = ROOT / "runs" / study / f"{self.name}-{seed}"
        files = [directory.parent / f"{self.task}{part}.jsonl" for part in ("", "-valid")]
        for file, pairs in zip(files, pairs_of(self.task), strict=True):
            write_text(file, "".join(json.dumps(pair) + "\n" for pair in pairs))
        changed = {
            "name": directory.name,
            "output": str(directory),
            "seed": str(seed),
            "init": str(base / "model"),
            "data.train": f'[{{ shards = "{files[0]}" }}]',
            "data.valid": str(files[1]),
        }
        trained = bluejay(
            "train", str(ROOT / RECIPE), *(word for item in changed.items() for word in ("--" + item[0], item[1]))
        )
        return answered(Path(trained["model"]), self.task, 0)


@dataclass(frozen=True)
class Shown(Run):
    """A model is shown examples of a task in its prompt; nothing is drawn at random."""

    model: str = LARGER
    task: str = CAMEL
    shots: int = 0

    def carry_out(self, study: str, seed: int) -> dict[str, Any] | None:
        """Ask; None where the model is not there."""
        path = models()[self.model]
        return None if path is None or not path.exists() else answered(path, self.task, self.shots)


def listed() -> Iterator[Run]:
    """The noise floor first: five equal runs of the smallest model."""
    for task in (CAMEL, DATES):
        for name in (QUICKSTART, NANO):
            for seed in range(5 if name == QUICKSTART else SEEDS):
                yield Tuned(f"{task}-{name}-tuned", 2.0, seed, name, task)
        for name in (LARGER, QUICKSTART, NANO):
            for shots in SHOTS:
                yield Shown(f"{task}-{name}-{shots}-shown", 1.0, 0, name, task, shots)


RUNS = list(listed())


def of_point(name: str) -> Sequence[Line]:
    """The recorded runs of a point."""
    return [line for (run, _), line in sorted(recorded(STUDY).items()) if run == name]


def answers(runs: Sequence[Line]) -> NDArray[np.float64]:
    """1 for each right answer (runs x questions)."""
    return np.array([[float(one) for one in run["right"]] for run in runs])


def right(name: str) -> list[int]:
    """How many of the answers of each run of a point are right."""
    return sorted(int(one) for run in of_point(name) for one in answers([run]).sum(1))


def named(task: str) -> Iterator[str]:
    """The names of the points of a task that have runs."""
    return (name for name in dict.fromkeys(run.name for run in RUNS if run.name.startswith(task)) if of_point(name))


def rows(task: str) -> Iterator[str]:
    """A row for each point of a task that has runs."""
    for name in named(task):
        found = right(name)
        low, high = wilson(float(np.mean(found)) / HELD_OUT, float(HELD_OUT))
        mean = f"{np.mean(found):.3g}" + (f" ({found[0]} to {found[-1]})" if len(found) > 1 else "")
        yield f"| {name.removeprefix(f'{task}-')} | {len(found)} | {mean} | {100 * low:.0f} to {100 * high:.0f} |"


def gaps(task: str) -> Iterator[tuple[str, int, Difference]]:
    """Each tuned model and its seeds against the larger one with the number of examples that suits that one best."""
    points = [runs for shots in SHOTS if (runs := of_point(f"{task}-{LARGER}-{shots}-shown"))]
    larger = max(points, key=lambda runs: answers(runs).sum(), default=[])
    for name in (QUICKSTART, NANO):
        if larger and (runs := of_point(f"{task}-{name}-tuned")):
            yield name, len(runs), compared(answers(runs), answers(larger), np.ones(HELD_OUT), exact=True)


VERDICTS = {1: "better", -1: "worse", 0: "not shown to be better or worse"}


def in_short() -> str:
    """The verdicts on both tasks in one line."""
    told = []
    for task in (CAMEL, DATES):
        found = [f"the tuned {name} is {VERDICTS[gap.claimed]}" for name, _, gap in gaps(task)]
        told.append(f"{task}: {', '.join(found) or 'not run'}")
    return f"**In short**, against {LARGER} with examples. {'; '.join(told)}.\n"


def verdicts(task: str) -> Iterator[str]:
    """The differences of `gaps` in words."""
    for name, seeds, gap in gaps(task):
        kinds = {"by question": gap.by_document} | ({"by seed": gap.by_seed} if seeds > 1 else {})
        spans = ", ".join(f"{100 * low:+.0f} to {100 * high:+.0f} {kind}" for kind, (low, high) in kinds.items())
        agree = f"; {100 * gap.agreeing:.0f} % of the pairs of single runs agree in the sign" if seeds > 1 else ""
        yield (
            f"- The tuned {name} is {VERDICTS[gap.claimed]}: {100 * gap.value:+.0f} right answers of 100 against the "
            f"best of {LARGER} ({spans}){agree}."
        )


def page() -> str:
    """The page of the claim, from the recorded runs alone."""
    if not recorded(STUDY):
        return "\n".join([INTRODUCTION, METHOD, ending(STUDY, RUNS)])
    text = [INTRODUCTION, in_short(), METHOD, "## The noise floor, and what the design can find\n"]
    for task in (CAMEL, DATES):
        floor = noise_floor(right(f"{task}-{QUICKSTART}-tuned"), SEEDS, ".1f")
        text.append(f"- {task}, of the tuned {QUICKSTART}, in right answers of {HELD_OUT}: {floor}.")
    text += ["\n" + POWER]
    for task in (CAMEL, DATES):
        head = f"| model | seeds | right of {HELD_OUT}: mean and range | interval of the mean, by question |"
        text += [f"## {task}\n", head, "| --- | --- | --- | --- |", *rows(task), "", *verdicts(task), ""]
    text += [
        SECOND_PERSON,
        f"![Right answers of every run, by task and model]({PICTURE})\n",
        ending(STUDY, RUNS),
        CHANGE,
    ]
    return "\n".join(text) + "\n"


def picture() -> None:
    """The right answers of every run as a dot, by model."""
    if not recorded(STUDY):
        return
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, task in zip(axes, (CAMEL, DATES), strict=True):
        names = list(named(task))[::-1]
        for place, name in enumerate(names):
            found = right(name)
            axis.plot(found, [place] * len(found), "o", mfc="none", color="C1" if name.endswith("-tuned") else "C0")
        axis.set(title=task, xlabel=f"right answers of {HELD_OUT}", xlim=(-3, HELD_OUT + 3))
        axis.set_yticks(range(len(names)), [name.removeprefix(f"{task}-") for name in names])
    save_picture(figure, PICTURE)


PICTURE = "narrow.png"
INTRODUCTION = """# A tuned small model against a larger one that is shown examples

**The claim.** A small model that was tuned for one narrow task does it better than a far larger general one. So it was
said of phi-1 in programs (Gunasekar et al. 2023, arXiv 2306.11644) and of BioMedLM in medicine (Bolton et al. 2024,
arXiv 2403.18421); Mistral-7B, a general model, in turn beat the biomedical models of its size on MedQA.
"""
POWER = f"""The differences are found with a power of 80 % at the level of 5 %. {LARGER} was not trained,
so no seed changes its answers, and an interval by seed is that of the tuned model alone.
"""
METHOD = f"""## Method

Adapters (LoRA, the settings of `{RECIPE}`) are trained on {TRAINED} pairs of a task; the answers to {HELD_OUT} other
prompts are counted where they are right to the letter. {LARGER} (135 million weights, 4 bits) is not tuned; it sees
0, 5 or 20 of the training pairs before the question. Several seeds of the tuned models show the noise floor. The tasks
turn names from snake_case into camelCase, and dates such as 2021-06-09 into "9 June 2021".
"""
CHANGE = """## What would change it, and what was not tested

A narrow task that needs knowledge, rather than a form, gives the larger model its advantage back. The larger model was
not tuned: with the same pairs it would most likely do the tasks, too. Other wordings of the prompt were not searched.
"""

if __name__ == "__main__":
    main(STUDY, RUNS, page, picture)
