"""Bring the outputs of many parts together, so that a task that compares all documents opens few files.

A task carries the directory of a `ListOutputs`, not the outputs themselves. Where there are more outputs than one task
may open, `MergeRecords` makes one of several, until few enough are left.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bluejay.pile.text.sorted_records import SortedRecords, concatenate, key_range, merge_sorted
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
class InBucket:
    """The fields of the steps that compare all those records of many outputs whose keys are in one bucket."""

    listing: Path
    """The outputs that hold the records."""
    bucket: int
    n_buckets: int

    def key(self) -> list[Any]:
        """The outputs, by the hashes that name them, and the bucket."""
        return [self.listing.name, self.bucket, self.n_buckets]

    def repeated(self, file: str, band: int | None = None) -> NDArray[np.void]:
        """Those `sorted_records` of a file of each output whose key another one has; of several tables, of a band's."""
        records = SortedRecords.open(listed(self.listing, file), band)
        return records.repeated_between(*key_range(self.bucket, self.n_buckets))


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
