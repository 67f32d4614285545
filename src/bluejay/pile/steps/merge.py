"""Bring the outputs of many parts together, so that a task that compares all documents opens few files.

A task carries the directory of a `ListOutputs`, not the outputs themselves. Where there are more outputs than one task
may open, `MergeRecords` makes one of several, until few enough are left.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bluejay.pile.text.sorted_records import concatenate, merge_sorted
from bluejay.storage import ensure_local

OUTPUTS = "outputs.json"
"""The file with a list of outputs."""


@dataclass(frozen=True)
class ListOutputs:
    """Writes `outputs.json`: the directories of outputs, relative to that of all outputs, in their order."""

    name: ClassVar[str] = "outputs"
    stages: Path
    outputs: tuple[Path, ...]

    def key(self) -> list[Any]:
        """The outputs, by the hashes that name them."""
        return self.names

    @property
    def names(self) -> list[str]:
        """The outputs, relative to the directory of all."""
        return [output.relative_to(self.stages).as_posix() for output in self.outputs]

    def run(self, out: Path) -> dict[str, Any]:
        (out / OUTPUTS).write_text(json.dumps(self.names), encoding="utf-8")
        return {"outputs": len(self.outputs)}


def listed(listing: Path, *names: str) -> list[Path]:
    """The outputs that a `ListOutputs` named, or a file of each: STAGES/outputs/KEY -> directories below STAGES.

    Files are copied to this disk if they are not on it; of directories, their files when they are read."""
    stages = listing.parent.parent
    outputs = json.loads((ensure_local(listing) / OUTPUTS).read_text(encoding="utf-8"))
    paths = [stages.joinpath(name, *names) for name in outputs]
    return [ensure_local(path) if path.suffix else path for path in paths]


@dataclass(frozen=True)
class MergeRecords:
    """Merge the files of several outputs: each file of `sorted_records`, and each array with a row per document."""

    name: ClassVar[str] = "merge"
    listing: Path
    records: tuple[str, ...]
    """Names of the files of `sorted_records`."""
    arrays: tuple[str, ...] = ()
    """Names of the files of other arrays."""

    def key(self) -> list[Any]:
        """The outputs and the names of the files."""
        return [self.listing.name, list(self.records), list(self.arrays)]

    def run(self, out: Path) -> dict[str, Any]:
        for name in self.records:
            merge_sorted(listed(self.listing, name), out / name)
        for name in self.arrays:
            concatenate(listed(self.listing, name), out / name)
        return {}
