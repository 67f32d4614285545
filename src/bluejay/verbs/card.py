"""`bluejay card`."""

import argparse
import math
from pathlib import Path
from typing import Any


def card_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `bluejay card`."""
    verb.add_argument("run", type=Path, help="the directory of a finished run: runs/quickstart")
    help = "the folder that bluejay eval --report wrote (default: RUN/evaluation)"
    verb.add_argument("--evaluation", type=Path, metavar="DIR", help=help)
    help = "the folder that bluejay trace report wrote (default: RUN/trace-report)"
    verb.add_argument("--memorisation", type=Path, metavar="DIR", help=help)
    verb.add_argument("--licence", metavar="NAME", help="the licence of the weights, such as apache-2.0")
    help = "what the machine draws while it trains, for an estimate of the energy"
    verb.add_argument("--watts", type=float, metavar="W", help=help)


def run_card(options: argparse.Namespace, _: list[str]) -> tuple[str, dict[str, Any]]:
    """`bluejay card`."""
    from bluejay.model_card import write_model_card
    from bluejay.trace.corpora import is_corpus

    if is_corpus(options.run):
        raise ValueError(f"{options.run} is a corpus, and no run; bluejay pile card {options.run} writes its card")
    if options.watts is not None and not 0 < options.watts < math.inf:
        raise ValueError(f"--watts is {options.watts:g}; it must be a number above 0")
    path = write_model_card(
        options.run, options.evaluation, options.memorisation, licence=options.licence, watts=options.watts
    )
    return str(path), {"card": str(path)}
