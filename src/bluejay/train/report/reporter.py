"""The reports of a run: rows of `metrics.jsonl` and TensorBoard, and the live view."""

import dataclasses
import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from bluejay.gpt.config import GPTConfig
from bluejay.machine import matmul_rate, stated_rate
from bluejay.progress import say
from bluejay.train.checkpoint.state import State
from bluejay.train.data.held_out import HeldOutLoss
from bluejay.train.distributed.parallel import World
from bluejay.train.recipe import TrainRecipe
from bluejay.train.report.metrics import Metrics
from bluejay.train.report.noise_scale import NoiseScale
from bluejay.train.report.view import View, peak_memory, view
from bluejay.train.step import TOO_FAST, Gradient


class Reporter:
    """Reports a run's steps and evaluations; only the main process has files and a view."""

    def __init__(
        self, recipe: TrainRecipe, config: GPTConfig, world: World, state: State, bytes_per_token: float, shown: View
    ) -> None:
        self.recipe, self.device, self.shown, self.bytes_per_token = recipe, world.device, shown, bytes_per_token
        self.path = recipe.directory / "metrics.jsonl"
        self.metrics = Metrics(self.path, state.step) if world.is_main else None
        self.guess = math.log(config.vocab_size)
        """The loss of a guess that takes all tokens for equally likely."""
        self.flops_per_token = flops_per_token(recipe, config)
        products = 3 if recipe.lora is None else 2  # a frozen matrix needs no weight gradient
        self.product_flops = products * config.forward_flops(recipe.data.sequence_length)
        dtype = torch.bfloat16 if state.precision == "bfloat16" else torch.float32
        self.peak = matmul_rate(world.device, dtype) * world.size  # measured on this machine
        self.stated_peak = stated_peak(world, dtype)
        batch, processes = recipe.train.batch_tokens, world.data_shard[1]
        small = processes * recipe.micro_batch_rows(processes) * recipe.data.sequence_length
        self.noise_scale = NoiseScale(small, batch) if small < batch else None

    def stepped(self, state: State, gradient: Gradient, lr: float, seconds: float, problem: str | None) -> None:
        """Report a step, which took `seconds`. `problem` is the reason if it was skipped."""
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
        if self.stated_peak is not None:
            row["mfu"] = tokens_per_second * self.product_flops / self.stated_peak
        if self.noise_scale is not None and gradient.small_norm is not None and problem is None:
            row["noise_scale"] = self.noise_scale.add(gradient.small_norm, gradient.norm)
        if problem is not None:
            row |= {"skipped": problem, "skipped_steps": state.skipped}
        self.add(state.step, row)

    def evaluated(self, state: State, held_out: HeldOutLoss, texts: dict[str, str]) -> None:
        """Report an evaluation: the held-out loss, and the continuation of each prompt."""
        row: dict[str, Any] = {"valid_loss": held_out.nats_per_token, "valid_bits_per_byte": held_out.bits_per_byte}
        if held_out.components:
            row["valid_bits_per_byte_of"] = held_out.components
        if texts:
            row["samples"] = texts
        self.add(state.step, row)
        if self.metrics is not None and held_out.nats_per_token > self.guess:
            say(
                f"WARNING: after step {state.step:,} the held-out loss, {held_out.nats_per_token:.3f}, is above "
                f"{self.guess:.3f}, that of a guess among all tokens alike; {TOO_FAST}"
            )

    def rolled_back(self, state: State, step: int, reason: str) -> None:
        """Report a rollback from `step` to an earlier state, and remove the rows after that state."""
        if self.metrics is not None:
            self.metrics.close()
            self.metrics = Metrics(self.path, state.step)
        self.add(state.step, {"went_back_from": step, "reason": reason})

    def add(self, step: int, row: dict[str, Any]) -> None:
        """Write a row and show it."""
        row = {"step": step, "tokens": step * self.recipe.train.batch_tokens, **row}
        if self.metrics is not None:
            self.metrics.add(**row)
        self.shown.show(row)

    def sync(self) -> None:
        """Flush the rows to disk: a checkpoint relies on those of the steps before it."""
        if self.metrics is not None:
            self.metrics.sync()


def flops_per_token(recipe: TrainRecipe, config: GPTConfig) -> float:
    """FLOPs to train on one token of a sequence of the recipe's length (PaLM, appendix B). A frozen matrix needs no
    weight gradient, which is a third of the FLOPs."""
    seen = dataclasses.replace(config, n_ctx=recipe.data.sequence_length)
    return seen.flops_per_token * (1.0 if recipe.lora is None else 2 / 3)


def stated_peak(world: World, dtype: torch.dtype) -> float | None:
    """FLOP/s of the cards of a run by their data sheet; None on CPUs, in float32, and for cards that are not known."""
    if world.device.type != "cuda" or dtype != torch.bfloat16:
        return None
    rate = stated_rate(torch.cuda.get_device_name(world.device))
    return None if rate is None else rate * world.size


@contextmanager
def reporter(
    recipe: TrainRecipe, config: GPTConfig, world: World, state: State, bytes_per_token: float
) -> Generator[Reporter]:
    """The reporter of a run that starts from `state`; `bytes_per_token` is the mean length of a token."""
    with view(recipe.name, state.step, recipe.steps, quiet=not world.is_main) as shown:
        made = Reporter(recipe, config, world, state, bytes_per_token, shown)
        try:
            yield made
        finally:
            if made.metrics is not None:
                made.metrics.close()
