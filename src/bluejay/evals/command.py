"""`bluejay eval`: from options to results."""

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bluejay.evals import suites
from bluejay.evals.evaluate import Settings, evaluate, summary
from bluejay.evals.held_out_parts import component_tasks
from bluejay.evals.scorers import Scorer, open_scorer
from bluejay.evals.tasks import Task

DEFAULT_SUITE = "small"


def run(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Evaluate the models; returns the result as text and as values for JSON. Raises ValueError: a user's mistake."""
    settings = Settings(options.limit, options.shots, options.seed)
    tasks = chosen_tasks(options)  # before models are loaded, so that a mistake is found at once
    scorers = list(open_scorers(options))
    evaluation = evaluate(scorers, tasks, settings)
    evaluation.extra["command"] = shlex.join(["bluejay", *sys.argv[1:]])
    return summary(evaluation), evaluation.as_dict()


def chosen_tasks(options: argparse.Namespace) -> list[Task]:
    """The tasks that were asked for by name or by suite, each once."""
    if options.tasks:
        found = [suites.task(name) for name in options.tasks]
    else:
        found = [task for name in options.suite or [DEFAULT_SUITE] for task in tasks_of(name, options)]
    return list({task.name: task for task in found}.values())


def tasks_of(suite: str, options: argparse.Namespace) -> list[Task]:
    """The tasks of a suite."""
    if suite == "pile":
        if options.corpus is None:
            raise ValueError("the suite pile needs --corpus DIR, a corpus that bluejay pile build has made")
        return component_tasks(options.corpus)
    return list(suites.suite(suite))


def open_scorers(options: argparse.Namespace) -> Iterator[Scorer]:
    """The models that were asked for."""
    for name in options.models:
        path = Path(name)
        if (path / "model").is_dir():  # the directory of a run
            path = path / "model"
        yield open_scorer(str(path) if path.exists() else name, options.device, options.chat)
