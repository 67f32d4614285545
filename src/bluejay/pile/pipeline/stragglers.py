"""Names the tasks that take much longer than others, while a build waits for them."""

import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from bluejay.files import TEMPORARY
from bluejay.pile.pipeline.task import Task
from bluejay.progress import say

CHECK_SECONDS = 15.0
"""Time between two looks at the tasks that run."""
LEAST_SECONDS = 60.0
"""A task that has run for a shorter time is not named."""
FACTOR = 4.0
"""A task is named that runs this many times as long as half of the others did, and again after twice that time."""


class Stragglers:
    """Watches tasks from a thread of its own. A task that runs has a temporary directory, whatever machine it is on."""

    def __init__(self, label: str, tasks: Sequence[Task]) -> None:
        self.label = label
        self.folders = {task.directory.parent for task in tasks}
        self.tasks = {task.directory.name: task for task in tasks}
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
        usual, lines = statistics.median(self.seconds) if self.seconds else None, []
        for name, directory in last.items():
            seconds, task = now - self.began[directory], self.tasks.get(name)
            if usual is None or task is None or not directory.exists():
                continue
            if seconds >= max(LEAST_SECONDS, FACTOR * usual, 2 * self.named.get(directory, 0.0)):
                self.named[directory] = seconds
                took = f"has run for {seconds:,.0f} s; half of the others took {usual:,.0f} s at most"
                lines.append(f"{self.label}: {task.title} {took}")
        return lines
