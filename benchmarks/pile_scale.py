"""Show that the cost of a corpus grows as its size: by a simulation of 825 GB and 10 TB, and by builds of two sizes.

The simulation makes the real graph of tasks (`bluejay.pile.pipeline.graph`) for parts that do not exist. It counts the
tasks, the bytes of the tasks as workers get them, the files that they open, and how often records are written anew; a
test (tests/benchmarks/test_pile_scale.py) compares the files with those that a real build opens.

`--measure 5 50` builds corpora of 5 and 50 MB with limits in proportion: `--scale 100` divides the bytes of a part, and
the documents, passages and tokens of a bucket, by 100, so that 50 MB have as many parts and buckets as 5 GB have. The
seconds are those of one processor, so that a busy machine does not change them much. `--scale 1 --measure 500 5000` is
the real size, for which 30 GB of disk are needed; with `--work DIR` it goes on where it was ended.
"""

import argparse
import json
import math
import pickle
import random
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import mock

from report import report, result

from bluejay.files import atomic_directory
from bluejay.pile.pipeline import graph
from bluejay.pile.pipeline.executor import Executor
from bluejay.pile.pipeline.graph import Pipeline
from bluejay.pile.pipeline.runner import Runner
from bluejay.pile.pipeline.task import Step, Task
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.report.counts import Report
from bluejay.pile.steps import dedup, passages, read, shuffle
from bluejay.pile.steps.merge import ListOutputs
from bluejay.pile.steps.mix import SPLITS
from bluejay.pile.steps.read import PART_BYTES, Part
from bluejay.progress import say
from bluejay.recipe import check

DOCUMENT_BYTES, PASSAGE_BYTES, TOKEN_BYTES = 4000, 6, 3
"""Text of a document, from one passage to the next, and of a token, on average."""
REPEATED = 10
"""Of so many passages, one occurred before."""
SIZES = {"8 GB": 8e9, "80 GB": 80e9, "825 GB": 825e9, "10 TB": 10e12}
COMPARING = {"exact", "near", "hash-passages", "repeats", "passages", "merge", "merge-encoded", "shuffle", "outputs"}
"""Steps that compare all documents, or serve those that do."""
STAGES = {"copies": "exact", "repeated passages": "passages", "places of passages": "passages"}
"""Labels of the graph -> the stages that are reported."""


def recipe(folder: str, output: str, near: dict[str, Any] | None = None) -> PileRecipe:
    """A corpus of one component with all that compares documents; `near` has settings of near-copies."""
    source = [{"kind": "jsonl", "path": f"{folder}/*.jsonl"}]
    values = {"name": "scale", "output": output, "tokenizer": {"path": "gpt2"}, "split": {"least": "0 kB"}}
    values |= {"dedup": {"near": near or {}, "substring": {}}, "component": [{"name": "Text", "source": source}]}
    return check(PileRecipe, values, "the benchmark")


@dataclass(frozen=True)
class SimulatedTask(Task):
    """A task that is never run; its counts are those of text of the averages above."""

    number: int = 0

    @cached_property
    def directory(self) -> Path:
        return self.stages / self.step.name / f"{self.number:024x}"

    @property
    def done(self) -> bool:
        return isinstance(self.step, ListOutputs)

    @property
    def counts(self) -> dict[str, Any]:
        documents = PART_BYTES // DOCUMENT_BYTES
        if isinstance(self.step, shuffle.MergeEncoded):
            tokens = [pieces * shuffle.BUCKET_TOKENS for pieces in self.step.pieces]
            return {"splits": {name: {"tokens": n, "line_bytes": 0} for name, n in zip(SPLITS, tokens, strict=True)}}
        train = {"documents": documents, "bytes": PART_BYTES, "tokens": PART_BYTES // TOKEN_BYTES, "line_bytes": 0}
        none = dict.fromkeys(train, 0)
        return {
            "documents": documents,
            **{name: {} for name in ("dropped", "replaced", "skipped", "licences", "languages", "lengths", "bytes")},
            **dict.fromkeys(("added", "cut", "emptied", "candidates", "pairs", "members", "clusters", "characters"), 0),
            "inputs": [],
            "parts": [],
            "pieces": 1,
            "samples": [],
            "splits": {"train": train, "valid": none, "test": none},
            "passages": PART_BYTES // PASSAGE_BYTES,
            "repeats": passages.BUCKET_PASSAGES // REPEATED,
        }


@dataclass
class SimulatedRunner(Runner):
    """Counts tasks instead of running them."""

    numbers: Iterator[int] = field(default_factory=lambda: iter(range(1 << 62)))
    listed: dict[Path, int] = field(default_factory=dict)
    """How many outputs each listing names."""
    tasks: Counter[str] = field(default_factory=Counter)
    opened: Counter[str] = field(default_factory=Counter)
    pickled: int = 0
    largest: int = 0
    """Bytes of the largest task that a worker gets."""

    def task(self, step: Step) -> Task:
        return SimulatedTask(self.stages, step, number=next(self.numbers))

    def listing(self, outputs: Sequence[Path]) -> Path:
        directory = super().listing(outputs)
        self.listed[directory] = len(outputs)
        self.tasks[ListOutputs.name] += 1
        self.opened[ListOutputs.name] += 2
        return directory

    def run(self, label: str, chains: Sequence[Sequence[Task]], sizes: Sequence[int]) -> None:
        for chain in chains:
            size = len(pickle.dumps(chain))
            self.pickled += size
            self.largest = max(self.largest, size)
            for task in chain:
                self.tasks[task.step.name] += 1
                self.opened[task.step.name] += files_of(task.step, self.listed)


def files_of(step: Step, listed: dict[Path, int]) -> int:
    """How many files a task of a step opens, at most: those that it reads, those that it writes, and `counts.json`."""
    inputs = {name: listed.get(value, 0) for name, value in vars(step).items() if isinstance(value, Path)}
    n = inputs.get("listing", 0)
    reads: dict[str, Callable[[Any], int]] = {
        "read": lambda step: len(step.part.units) + 2,
        "clean": lambda step: 1 + 5,
        "sign": lambda step: 2 + 3,
        "exact": lambda step: 1 + n + 2,
        "near": lambda step: 1 + 3 * n + 1,
        "decide": lambda step: 6 + 5 * inputs["clean"] + 2 * inputs["exact"] + inputs["edges"],
        "hold-out": lambda step: 2 + 5 * inputs["clean"],
        "hash-passages": lambda step: 2 + 2,
        "repeats": lambda step: 1 + n + 1,
        "passages": lambda step: 1 + inputs["repeats"] + 4 * len(step.hashed),
        "merge": lambda step: 1 + (len(step.records) + len(step.arrays)) * (n + 1),
        "encode": lambda step: 4 + 9,
        "merge-encoded": lambda step: 1 + 5 * n + 5,
        "shuffle": lambda step: 1 + (2 + step.jsonl) * n + (2 + step.jsonl) * (step.end - step.first),
    }
    return reads[step.name](step) + 1


class SimulatedPipeline(Pipeline):
    """The graph of a build, without the decisions that need documents."""

    def mix(self) -> dict[str, float]:
        return dict.fromkeys(self.report.components, 1.0)

    def make_tokenizer(self) -> Path:
        self.report.vocab_size = 50257
        return Path("tokenizer")


def simulate(size: float) -> SimulatedRunner:
    """Make the tasks of a corpus of `size` bytes of text."""
    component = recipe("text", "out").component[0]
    n_parts = round(size / PART_BYTES)
    parts = [Part(component, component.source[0], (f"text/{n:07}.jsonl",), PART_BYTES) for n in range(n_parts)]
    runner = SimulatedRunner(Executor(), Path("data/corpus.stages"))
    with (
        mock.patch.object(graph, "parts_of", lambda *_: (parts, [])),
        mock.patch.object(graph, "stored_bytes", lambda task: PART_BYTES),
    ):
        SimulatedPipeline(recipe("text", "out"), runner, Report("scale", "")).run()
    return runner


def simulation() -> list[dict]:
    """The simulated sizes, each beside the smallest: what there is of each thing for a gigabyte of text."""
    rows, first = [], None
    for name, size in SIZES.items():
        runner = simulate(size)
        found = {
            "tasks": sum(runner.tasks.values()),
            "bytes pickled": runner.pickled,
            "files opened": sum(runner.opened.values()),
            "files opened to compare": sum(n for step, n in runner.opened.items() if step in COMPARING),
        }
        first = first or {key: 1e9 * value / size for key, value in found.items()}
        for key, value in found.items():
            rows.append(result(f"{name}: {key}", 1e9 * value / size, first[key], "a GB", 1.0, lower_is_better=True))
        merges = {step: n for step, n in runner.tasks.items() if step.startswith("merge")}
        say(json.dumps({"size": name, **found, "largest task": runner.largest, "tasks of": runner.tasks, **merges}))
    return rows


class TimedTask(Task):
    """A task that writes a line of what it took, so that a benchmark that was killed loses only one task's time."""

    def run(self) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        super().run()
        took = {"seconds": time.process_time() - processor, "wall": time.perf_counter() - wall}
        with times_of(self.stages).open("a") as file:
            file.write(json.dumps({"label": TimedRunner.label, "step": self.step.name, **took}) + "\n")


class TimedRunner(Runner):
    """Measures each task; a task that was done by a run before was measured then."""

    label = ""
    """The stage that the tasks are run for."""

    def task(self, step: Step) -> Task:
        return TimedTask(self.stages, step)

    def run(self, label: str, chains: Sequence[Sequence[Task]], sizes: Sequence[int]) -> None:
        TimedRunner.label = label
        super().run(label, chains, sizes)


def times_of(stages: Path) -> Path:
    """The file with what each task took."""
    return stages / "times.jsonl"


def stage_times(stages: Path) -> dict[str, dict[str, float]]:
    """For each stage the processor's seconds and those by the clock."""
    found: defaultdict[str, dict[str, float]] = defaultdict(lambda: {"seconds": 0.0, "wall": 0.0})
    for line in times_of(stages).read_text().splitlines():
        took = json.loads(line)
        for key in ("seconds", "wall"):
            found[STAGES.get(took["label"], took["label"])][key] += took[key]
    return dict(found)


def write_text(folder: Path, size: float, part: int) -> None:
    """Write documents of random words; one of ten is a copy, one a near-copy and one quotes another."""
    chance, documents = random.Random(0), [""]
    words = ["".join(chance.choices("etaoinshrdlucmfw", k=chance.randint(2, 9))) for _ in range(20_000)]
    for number in range(math.ceil(size / part)):
        lines, written = [], 0
        while written < part:
            text = " ".join(chance.choices(words, k=chance.randint(50, 1200)))
            kind, other = chance.randrange(10), chance.choice(documents)
            text = {0: other or text, 1: f"{other} {words[0]}", 2: f"{text} {other[:600]}"}.get(kind, text)
            documents[:] = [*documents[-2000:], text]
            lines.append(json.dumps({"text": text}) + "\n")
            written += len(lines[-1])
        (folder / f"{number:05}.jsonl").write_text("".join(lines))


def measure(megabytes: Sequence[float], scale: int, work: Path) -> list[dict]:
    """Build a corpus of each size in one process; the processor's seconds of each stage for a gigabyte of text.

    A benchmark that was ended goes on where it was; what a size took stays in `work`, and its corpus is removed.
    """
    rows: list[dict] = []
    first: dict[str, float] = {}
    limits = [(read, "PART_BYTES"), (dedup, "BUCKET_DOCUMENTS"), (passages, "BUCKET_PASSAGES")]
    for module, name in [*limits, (shuffle, "BUCKET_TOKENS"), (shuffle, "BUCKET_LINE_BYTES")]:
        setattr(module, name, getattr(module, name) // scale)
    for size in megabytes:
        taken = work / f"{size:g}-MB.json"
        if not taken.exists():
            folder, stages = work / f"{size:g}", work / f"{size:g}.stages"
            if not folder.exists():
                with atomic_directory(folder) as temporary:
                    write_text(temporary, size * 1e6, read.PART_BYTES)
            Pipeline(recipe(str(folder), str(work / "out")), TimedRunner(Executor(), stages), Report("scale", "")).run()
            taken.write_text(json.dumps(stage_times(stages)))
            shutil.rmtree(stages)
            shutil.rmtree(folder)
        times = json.loads(taken.read_text())
        for stage, took in times.items():
            rounded = {key: round(value, 2) for key, value in took.items()}
            say(json.dumps({"MB": size, "stage": stage, **rounded, "s/GB": round(1000 * took["seconds"] / size, 2)}))
        found = {name: 1000 * times[name]["seconds"] / size for name in ("exact", "near-copies", "passages", "shuffle")}
        first = first or found
        for name, seconds in found.items():
            rows.append(result(f"{name}, {size:g} MB", seconds, first[name], "s/GB", 1 / 1.3, lower_is_better=True))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=float, nargs="+", metavar="MB", help="build corpora of these sizes")
    parser.add_argument("--scale", type=int, default=100, help="what limits are divided by in --measure (100)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="a folder in which a --measure that was ended goes on")
    options = parser.parse_args()
    if options.measure:
        with tempfile.TemporaryDirectory() as temporary:
            work = options.work or Path(temporary)
            work.mkdir(parents=True, exist_ok=True)
            report("pile scale", measure(options.measure, options.scale, work))
    else:
        report("pile simulation", simulation())


if __name__ == "__main__":
    main()
