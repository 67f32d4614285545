"""The runs of all visits, in one file of the user's own."""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bluejay.files import write_text

MOST = 50
"""Runs that are kept."""


@dataclass(frozen=True)
class PastRun:
    """A text as a run left it."""

    text: str
    marks: list[list[int]]
    """[start, end] of what the model wrote."""
    settings: str
    note: str
    when: float = field(default_factory=time.time)


class Past:
    """The file, read anew each time: another terminal may have written to it. Without a path nothing is kept."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path

    @property
    def runs(self) -> list[PastRun]:
        """The latest first; none where the file is missing or is not ours."""
        try:
            return [PastRun(**run) for run in json.loads(self.path.read_text())] if self.path else []
        except (OSError, ValueError, TypeError):
            return []

    def add(self, run: PastRun) -> None:
        """Keep a run. Raises OSError."""
        self._write([run, *self.runs][:MOST])

    def forget(self) -> None:
        """Keep nothing. Raises OSError."""
        self._write([])

    def _write(self, runs: list[PastRun]) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # what people write is theirs
        write_text(self.path, json.dumps([asdict(run) for run in runs]))


def state_directory() -> Path:
    """Where a program keeps what it remembers of its user: `bluejay` in `$XDG_STATE_HOME` or in `~/.local/state`."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "bluejay"
