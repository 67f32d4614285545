"""What each process writes of a checkpoint, and how a checkpoint is removed."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import WriteResult

from bluejay.files import sha256_of
from bluejay.storage import Storage
from bluejay.train.checkpoint.state import MARKER, State, write_marker

MAX_FILE_BYTES = 2**30
"""Size of a tensor file, which is in memory a second time while it is written; a single tensor may exceed it."""


class Writer(HuggingFaceStorageWriter):
    """Writes the tensors that DCP assigns to each process and, when all have finished, the marker."""

    def __init__(self, path: Path, state: State, storage: Storage | None) -> None:
        super().__init__(str(path), save_distributed=True)
        self.directory, self.state, self.storage = path, state, storage

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Create an empty directory; the first process calls this before any process writes."""
        remove(self.directory, self.storage)
        self.directory.mkdir(parents=True)
        return super().prepare_global_plan(plans)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> torch.futures.Future[list[WriteResult]]:
        """Write this process's part; each result contains its file's name and checksum."""
        file_numbers = {"fqn_to_index_mapping": dict(assign_files(plan.items))}
        plan = dataclasses.replace(plan, storage_data=plan.storage_data | file_numbers)
        self.directory.mkdir(parents=True, exist_ok=True)  # on the disk of another host
        results = super().write_data(plan, planner).wait()
        names = {result.storage_data.relative_path for result in results}
        checksums = {name: sha256_of(self.directory / name) for name in sorted(names)}
        for name in checksums:
            self.copy(name)
        done: torch.futures.Future[list[WriteResult]] = torch.futures.Future()
        done.set_result(
            [
                dataclasses.replace(result, storage_data=(name, checksums[name]))
                for result in results
                for name in [result.storage_data.relative_path]
            ]
        )
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the marker; the first process calls this when every process has written."""
        write_marker(self.directory, self.state, dict(result.storage_data for part in results for result in part))
        self.copy(MARKER)

    def copy(self, name: str) -> None:
        """Copy a file to object storage, if there is any."""
        if self.storage:
            self.storage.put(self.directory / name, f"{self.directory.name}/{name}")


def assign_files(items: list[WriteItem]) -> Iterator[tuple[str, int]]:
    """The name of each tensor and the number, from 1, of the file that it is written to."""
    total = 0
    for item in items:
        assert item.tensor_data is not None, "a checkpoint contains only tensors"
        total += item.tensor_data.chunk.sizes.numel() * item.tensor_data.properties.dtype.itemsize
        yield item.index.fqn, 1 + total // MAX_FILE_BYTES


def remove(path: Path, storage: Storage | None = None) -> None:
    """Remove a checkpoint, its marker first, so that an interrupted removal does not leave a damaged checkpoint."""
    if storage:
        storage.delete_directory(path.name, MARKER)
    (path / MARKER).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)
