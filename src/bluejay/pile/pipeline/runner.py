"""Runs the tasks of a build, and brings the outputs of many of them together for those that compare all documents."""

import itertools
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from bluejay.pile.pipeline.executor import Executor
from bluejay.pile.pipeline.stragglers import Stragglers
from bluejay.pile.pipeline.task import Step, Task
from bluejay.pile.steps.merge import ListOutputs, MergeRecords
from bluejay.progress import progress
from bluejay.storage import Storage, mirror

MIN_PARALLEL_BYTES = 32_000_000
"""Input of tasks below which no workers are started: that takes a second."""
REQUESTS_AT_ONCE = 32
"""Outputs that are looked for in object storage at once."""
MOST_OUTPUTS = 128
"""Outputs of a step that a task opens at most; of more, several are merged into one before."""


@dataclass
class Runner:
    """Makes tasks of steps and runs them."""

    executor: Executor
    stages: Path
    """The directory of all outputs."""
    used: set[Path] = field(default_factory=set)
    """The directories of all tasks of this build."""
    storage: Storage | None = None
    """Object storage that has all outputs, too."""

    def __post_init__(self) -> None:
        if self.storage:
            mirror(self.stages, self.storage)

    def task(self, step: Step) -> Task:
        """A task of this build."""
        task = Task(self.stages, step, self.storage)
        self.used.add(task.directory)
        return task

    def run(self, label: str, chains: Sequence[Sequence[Task]], sizes: Sequence[int]) -> None:
        """Run the tasks that are not done of several chains; within a chain, each task needs the one before it.

        `sizes` are the bytes of input of each chain, which the progress bar counts. Small work runs in this process.
        """
        with ThreadPoolExecutor(REQUESTS_AT_ONCE if self.storage else 1) as threads:
            done = list(threads.map(lambda chain: all(task.done for task in chain), chains))
        # The longest first, so that it does not run alone at the end.
        missing = sorted((number for number, whole in enumerate(done) if not whole), key=lambda number: -sizes[number])
        if not missing:
            return
        left = sum(sizes[number] for number in missing)
        parallel = self.executor.kind == "ray" or left > MIN_PARALLEL_BYTES
        running = [chains[number] for number in missing]
        with (
            progress(label, sum(sizes), "B", sum(sizes) - left) as bar,
            Stragglers(label, running) as stragglers,
            closing((self.executor if parallel else Executor()).run(run_chain, running)) as finished,
        ):
            for number, seconds in finished:
                stragglers.seconds.append(seconds)
                bar.advance(sizes[missing[number]])

    def finish(self, label: str, steps: Sequence[Step], sizes: Sequence[int]) -> list[Task]:
        """Run steps that are independent of each other; `sizes` are their bytes of input."""
        tasks = [self.task(step) for step in steps]
        self.run(label, [[task] for task in tasks], sizes)
        return tasks

    def listing(self, outputs: Sequence[Path]) -> Path:
        """The directory of a list of outputs, which a task carries in place of them."""
        task = self.task(ListOutputs(self.stages, tuple(outputs)))
        if not task.done:
            task.run()
        return task.directory

    def gathered(
        self, label: str, outputs: Sequence[Path], size: int, records: tuple[str, ...], arrays: tuple[str, ...] = ()
    ) -> Path:
        """A listing of at most MOST_OUTPUTS outputs that hold the records and arrays of all `outputs`.

        `size` is the bytes of all of these.
        """
        while groups := merge_groups(len(outputs)):
            steps = [MergeRecords(self.listing(outputs[a:b]), records, arrays) for a, b in groups]
            outputs = [task.directory for task in self.finish(label, steps, [size // len(steps)] * len(steps))]
        return self.listing(outputs)


def run_chain(chain: Sequence[Task]) -> float:
    """Run the tasks of a chain that are not done; gives the seconds that it took."""
    began = time.monotonic()
    for task in chain:
        if not task.done:
            task.run()
    return time.monotonic() - began


def merge_groups(outputs: int) -> list[tuple[int, int]]:
    """How consecutive outputs are merged: the first and the end of each group. Empty where no merging is needed.

    Merging is repeated until MOST_OUTPUTS are left, every time as many at once.
    """
    if outputs <= MOST_OUTPUTS:
        return []
    ratio = outputs / MOST_OUTPUTS
    times = next(n for n in itertools.count(1) if MOST_OUTPUTS**n >= ratio)
    n_groups = max(MOST_OUTPUTS, math.ceil(outputs / ratio ** (1 / times) - 1e-9))
    return list(itertools.pairwise(outputs * group // n_groups for group in range(n_groups + 1)))
