"""Studies: runs that are listed before the first one starts, and recorded by one line each.

A study is a script that names its runs and calls `main`. Each run is trained by `bluejay train` and measured; then one
line is appended to `experiments/results/STUDY.jsonl`, which is committed. Started again, the script skips what is
recorded and goes on with the run that was interrupted, so that a study grows over any number of starts:

    python experiments/scaling.py --list                 # what will run, how long it takes, what is done
    python experiments/scaling.py --minutes 60           # runs until an hour is over, then writes the page
    python experiments/scaling.py --seed 100             # the same study with the seeds of a second person
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.figure import Figure
from measure import held_out_bits, programs

from bluejay.files import write_text
from bluejay.infer.model import load
from bluejay.machine import processor

matplotlib.use("Agg")
ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
LONGEST = 15.0
"""Minutes that a run may take on the machine for which a study is planned."""
LONGEST_DOCUMENT = 2048
"""Held-out tokens of a document that are measured, so that no document decides alone."""
RECIPE = "recipes/train/nano.toml"
CORPUS = "data/mini-pile-8k"
"""The corpus of `RECIPE`."""
SIZES = {
    "1.1M": (3, 96), "1.6M": (3, 128), "3.3M": (4, 192), "5.2M": (4, 256), "8.8M": (5, 320), "10M": (6, 320),
    "14M": (6, 384), "29M": (8, 512),
}  # fmt: skip
"""Weights of blocks and head with 8,192 tokens -> layers and width."""
VOCABULARY, BATCH, LEARNING_RATE = 8192, 4096, 3e-3
RATE = 3.0e11
"""Floating-point operations a second of two cores, by which durations are expected."""


class RunFailed(Exception):
    """A run ended with an error, which was printed; others may go on."""


@dataclass(frozen=True)
class Run(ABC):
    """A run of a study, which is recorded by one line. A kind of run says in `carry_out` what is done."""

    name: str
    """Unique within the study, without the seed."""
    minutes: float
    """Expected duration on two cores."""
    seed: int = 0
    """`--seed` is added to it."""

    def __post_init__(self) -> None:
        if self.minutes > LONGEST:
            raise ValueError(f"{self.name} takes {self.minutes:.0f} minutes; divide it, {LONGEST:.0f} are the most")

    @abstractmethod
    def carry_out(self, study: str, seed: int) -> dict[str, Any] | None:
        """Do the run, or go on with it, and return what is recorded of it; None where it cannot be done here."""


@dataclass(frozen=True)
class TrainingRun(Run):
    """A model is trained and measured on held-out documents. The seed is that of weights and of the data's order."""

    recipe: str = RECIPE
    """The training recipe, from the folder of the project."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Changed fields of the recipe, by their dotted names."""
    corpus: str = CORPUS
    """The corpus whose held-out part the model is measured on."""
    programs: bool = False
    """Whether the model is asked for programs, too."""

    def carry_out(self, study: str, seed: int) -> dict[str, Any] | None:
        """Train and measure."""
        began = time.monotonic()
        directory = ROOT / "runs" / study / f"{self.name}-{seed}"
        fields = self.overrides | {"name": directory.name, "output": str(directory), "seed": seed}
        overrides = [word for name, value in fields.items() for word in (f"--{name}", text_of(value))]
        trained = bluejay("train", str(ROOT / self.recipe), *overrides)
        seconds = time.monotonic() - began
        with load(trained["model"]) as model:
            documents = held_out_bits(model, ROOT / self.corpus, LONGEST_DOCUMENT)
            written = {"programs": programs(model)} if self.programs else {}
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
        return {
            "recipe": self.recipe,
            "overrides": self.overrides,
            "corpus": hash_of_corpus(ROOT / self.corpus),
            "steps": trained["steps"],
            "nats_per_token": trained["held_out"]["nats_per_token"],
            "documents": documents,
            **written,
            "minutes_of_training": round(seconds / 60, 2),
        }


def weights(size: str, vocabulary: int = VOCABULARY) -> int:
    """Weights of the blocks and the head, N."""
    n_layer, d_model = SIZES[size]
    return 12 * n_layer * d_model**2 + vocabulary * d_model


def small(
    name: str, size: str, tokens: float, train: Sequence[tuple[str, float]] = (), seed: int = 0, **changed: Any
) -> TrainingRun:
    """A run of a size for so many tokens of weighted shards, by default the corpus; `changed` are fields of the run or,
    by their dotted names, of the recipe."""
    (n_layer, d_model), tokens = SIZES[size], int(tokens) // BATCH * BATCH
    corpus = changed.pop("corpus", CORPUS)
    vocabulary = changed.pop("vocabulary", VOCABULARY)
    asked = changed.pop("programs", False)
    sets = [f'{{ shards = "{shards}", weight = {weight:g} }}' for shards, weight in train]
    overrides = {
        "data.train": f"[{', '.join(sets)}]" if sets else f'[{{ shards = "{corpus}/tokens/train" }}]',
        "data.valid": f"{corpus}/tokens/valid",
        "model.n_layer": n_layer,
        "model.d_model": d_model,
        "model.n_head": max(1, d_model // 64),
        "train.tokens": tokens,
        "train.batch_tokens": BATCH,
        "train.lr": LEARNING_RATE,
        "evaluate.every_steps": tokens // BATCH,
        "checkpoint.at": [],
        **changed,
    }
    minutes = 1.0 + 6 * weights(size, vocabulary) * tokens / RATE / 60
    return TrainingRun(name, minutes, seed, RECIPE, overrides, corpus, asked)


def ending(study: str, runs: Sequence[Run]) -> str:
    """What of a study was done, how long it took, and what was not run."""
    done = recorded(study)
    left: dict[str, list[str]] = {}
    for run in runs:
        if (run.name, run.seed) not in done:
            left.setdefault(run.name, []).append(str(run.seed))
    missing = [f"{name} (seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)})" for name, seeds in left.items()]
    minutes, machines = sum(line["minutes"] for line in done.values()), {line["processor"] for line in done.values()}
    if not done:
        return f"No run was done yet; `python experiments/{study}.py --list` lists them.\n"
    took = f"{len(done)} runs took {minutes:.0f} minutes in all on {' and '.join(sorted(machines))}."
    return f"{took} Not run: {', '.join(missing)}.\n" if missing else f"{took} All runs of the list were done.\n"


def recorded(study: str) -> dict[tuple[str, int], dict[str, Any]]:
    """The recorded lines of a study, by the name and the seed of their runs."""
    path = RESULTS / f"{study}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {(line["run"], line["seed"]): line for line in map(json.loads, lines)}


def main(
    study: str,
    runs: Sequence[Run],
    page: Callable[[], str] | None = None,
    picture: Callable[[], object] | None = None,
) -> None:
    """List the runs of a study, or do those that are not recorded yet; then draw its picture and write its page,
    `docs/claims/STUDY.md`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", action="store_true", help="print the runs and stop")
    parser.add_argument("--page", action="store_true", help="write the page of what is recorded and stop")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="the runs whose names begin so")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run that would end later")
    parser.add_argument("--seed", type=int, default=0, help="added to the seeds of all runs")
    options = parser.parse_args()
    if len({(run.name, run.seed) for run in runs}) != len(runs):
        raise ValueError("two runs of the study have the same name and seed")
    began, done, failed = time.monotonic(), recorded(study), False
    chosen = [run for run in runs if not options.only or run.name.startswith(tuple(options.only))]
    todo = [run for run in chosen if (run.name, run.seed + options.seed) not in done]
    for run in chosen if options.list else ():
        state = "not run" if run in todo else f"done in {done[run.name, run.seed + options.seed]['minutes']:.1f}"
        print(f"{run.name:32} seed {run.seed + options.seed:<4} {run.minutes:5.1f} minutes  {state}")
    print(
        f"{len(chosen) - len(todo)} of {len(chosen)} runs are done; the others take "
        f"{sum(run.minutes for run in todo):.0f} minutes",
        file=sys.stderr,
    )
    todo = [] if options.list or options.page else todo
    check_corpora(todo, done.values())
    for run in todo:
        if time.monotonic() - began > 60 * (options.minutes - run.minutes):
            print(f"{run.name} would end after the {options.minutes:g} minutes", file=sys.stderr)
            continue
        started, seed = time.monotonic(), run.seed + options.seed
        try:
            found = run.carry_out(study, seed)
        except RunFailed as error:
            print(f"{run.name} (seed {seed}) failed: {error}", file=sys.stderr)
            failed = True
            continue
        if found is None:
            print(f"{run.name} cannot be done here", file=sys.stderr)
            continue
        known = {"run": run.name, "seed": seed}
        where = {"processor": processor(), "commit": git("rev-parse", "--short", "HEAD"), "date": f"{date.today()}"}
        record(study, {**known, **found, "minutes": round((time.monotonic() - started) / 60, 2), **where})
    if picture is not None and not options.list:
        picture()
    if page is not None and not options.list:
        write_text(page_of(study), page())
    if failed:
        sys.exit(1)


def check_corpora(runs: Iterable[Run], lines: Iterable[dict[str, Any]]) -> None:
    """Raise ValueError where a run would read another corpus than the recorded runs of the same name did: documents of
    two corpora cannot be compared in pairs."""
    here = {run.corpus: hash_of_corpus(ROOT / run.corpus) for run in runs if isinstance(run, TrainingRun)}
    for line in lines:
        for corpus, known in here.items():
            name, before = Path(corpus).name, line.get("corpus", known)
            if before.split()[0] == name and before != known:
                raise ValueError(
                    f"{corpus} is now {known.split()[1]}, and {line['run']} was measured on {before.split()[1]}; "
                    f"move {RESULTS / '*.jsonl'} aside, or build the corpus that it names"
                )


def save_picture(figure: Figure, name: str) -> None:
    """Save a drawing beside the pages."""
    target = ROOT / "docs" / "claims" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def page_of(study: str) -> Path:
    """Where the page of a study is."""
    return ROOT / "docs" / "claims" / f"{study.replace('_', '-')}.md"


def text_of(value: Any) -> str:
    """A value as TOML, for the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def hash_of_corpus(directory: Path) -> str:
    """The name of a corpus and the beginning of the hash of its files."""
    return f"{directory.name} {hashlib.sha256((directory / 'SHA256SUMS').read_bytes()).hexdigest()[:12]}"


def bluejay(*words: str) -> dict[str, Any]:
    """What a verb says with `--json`. Its progress goes to the terminal. Raises RunFailed. An interrupt, after which
    the verb has saved its state, ends this process, too."""
    command = [sys.executable, "-m", "bluejay", *words, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child, passed_on(child):
        said, _ = child.communicate()
    if child.returncode in (129, 130, 143):
        sys.exit(child.returncode)
    if child.returncode:
        raise RunFailed(f"bluejay {words[0]} ended with {child.returncode}")
    return json.loads(said)


@contextmanager
def passed_on(child: subprocess.Popen) -> Generator[None]:
    """A context in which a signal that asks this process to stop has the child save its state and stop; the terminal
    sends an interrupt to both."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, _: child.send_signal(number)),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def git(*words: str) -> str:
    """What git says; nothing where there is no git."""
    done = subprocess.run(["git", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    return done.stdout.strip()


def record(study: str, line: dict[str, Any]) -> None:
    """Append a line, whole and on the disk, before the next run starts."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / f"{study}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())
