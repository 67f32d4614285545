"""Evaluating models: every task asked of every model, figures with intervals, and comparisons in pairs."""

import math
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bluejay.evals import estimates
from bluejay.evals.answers import AnswerFile
from bluejay.evals.cage.launch import sample_threads
from bluejay.evals.estimates import Difference, Estimate, shown, span
from bluejay.evals.scorers import LocalScorer, Scorer
from bluejay.evals.tasks import METRICS, Answer, Continuation, Generation, Question, Request, Task, WholeText
from bluejay.testsets.catalogue import named

LETTERS, EITHER = "_mc", "_either_form"
"""What follows a task's name where choices are asked by letter, and where the better form counts."""


@dataclass(frozen=True)
class Settings:
    """What is asked of every model."""

    limit: int | None = None
    """Questions of each task, drawn at random; None for all."""
    shots: int | None = None
    """Examples before each question; None for as many as each task has, or as the shortest context holds."""
    seed: int = 1234
    """Seed of the questions that `limit` draws."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 2:
            raise ValueError(f"--limit is {self.limit}; an interval needs at least 2 questions")
        if self.shots is not None and self.shots < 0:
            raise ValueError(f"--shots is {self.shots}; it must be 0 or more examples")


@dataclass(frozen=True)
class Result:
    """What one model got in one task."""

    task: str
    model: str
    metric: str
    """The main figure."""
    figures: dict[str, Estimate]
    n: int
    of: int
    """Questions that the task has in all."""
    shots: int
    chance: float | None
    seconds: float
    """Time of the answers that were not known already."""
    licences: dict[str, str]
    notes: tuple[str, ...]
    scores: dict[str, list[Any]] = field(repr=False)
    """Metric -> the score of each question."""
    clusters: list[str] = field(repr=False)
    macro: bool = False
    """Whether accuracies are means over the clusters of the mean in each."""
    texts: dict[str, list[tuple[str, str]]] = field(default_factory=dict, repr=False)
    """Question -> the prompt and the text of each continuation that the model wrote."""

    @property
    def main(self) -> Estimate:
        """The main figure."""
        return self.figures[self.metric]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the scores and texts of single questions."""
        values = asdict(self)
        del values["scores"], values["clusters"], values["texts"]
        return values


@dataclass(frozen=True)
class Comparison:
    """Two models in the main figure of a task, on the same questions."""

    task: str
    metric: str
    one: str
    other: str
    difference: Difference


@dataclass(frozen=True)
class Evaluation:
    """Everything that one call found."""

    results: list[Result]
    comparisons: list[Comparison]
    settings: Settings
    not_run: dict[str, str] = field(default_factory=dict)
    """Task -> why it was not run."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Results of other forms, such as those of programs and of generated texts."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "settings": asdict(self.settings),
            "results": [result.as_dict() for result in self.results],
            "comparisons": [asdict(one) for one in self.comparisons],
            "not_run": self.not_run,
            **self.extra,
        }


def evaluate(
    scorers: Sequence[Scorer], tasks: Iterable[Task], settings: Settings, directory: Path | None = None
) -> Evaluation:
    """Ask every model every task, one model after another. Answers are kept in `directory` (the user's cache), so that
    the same call goes on where it was interrupted. A task whose data cannot be had, whose examples do not fit into a
    context, or that a model cannot answer is not run.

    Raises ValueError: for such a reason, no task was run.
    """
    tasks, failures = list(tasks), list[ValueError]()
    found, not_run = {task.name: list[Result]() for task in tasks}, dict[str, str]()
    kept: dict[str, Asked] = {}
    for scorer in scorers:
        file = AnswerFile.of(scorer, directory)
        with scorer.opened() if isinstance(scorer, LocalScorer) else nullcontext():
            for task in tasks:
                if task.name in not_run:
                    continue
                try:
                    one = kept.pop(task.name) if task.name in kept else asked(task, scorers, settings)
                    if one.questions:
                        found[task.name].append(answer(task, one, scorer, file))
                    else:
                        not_run[task.name] = "; ".join(one.notes)
                except ValueError as error:
                    not_run[task.name] = str(error)
                    failures.append(error)
                    continue
                if scorer is not scorers[-1]:
                    kept[task.name] = one
    results = [result for task in tasks if task.name not in not_run for result in found[task.name]]
    if failures and not results:
        raise failures[0]
    results += better_forms(results)
    return Evaluation(results, list(comparisons(results)), settings, not_run)


class Asked(NamedTuple):
    """What is asked of every model in one task."""

    questions: list[Question]
    shots: int
    """Examples before each question."""
    of: int
    """The questions that there are."""
    notes: tuple[str, ...]


def asked(task: Task, scorers: Sequence[Scorer], settings: Settings) -> Asked:
    """What to ask in a task. Raises ValueError: its data cannot be had, or a context is too short for the examples that
    were asked for."""
    shots = task.shots if settings.shots is None else settings.shots
    if shots > task.max_shots:
        raise ValueError(f"{task.name} has {task.max_shots} examples; --shots {shots} asks for more")
    notes = [*task.notes, *(f"{name}: {note}" for name in task.data if (note := named(name).note))]
    wanted = shots
    while True:
        questions = list(task.questions(shots))
        of, subjects = len(questions), len({question.cluster for question in questions})
        if settings.limit is not None and settings.limit < of:
            drawn_for = task.name.removesuffix(LETTERS)  # both forms of a task are asked the same questions
            chosen = random.Random(f"{settings.seed} {drawn_for}").sample(range(of), settings.limit)
            questions = [questions[number] for number in sorted(chosen)]
        tight = tightest(questions, scorers)
        if tight is None or not shots:
            break
        scorer, longest = tight
        if settings.shots is not None:
            raise ValueError(
                f"{task.name} with {shots} examples takes up to {longest} tokens; {scorer.name} reads {scorer.n_ctx}; "
                f"ask for fewer with --shots"
            )
        shots -= 1
    if task.macro:
        drawn = len({question.cluster for question in questions})
        notes.append(f"mean over {drawn} of {subjects} subjects of the mean in each")
    if shots < wanted:
        notes.append(f"{shots} of {wanted} examples: more do not fit into every model's context")
    if tight is not None:
        notes.append("contexts that are too long lose their start")
    chat = any(isinstance(scorer, LocalScorer) and scorer.chat for scorer in scorers)
    if chat and any(map(alone, questions)):
        notes.append("texts that follow no question are scored without the chat template")
    return Asked(questions, shots, of, tuple(notes))


def alone(question: Question) -> bool:
    """Whether a question asks for a text that follows no other."""
    requests = question.requests
    return any(isinstance(one, WholeText) or (isinstance(one, Continuation) and not one.context) for one in requests)


def tightest(questions: Sequence[Question], scorers: Sequence[Scorer]) -> tuple[Scorer, int] | None:
    """A model whose context is too short for a question, and the tokens of the longest one."""
    requests = [request for question in questions for request in question.requests]
    for scorer in scorers:
        longest = scorer.longest(requests)
        if scorer.n_ctx is not None and longest > scorer.n_ctx:
            return scorer, longest
    return None


def answer(task: Task, one: Asked, scorer: Scorer, file: AnswerFile) -> Result:
    """The result of a model in a task. Raises ValueError: the model cannot answer."""
    began, questions = time.monotonic(), one.questions
    requests = [request for question in questions for request in question.requests]
    answers = iter(file.ask(scorer, requests, f"{scorer.name} {task.name}"))
    given = [[next(answers) for _ in question.requests] for question in questions]
    with sample_threads(task.measured_at_once) as executor:
        scores = list(executor.map(task.measure, questions, given))
    by_metric = {metric: [score[metric] for score in scores] for metric in scores[0]}
    first = dict[tuple[Request, ...], int]()  # of equal questions, which are dependent
    numbers = [first.setdefault(question.requests, number) for number, question in enumerate(questions)]
    clusters = [question.cluster or f"{number}" for question, number in zip(questions, numbers, strict=True)]
    figures = {metric: figure(metric, values, clusters, task.macro) for metric, values in by_metric.items()}
    return Result(
        task=task.name,
        model=scorer.name,
        metric=task.metric,
        figures=figures,
        n=len(questions),
        of=one.of,
        shots=one.shots,
        chance=task.chance,
        seconds=time.monotonic() - began,
        licences={name: named(name).licence for name in task.data},
        notes=one.notes,
        scores=by_metric,
        clusters=clusters,
        macro=task.macro,
        texts={question.id: written(question, found) for question, found in zip(questions, given, strict=True)},
    )


def written(question: Question, answers: Sequence[Answer]) -> list[tuple[str, str]]:
    """The prompt and the text of each continuation that a question asks for."""
    pairs = zip(question.requests, answers, strict=True)
    return [(one.prompt, text) for one, text in pairs if isinstance(one, Generation) and isinstance(text, str)]


def better_forms(results: Sequence[Result]) -> Iterator[Result]:
    """For each model and task of a test set that was asked both as a cloze and with letters the better accuracy of the
    two, which is what OLMES reports (arXiv 2406.08446, section 3.3)."""
    known = {(result.task, result.model): result for result in results}
    for cloze in results:
        letters = known.get((f"{cloze.task}{LETTERS}", cloze.model))
        if letters is None or not cloze.licences or {METRICS[one.metric].kind for one in (cloze, letters)} != {"share"}:
            continue
        better = max(cloze, letters, key=lambda result: result.main.value)
        name = "acc_either_form"
        both = f"{cloze.main.value:.4g} as a cloze and {letters.main.value:.4g} with letters"
        yield replace(
            better,
            task=f"{cloze.task}{EITHER}",
            metric=name,
            figures={name: better.main},
            scores={name: better.scores[better.metric]},
            seconds=0.0,
            notes=(*better.notes, f"{cloze.model}: the better of {both}, on the same questions, so slightly too high"),
        )


def figure(metric: str, values: Sequence[Any], clusters: Sequence[str], macro: bool = False) -> Estimate:
    """The estimate of a metric from the scores of questions."""
    match METRICS[metric].kind:
        case "ratio":
            found = estimates.ratio([a for a, _ in values], [b for _, b in values], clusters)
            return replace(found, low=float(np.maximum(0.0, found.low)))  # which keeps that there is none
        case "exp":
            found = estimates.mean(values, clusters)
            value, low, high = (math.exp(min(x, 700.0)) for x in (found.value, found.low, found.high))
            return Estimate(value, low, high, value * found.error, found.n, found.clusters)
        case _:
            return (estimates.macro if macro else estimates.mean)(values, clusters, share=True)


def comparisons(results: Sequence[Result]) -> Iterable[Comparison]:
    """All pairs of models in the main figure of each task. Of a run the last checkpoint stands for the run, and each
    checkpoint is compared with the one before it."""
    for task in dict.fromkeys(result.task for result in results):
        runs: dict[str, list[Result]] = {}
        for number, one in enumerate(result for result in results if result.task == task):
            checkpoint = checkpoint_of(one.model)
            runs.setdefault(checkpoint[0] if checkpoint else f"model {number}", []).append(one)
        for first, second in combinations(runs.values(), 2):
            yield compared(first[-1], second[-1])
        for of_run in runs.values():
            yield from (compared(after, before) for before, after in pairwise(of_run))


def compared(one: Result, other: Result) -> Comparison:
    """Two models in the main figure of a task."""
    a, b = one.scores[one.metric], other.scores[one.metric]
    if METRICS[one.metric].kind == "ratio":
        sizes = [size for _, size in a]
        found = estimates.ratio_difference([x for x, _ in a], [x for x, _ in b], sizes, one.clusters)
    else:
        share = METRICS[one.metric].kind == "share"
        found = estimates.difference(a, b, one.clusters, one.macro, share)
    return Comparison(one.task, one.metric, one.model, other.model, found)


def checkpoint_of(model: str) -> tuple[str, int] | None:
    """The run and the step in the name of a checkpoint, RUN@STEP; None for other models."""
    run, _, step = model.rpartition("@")
    return (run, int(step)) if run and step.isdecimal() else None


def summary(evaluation: Evaluation) -> str:
    """A table for the terminal."""
    rows = []
    for result in evaluation.results:
        chance = "" if result.chance is None else f"   guessing {result.chance:.2f}"
        of = "" if result.n == result.of else f" of {result.of}"
        rows.append(f"{result.task:<32} {result.model:<20} {result.metric:<15} {result.main}{of}{chance}")
        rows += [f"    {note}" for note in result.notes]
    for one in evaluation.comparisons:
        d = one.difference
        clear = "" if d.clear else ", which may be chance"
        rows.append(
            f"{one.task}: {one.one} - {one.other} = {d.value:+.4g} ({span(d.low, d.high, '+.4g')}; "
            f"correlation {shown(d.correlation, '.2f')}){clear}"
        )
    rows += [f"{task}: not run: {why}" for task, why in evaluation.not_run.items()]
    licences = {name: text for result in evaluation.results for name, text in result.licences.items()}
    return "\n".join(rows + licence_lines(licences))


def licence_lines(licences: Mapping[str, str]) -> list[str]:
    """A line for each test set with its licence."""
    return [
        f"data {name}: {text}{', not for commercial use' if named(name).non_commercial else ''}"
        for name, text in licences.items()
    ]
