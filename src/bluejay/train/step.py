"""One training step: the gradient of a batch over all processes, then the update of the weights, unless it is skipped.

A step is skipped if its loss or gradient is not finite, or far above that of recent steps: a spike. A GPU decides that
itself, so the host reads the figures of a step when the next one was given to it.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from bluejay.native import native
from bluejay.train.checkpoint.state import State
from bluejay.train.data.batches import TrainBatch
from bluejay.train.distributed.parallel import World, check_micro_batches, pipeline_schedule, squared_gradient_norm
from bluejay.train.distributed.stage import Stage
from bluejay.train.optimizer import refuse
from bluejay.train.recipe import Guard, TrainRecipe, is_examples

SPIKE_WINDOW = 128
"""Recent steps that a step is compared with, at least half of them (as in OLMo-core, `skip_step_optimizer.py`)."""
MAX_ROLLBACKS = 3
"""How often a run may roll back to the same checkpoint before it stops with an error."""
TOO_FAST = "lower train.lr, or look at the data"
"""What helps a run that diverges."""


@dataclass(frozen=True)
class Gradient:
    """Loss and norms of a gradient before the update; equal in every process."""

    loss: float
    """Loss of the whole batch before the update, in nats per token."""
    norm: float
    """L2 norm over all weights, before clipping."""
    small_norm: float | None = None
    """L2 norm of the mean gradient of the first micro-batch, for the noise scale. None if the batch is one micro-batch,
    or if the mesh sums gradients only after the last one (tensor, pipeline, replicate)."""
    flags: tuple[bool, ...] = ()
    """For each flag given to the step, whether it was set in any process."""


class Figures:
    """What a step gives besides the gradient, on its way from the device; equal in every process."""

    def __init__(self, values: Float64[Tensor, " figures"], has_small_norm: bool) -> None:
        """`values` are loss, norm, norm of the small batch, and how many processes have each flag set."""
        self.values, self.has_small_norm = values, has_small_norm
        self.copy = values.to("cpu", non_blocking=True)
        self.copied = torch.cuda.Event() if values.is_cuda else None
        if self.copied:
            self.copied.record()

    def refused(self, limits: tuple[float, float]) -> Float[Tensor, ""]:
        """1 if loss and norm are not both finite and at most the limits, else 0; the device is not waited for."""
        loss, norm = self.values[:2]
        good = loss.isfinite() & norm.isfinite() & (loss <= limits[0]) & (norm <= limits[1])
        return (~good).float()

    def read(self) -> Gradient:
        """Wait for the figures."""
        if self.copied:
            self.copied.synchronize()
        loss, norm, small, *flags = self.copy.tolist()
        return Gradient(loss, norm, small if self.has_small_norm else None, tuple(flag > 0 for flag in flags))


@dataclass(frozen=True)
class Launched:
    """A step that was given to the device."""

    figures: Figures
    state: State
    """The state whose recent steps it is compared with."""
    lr: float
    began: float


class Step:
    """Steps a model and its optimizer. `gradient` leaves the gradient in `.grad`; `update` or `discard` must follow.

    Raises ValueError if the processes cannot divide a batch evenly, or into enough micro-batches for a pipeline.
    """

    def __init__(
        self, recipe: TrainRecipe, world: World, stage: Stage, optimizer: torch.optim.Optimizer, precision: str
    ) -> None:
        self.settings, self.world, self.stage, self.optimizer = recipe.train, world, stage, optimizer
        self.precision = precision
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        if native is not None:
            native.keep_memory()
        # Examples are averaged over the tokens that they teach. A masked document only takes its own tokens away.
        self.averages_weights = any(is_examples(part.names[0]) for part in recipe.data.train)
        length, processes = recipe.data.sequence_length, world.data_shard[1]
        self.rows = recipe.micro_batch_rows(processes)
        self.n_micro = recipe.batch_rows // processes // self.rows
        check_micro_batches(self.n_micro, world.axis("pipeline")[1])
        self.pipeline = None
        if not stage.is_whole:
            self.pipeline = pipeline_schedule(world, stage, self.rows, length, self.n_micro, learning=True)
        self.trainable = [parameter for parameter in stage.parameters() if parameter.requires_grad]

    def gradient(self, batch: TrainBatch) -> Gradient:
        """`launch`, and wait for the device."""
        return self.launch(batch).read()

    def launch(self, batch: TrainBatch, flags: Sequence[bool] = ()) -> Figures:
        """Forward and backward pass over this process's rows of a batch, one micro-batch at a time, then clipping. The
        device is not waited for. One collective operation sums the figures of all processes, and their `flags`."""
        world = self.world
        total = float(self.settings.batch_tokens)
        if batch.weights is not None and self.averages_weights:
            # They are in main memory, so the device is not waited for.
            total = float(world.sum(batch.weights.sum(), "replicate", "shard"))
        with autocast(world.device, self.precision):
            losses = self.backward(batch, 1 / max(total, 1e-9))  # it is 0 if nothing in the batch is to be learnt
        values = torch.zeros(3 + len(flags), device=world.device, dtype=torch.float64)
        values[0] = torch.stack(losses).double().sum() / world.axis("tensor")[1]  # which all have the same loss
        values[1] = squared_gradient_norm(world, self.trainable)
        if self.small_squares is not None:
            values[2] = self.small_squares
        for number, flag in enumerate(flags, start=3):
            values[number] = float(flag)
        world.sum(values)
        values[1:3].sqrt_()
        torch.nn.utils.clip_grads_with_norm_(self.trainable, self.settings.clip, values[1].float())
        return Figures(values, self.small_squares is not None)

    def backward(self, batch: TrainBatch, scale: float) -> list[Tensor]:
        """Add the gradient of this process's rows to `.grad`. Returns the losses of the micro-batches."""
        losses: list[Tensor] = []
        self.small_squares: Tensor | None = None
        device = self.world.device
        here = batch.to(device)
        if self.pipeline is not None:
            self.pipeline.step(target=here.targets, losses=losses, return_outputs=False, scale=scale, **vars(here))
            return [loss.detach() for loss in losses] or [torch.zeros((), device=self.world.device)]
        bounds = [self.stage.document_bounds(part, device) for part in batch.split(self.rows)]
        for number, micro_batch in enumerate(here.split(self.rows), start=1):
            if isinstance(self.stage, FSDPModule):
                self.stage.set_requires_all_reduce(number == self.n_micro)
            loss = self.stage(scale=scale, bounds=bounds[number - 1], **vars(micro_batch))
            loss.backward()
            losses.append(loss.detach())
            if number == 1 < self.n_micro and self.world.axis("tensor")[1] == self.world.axis("replicate")[1] == 1:
                self.small_squares = self.n_micro**2 * squared_gradient_norm(self.world, self.trainable)
        return losses

    @torch.no_grad()
    def nll(self, batch: TrainBatch) -> Float[Tensor, "B T"]:
        """Negative log-likelihood of each target in nats. All processes pass the same batch and get the same result."""
        (index, processes), (B, T) = self.world.data_shard, batch.inputs.shape
        stages = self.world.axis("pipeline")[1]  # of which each needs a micro-batch
        size = min(self.rows, -(-B // (processes * stages)))
        each = max(stages, -(-B // (processes * size))) * size
        mine = slice(index * each, (index + 1) * each)
        # All processes must make the same number of passes, so the last ones repeat the last row.
        rows = torch.arange(each * processes).clamp(max=B - 1)[mine]
        part = batch[rows].to(self.world.device)
        nats = torch.zeros(each * processes, T, device=self.world.device)
        with autocast(self.world.device, self.precision):
            if self.pipeline is None:
                nats[mine] = torch.cat([self.stage(scale=None, **vars(some)) for some in part.split(size)])
            else:
                run = pipeline_schedule(self.world, self.stage, size, T, each // size, learning=False)
                output = run.step(scale=None, **vars(part))
                if output is not None:
                    nats[mine] = output
        if isinstance(self.stage, FSDPModule):
            self.stage.reshard()  # no backward pass frees the gathered weights; the next step would use them
        return self.world.sum(nats, "pipeline", "replicate", "shard")[:B]

    def update(self, lr: float, refused: Tensor | None = None) -> None:
        """Take an optimizer step with learning rate `lr` and discard the gradient. The step changes nothing where
        `refused`, which is on the device, is 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        refuse(self.optimizer, refused)
        self.optimizer.step()
        self.discard()

    def discard(self) -> None:
        """Discard the gradient, leaving the weights and the optimizer state unchanged."""
        self.optimizer.zero_grad()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Context in which matrix products are in the run's precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def without_last(state: State) -> State:
    """A state that does not know the figures of its last step. The next step is always compared with such a state, so
    that nothing depends on whether they have been read."""
    return state if state.consecutive_skips else dataclasses.replace(state, recent=state.recent[:-1])


def spike_limits(state: State, settings: Guard) -> list[tuple[float, float]]:
    """Mean and standard deviation of the recent losses, and of the gradient norms; nothing if no spikes are sought."""
    recent = state.recent[-SPIKE_WINDOW:] if settings.spike != "keep" else ()
    if len(recent) < SPIKE_WINDOW // 2:
        return []
    return [(statistics.fmean(values), statistics.pstdev(values)) for values in zip(*recent, strict=True)]


def largest(state: State, settings: Guard) -> tuple[float, float]:
    """The largest loss and norm that are no spike."""
    loss, norm = [mean + settings.sigma * sigma for mean, sigma in spike_limits(state, settings)] or [math.inf] * 2
    return loss, norm


def spike_reason(gradient: Gradient, state: State, settings: Guard) -> str | None:
    """Why a gradient should not be applied, in a few words; None if it should."""
    usual = spike_limits(state, settings)
    for number, (name, value) in enumerate((("loss", gradient.loss), ("gradient norm", gradient.norm))):
        if not math.isfinite(value):
            return f"its {name} is {value}"
        if value > largest(state, settings)[number]:
            mean, sigma = usual[number]
            return f"its {name} is {value:.3g}, and that of recent steps {mean:.3g} ± {sigma:.2g}"
    return None


def advance(state: State, gradient: Gradient, problem: str | None, settings: Guard) -> State:
    """The state after a step, which was skipped if a `problem` is given."""
    if problem is not None:
        return dataclasses.replace(
            state, step=state.step + 1, skipped=state.skipped + 1, consecutive_skips=state.consecutive_skips + 1
        )
    recent = (*state.recent, (gradient.loss, gradient.norm))[-SPIKE_WINDOW - 1 :] if settings.spike != "keep" else ()
    return dataclasses.replace(state, step=state.step + 1, consecutive_skips=0, recent=recent)
