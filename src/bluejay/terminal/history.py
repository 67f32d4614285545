"""The runs of all visits, in one file in the user's home directory."""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bluejay.files import parse_json, write_text

MAX_ENTRIES = 50


@dataclass(frozen=True)
class HistoryEntry:
    """The text at the end of a run."""

    text: str
    spans: list[list[int]]
    """[start, end] of each part that the model wrote."""
    settings: str
    note: str
    """The report on the run."""
    when: float = field(default_factory=time.time)
    """Time of the run, in seconds since the epoch."""


class History:
    """The file, read anew on every access because another terminal may have written to it. Without a path, nothing is
    kept."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path

    @property
    def entries(self) -> list[HistoryEntry]:
        """All entries, latest first; none if the file is missing or has another format."""
        try:
            return [HistoryEntry(**entry) for entry in parse_json(self.path.read_text())] if self.path else []
        except (OSError, ValueError, TypeError):
            return []

    def add(self, entry: HistoryEntry) -> None:
        """Add an entry; drops the oldest beyond `MAX_ENTRIES`. Raises OSError."""
        self._write([entry, *self.entries][:MAX_ENTRIES])

    def clear(self) -> None:
        """Delete all entries. Raises OSError."""
        self._write([])

    def _write(self, entries: list[HistoryEntry]) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # private: only the user may read it
        write_text(self.path, json.dumps([asdict(entry) for entry in entries]))


def state_directory() -> Path:
    """The directory for what Bluejay remembers of its user: `bluejay` in `$XDG_STATE_HOME` or in `~/.local/state`."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "bluejay"
