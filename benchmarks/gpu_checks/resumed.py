"""A run of the trainer itself: reading ahead, late figures, checkpoints from pinned memory, and going on from one."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bluejay import recipe as recipes
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import TokenWriter
from bluejay.train.checkpoint.checkpoints import Checkpoints
from bluejay.train.loop import train
from bluejay.train.recipe import TrainRecipe
from gpu_checks.rig import Measure, Row, Setting


def resumed(setting: Setting) -> Measure:
    """The time of a run of 124 M weights, how long it stands still to save, and how far the held-out loss of a run that
    went on from a checkpoint is from that of one that was not interrupted."""
    folder = Path(tempfile.mkdtemp())
    recipe = recipes.check(TrainRecipe, recipe_of(setting, folder), "the benchmark")
    write_tokens(folder / "tokens", recipe)
    pauses: list[float] = []
    save = Checkpoints.save

    def timed(self: Checkpoints, *arguments: Any) -> None:
        began = time.perf_counter()
        save(self, *arguments)
        pauses.append(time.perf_counter() - began)

    Checkpoints.save = timed  # type: ignore[method-assign] - in a process that does nothing else
    whole = train(recipe)

    def measure() -> Iterator[Row]:
        for name in ("model", "checkpoints/step-12"):
            shutil.rmtree(folder / "run" / name)
        second = train(recipe)
        apart = abs(second.held_out.nats_per_token / whole.held_out.nats_per_token - 1)
        yield {"held_out": round(whole.held_out.nats_per_token, 5), "apart": apart, "seconds": round(whole.seconds, 1)}
        yield {"save_stands_still_s": [round(pause, 3) for pause in pauses]}
        shutil.rmtree(folder)

    return measure


def recipe_of(setting: Setting, folder: Path) -> dict[str, Any]:
    """Twelve steps, with a checkpoint in their middle."""
    rows, length = setting.pick((64, 1024), (4, 64))
    small = {"preset": "gpt-j", "n_layer": 2, "d_model": 64, "n_head": 2, "vocab_size": 50304}
    shards = str(folder / "tokens")
    return {
        "name": "benchmark",
        "output": str(folder / "run"),
        "data": {"tokenizer": "gpt2", "train": [{"shards": shards}], "valid": shards, "sequence_length": length},
        "model": setting.pick({"preset": "bluejay-162m"}, small),
        "train": {
            "tokens": 12 * rows * length,
            "batch_tokens": rows * length,
            "micro_batch_tokens": rows * length // 4,
            "compile": not setting.tiny,
        },
        "evaluate": {"every_steps": 1000, "tokens": 4 * length},
        "checkpoint": {"every_steps": 6},
    }


def write_tokens(prefix: Path, recipe: TrainRecipe) -> None:
    """Documents of 512 random tokens, twice as many as the run reads."""
    tokenizer, generator = Tokenizer.load("gpt2"), np.random.default_rng(0)
    with TokenWriter(prefix, tokenizer.vocab_size) as shard:
        for _ in range(2 * recipe.train.tokens // 512):
            shard.add(np.append(generator.integers(0, 50000, 511), tokenizer.eot))
