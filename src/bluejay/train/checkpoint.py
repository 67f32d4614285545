"""The state of a run on disk: PyTorch Distributed Checkpoint, its tensors in safetensors so that no pickle is read.

A checkpoint is a directory `step-N` that appears whole or not at all; the newest is kept. Beside the tensors,
`state.json` holds the step, the recipe, the tokenizer's hash and the precision in use.
"""

import json
import shutil
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader, HuggingFaceStorageWriter

from bluejay.files import atomic_directory
from bluejay.gpt.model import GPT


@dataclass(frozen=True)
class State:
    """Where a run stands."""

    step: int
    """Steps done."""
    recipe: dict[str, Any]
    """What decides the weights (`TrainRecipe.same_run`)."""
    tokenizer: str
    """Hash of the tokenizer that the shards were made with."""
    precision: str
    """Type of the matrix products; a run keeps the one it began with."""
    seconds: float
    """Time spent training so far."""


def save_checkpoint(directory: Path, model: GPT, optimizer: torch.optim.AdamW, state: State) -> None:
    """Write `directory/step-N`, then remove older ones. Raises OSError when the disk is full; the older ones stay."""
    path = directory / f"step-{state.step}"
    with atomic_directory(path) as temporary:
        try:
            with alone():
                dcp.save(tensors(model, optimizer), storage_writer=HuggingFaceStorageWriter(str(temporary)))
        except CheckpointException as failed:
            cause, _ = next(iter(failed.failures.values()))
            raise cause from None
        (temporary / "state.json").write_text(json.dumps(asdict(state), indent=2) + "\n")
    for older in checkpoints(directory)[:-1]:
        shutil.rmtree(older)


def newest_checkpoint(directory: Path) -> tuple[Path, State] | None:
    """The checkpoint to go on from, or None."""
    found = checkpoints(directory)
    if not found:
        return None
    return found[-1], State(**json.loads((found[-1] / "state.json").read_text()))


def load_checkpoint(path: Path, model: GPT, optimizer: torch.optim.AdamW) -> None:
    """Fill a model and its optimizer, in place, with what `save_checkpoint` wrote."""
    for parameter in model.parameters():
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    with alone():
        dcp.load(tensors(model, optimizer), storage_reader=HuggingFaceStorageReader(str(path)))


def checkpoints(directory: Path) -> list[Path]:
    """The whole checkpoints in a directory, oldest first."""
    steps = [path for path in directory.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(steps, key=lambda path: int(path.name.removeprefix("step-")))


def tensors(model: GPT, optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    """Every tensor of the state by name, sharing memory with the model and the optimizer."""
    named = {f"model.{name}": parameter.data for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            named[f"optimizer.{key}.{name}"] = value
    return named


@contextmanager
def alone() -> Generator[None]:
    """DCP warns when there is no process group; one process needs none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
