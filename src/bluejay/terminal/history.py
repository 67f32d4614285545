"""The runs of all visits, in one file in the user's home directory."""

import fcntl
import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bluejay.files import cache_directory, parse_json, set_aside, users_directory, write_text

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
    samples: list[list[Any]] = field(default_factory=list)
    """[text, spans] of each of several samples."""


class History:
    """The file, read anew on every access because another terminal may have written to it. Without a path, nothing is
    kept."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path

    @property
    def entries(self) -> list[HistoryEntry]:
        """The entries that can be read, latest first; none if the file is missing or has another format."""
        return [entry for value in self._values() or [] if (entry := entry_of(value)) is not None]

    def add(self, entry: HistoryEntry) -> None:
        """Add an entry; drops the oldest beyond `MAX_ENTRIES`. Entries that cannot be read, such as a newer version's,
        stay as they are, and a file of another format is renamed to NAME.unreadable. Raises OSError."""
        if self.path is None:
            return
        with locked(self.path.parent):
            values = self._values()
            if values is None and self.path.exists():
                set_aside(self.path, "unreadable")
            write_text(self.path, json.dumps([asdict(entry), *(values or [])][:MAX_ENTRIES]))

    def clear(self) -> None:
        """Delete all entries, also those that cannot be read. Raises OSError."""
        if self.path is not None:
            with locked(self.path.parent):
                write_text(self.path, "[]")

    def _values(self) -> list[Any] | None:
        """What the file holds for each entry; None if it is missing or has another format."""
        try:
            values = parse_json(self.path.read_text(encoding="utf-8")) if self.path else None
        except (OSError, ValueError):
            return None
        return values if isinstance(values, list) else None


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Let no other terminal change the history in a folder, which is made if need be, at the same time. A disk without
    locks is taken as it is."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # private: only the user may read it
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def entry_of(value: Any) -> HistoryEntry | None:
    """The entry that a value in the file describes; None if it describes none."""
    try:
        entry = HistoryEntry(**value)
        time.localtime(entry.when)
        known = all(isinstance(one, str) for one in (entry.settings, entry.note))
        known = known and isinstance(entry.when, int | float)
        known = known and all(fits(text, spans) for text, spans in [(entry.text, entry.spans), *entry.samples])
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return entry if known else None


def fits(text: Any, spans: Any) -> bool:
    """Whether this is a text and spans of it, in order. Raises TypeError or ValueError for what has no such form."""
    bounds = [0, *(bound for start, end in spans for bound in (start, end)), len(text)]
    return isinstance(text, str) and all(type(bound) is int for bound in bounds) and bounds == sorted(bounds)


def state_directory() -> Path:
    """The directory for what Bluejay remembers of its user: `bluejay` in `$XDG_STATE_HOME` or in `~/.local/state`;
    of a user without a home, or with one that cannot hold it, `state` in the directory of downloads."""
    return users_directory("XDG_STATE_HOME", "~/.local/state") or cache_directory() / "state"
