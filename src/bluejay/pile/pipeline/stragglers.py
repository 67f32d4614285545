"""Says which tasks a build waits for: those that take much longer than others; before any has ended, the longest."""

import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bluejay.files import TEMPORARY
from bluejay.pile.pipeline.task import Task
from bluejay.progress import format_bytes, say

CHECK_SECONDS = 15.0
"""Time between two looks at the tasks that run."""
LEAST_SECONDS = 60.0
"""A task that has run for a shorter time is not named."""
FACTOR = 4.0
"""A task is named that runs this many times as long as half of the others did, and again after twice that time."""


class Stragglers:
    """Watches tasks from a thread of its own. A task that runs has a temporary directory, whatever machine it is on."""

    def __init__(self, label: str, chains: Sequence[Sequence[Task]]) -> None:
        self.label = label
        self.folders = {task.directory.parent for chain in chains for task in chain}
        self.titles = {
            task.directory.name: f"{task.step.name} ({chain[0].subject})" for chain in chains for task in chain
        }
        """The step of each task, and what the first of its chain is about."""
        self.seconds: list[float] = []
        """How long each finished chain of tasks took."""
        self.left_over = self.directories()
        """The directories of tasks that were killed before."""
        self.began: dict[Path, float] = {}
        self.named: dict[Path, float] = {}
        """When each was named, in seconds since its start."""
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self) -> "Stragglers":
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.ended.set()
        self.thread.join()

    def watch(self) -> None:
        """Look at the tasks that run until all have ended."""
        while not self.ended.wait(CHECK_SECONDS):
            for line in self.late():
                say(line)

    def directories(self) -> set[Path]:
        """The temporary directories of tasks."""
        return {path for folder in self.folders for path in folder.glob(f"*{TEMPORARY}")}

    def late(self) -> list[str]:
        """A sentence for each task that runs for too long and was not named yet."""
        now = time.monotonic()
        # Of a task that was begun again, the last directory counts.
        last = {directory.name.partition(".")[0]: directory for directory in self.began}
        for directory in self.directories() - self.left_over - set(self.began):
            self.began[directory] = now
            last[directory.name.partition(".")[0]] = directory
        running = {
            directory: now - self.began[directory]
            for name, directory in last.items()
            if name in self.titles and directory.exists()
        }
        usual = statistics.median(self.seconds) if self.seconds else None
        if usual is None:  # a bar that stands at 0 % does not show that something happens
            running = dict(sorted(running.items(), key=lambda item: item[1])[-1:])
        lines = []
        for directory, seconds in running.items():
            if seconds < max(LEAST_SECONDS, FACTOR * (usual or 0), 2 * self.named.get(directory, 0.0)):
                continue
            self.named[directory] = seconds
            title = self.titles[directory.name.partition(".")[0]]
            wrote = f"it wrote {format_bytes(written(directory))}"
            beside = wrote if usual is None else f"half of the others took {usual:,.0f} s at most"
            lines.append(f"{self.label}: {title} has run for {seconds:,.0f} s; {beside}")
        return lines


def written(directory: Path) -> int:
    """The bytes of the files in a directory; 0 where one of them is removed meanwhile."""
    with suppress(OSError):
        return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return 0
