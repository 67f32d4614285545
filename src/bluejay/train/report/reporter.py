"""What a run says of itself: the rows of `metrics.jsonl` and TensorBoard, and the view on the screen."""

import dataclasses
import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from bluejay.gpt.config import GPTConfig
from bluejay.machine import matmul_rate
from bluejay.train.checkpoint.state import State
from bluejay.train.data.held_out import HeldOut
from bluejay.train.distributed.parallel import World
from bluejay.train.recipe import TrainRecipe
from bluejay.train.report.metrics import Metrics
from bluejay.train.report.noise_scale import NoiseScale
from bluejay.train.report.view import View, peak_memory, view
from bluejay.train.step import Gradient


class Report:
    """Of one run; only the first of its processes has files and a view."""

    def __init__(
        self, recipe: TrainRecipe, config: GPTConfig, world: World, state: State, bytes_per_token: float, shown: View
    ) -> None:
        self.recipe, self.device, self.shown, self.bytes_per_token = recipe, world.device, shown, bytes_per_token
        self.path = recipe.directory / "metrics.jsonl"
        self.metrics = Metrics(self.path, state.step) if world.main else None
        self.flops_per_token = flops_per_token(recipe, config)
        # Of what this machine does today, not of what is written in a data sheet.
        dtype = torch.bfloat16 if state.precision == "bfloat16" else torch.float32
        self.peak = matmul_rate(world.device, dtype) * world.size
        batch = recipe.train.batch_tokens
        small = (recipe.train.micro_batch_tokens or batch) * world.data[1]
        self.noise = NoiseScale(small, batch) if small < batch else None

    def stepped(self, state: State, gradient: Gradient, lr: float, seconds: float, problem: str | None) -> None:
        """Note a step; `problem` says why the weights did not take it, if they did not."""
        tokens_per_second = self.recipe.train.batch_tokens / seconds
        row: dict[str, Any] = {
            "loss": gradient.loss,
            "bits_per_byte": gradient.loss / math.log(2) / self.bytes_per_token,
            "lr": lr,
            "grad_norm": gradient.norm,
            "tokens_per_second": tokens_per_second,
            "share_of_peak": tokens_per_second * self.flops_per_token / self.peak,
            "memory": peak_memory(self.device),
        }
        if self.noise is not None and gradient.small_norm is not None and problem is None:
            row["noise_scale"] = self.noise.add(gradient.small_norm, gradient.norm)
        if problem is not None:
            row |= {"skipped": problem, "skipped_steps": state.skipped}
        self.add(state.step, row)

    def evaluated(self, state: State, held_out: HeldOut, samples: dict[str, str]) -> None:
        """Note what held-out text costs, and what the model says."""
        row: dict[str, Any] = {"valid_loss": held_out.nats_per_token, "valid_bits_per_byte": held_out.bits_per_byte}
        if held_out.components:
            row["valid_bits_per_byte_of"] = held_out.components
        if samples:
            row["samples"] = samples
        self.add(state.step, row)

    def rolled_back(self, state: State, step: int, reason: str) -> None:
        """Forget the rows since the state that the run went back to, from a later step."""
        if self.metrics is not None:
            self.metrics.close()
            self.metrics = Metrics(self.path, state.step)
        self.add(state.step, {"went_back_from": step, "reason": reason})

    def add(self, step: int, row: dict[str, Any]) -> None:
        """One row, on disk and on the screen."""
        row = {"step": step, "tokens": step * self.recipe.train.batch_tokens, **row}
        if self.metrics is not None:
            self.metrics.add(**row)
        self.shown.show(row)

    def sync(self) -> None:
        """Put the rows on the disk: a checkpoint counts on those of the steps before it."""
        if self.metrics is not None:
            self.metrics.sync()


def flops_per_token(recipe: TrainRecipe, config: GPTConfig) -> float:
    """To train on one token of a sequence of the recipe's length (PaLM, appendix B); a frozen matrix makes no gradient
    of its own."""
    seen = dataclasses.replace(config, n_ctx=recipe.data.sequence_length)
    return seen.flops_per_token * (1.0 if recipe.lora is None else 2 / 3)


@contextmanager
def report(
    recipe: TrainRecipe, config: GPTConfig, world: World, state: State, bytes_per_token: float
) -> Generator[Report]:
    """The report of a run that goes on from a state; a token of its text stands for so many bytes."""
    with view(recipe.name, state.step, recipe.steps, quiet=not world.main) as shown:
        reported = Report(recipe, config, world, state, bytes_per_token, shown)
        try:
            yield reported
        finally:
            if reported.metrics is not None:
                reported.metrics.close()
