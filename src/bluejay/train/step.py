"""One step of training: the gradient of a batch over all processes, then the update it gives the weights."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from bluejay.native import native
from bluejay.train.data.batches import TrainBatch
from bluejay.train.distributed.parallel import World, global_gradient_norm, schedule
from bluejay.train.distributed.stage import Stage
from bluejay.train.recipe import TrainRecipe


@dataclass(frozen=True)
class Gradient:
    """What is known of a gradient before it changes the weights; the same numbers in every process."""

    loss: float
    """Nats per token of the whole batch, taken before the update."""
    norm: float
    """Length over all weights, before clipping."""
    small_norm: float | None = None
    """The same of the first micro-batch alone, were it the whole batch; not known where there is only one, nor where
    processes add up their gradients only at the end."""


class Step:
    """Steps a model and its optimizer. `gradient` leaves the gradient in `.grad`; then either `update` or `drop`.

    Raises ValueError where the rows of a batch cannot be shared out evenly.
    """

    def __init__(
        self, recipe: TrainRecipe, world: World, stage: Stage, optimizer: torch.optim.Optimizer, precision: str
    ) -> None:
        self.settings, self.world, self.stage, self.optimizer = recipe.train, world, stage, optimizer
        self.precision = precision
        if native is not None:
            native.keep_memory()
        length, shares = recipe.data.sequence_length, world.data[1]
        rows = recipe.train.batch_tokens // length
        micro = (recipe.train.micro_batch_tokens or recipe.train.batch_tokens) // length
        self.rows = max(1, min(micro, rows // shares))
        if rows % (shares * self.rows):
            raise ValueError(
                f"train.batch_tokens is {rows} sequences, which {shares} processes cannot share out {self.rows} at a "
                f"time; it must be a multiple of {shares * self.rows} sequences"
            )
        self.parts = rows // shares // self.rows
        self.pipeline = None if stage.whole else schedule(world, stage, self.rows, length, self.parts, learning=True)
        self.trainable_parameters = [parameter for parameter in stage.parameters() if parameter.requires_grad]

    def gradient(self, batch: TrainBatch) -> Gradient:
        """Forward and backward of this process's rows of a batch, micro-batch by micro-batch, and clipping."""
        batch, world = batch.to(self.world.device), self.world
        total = float(self.settings.batch_tokens)
        if batch.weights is not None:
            total = float(world.sum(batch.weights.sum(), "replicate", "shard"))
        with autocast(world.device, self.precision):
            losses = self.backward(batch, 1 / total)
        loss = world.sum(torch.stack(losses).double().sum(), "pipeline", "replicate", "shard")
        norm = global_gradient_norm(world, self.trainable_parameters)
        torch.nn.utils.clip_grads_with_norm_(self.trainable_parameters, self.settings.clip, norm)
        return Gradient(float(loss), float(norm), self.small_norm)

    def backward(self, batch: TrainBatch, scale: float) -> list[Tensor]:
        """Add the gradient of some rows to `.grad`; gives back the losses of their micro-batches."""
        losses: list[Tensor] = []
        self.small_norm = None
        if self.pipeline is not None:
            self.pipeline.step(target=batch.targets, losses=losses, return_outputs=False, scale=scale, **vars(batch))
            return [loss.detach() for loss in losses] or [torch.zeros((), device=self.world.device)]
        parts = batch.split(self.rows)
        for number, part in enumerate(parts, start=1):
            if isinstance(self.stage, FSDPModule):
                self.stage.set_requires_all_reduce(number == len(parts))
            loss = self.stage(scale=scale, **vars(part))
            loss.backward()
            losses.append(loss.detach())
            if number == 1 < self.parts and self.world.at("tensor")[1] == self.world.at("replicate")[1] == 1:
                self.small_norm = self.parts * float(global_gradient_norm(self.world, self.trainable_parameters))
        return losses

    @torch.no_grad()
    def nll(self, batch: TrainBatch) -> Float[Tensor, "B T"]:
        """Nats that each target of a whole batch loses. All processes pass the same batch and get the same answer."""
        (index, shares), (B, T) = self.world.data, batch.inputs.shape
        size = min(self.rows, -(-B // shares))
        each = -(-B // (shares * size)) * size
        mine = slice(index * each, (index + 1) * each)
        # So that all processes make the same passes, those at the end repeat the last row.
        rows = torch.arange(each * shares).clamp(max=B - 1)[mine]
        part = batch[rows].to(self.world.device)
        nats = torch.zeros(each * shares, T, device=self.world.device)
        with autocast(self.world.device, self.precision):
            if self.pipeline is None:
                nats[mine] = torch.cat([self.stage(scale=None, **vars(some)) for some in part.split(size)])
            else:
                run = schedule(self.world, self.stage, size, T, each // size, learning=False)
                output = run.step(scale=None, **vars(part))
                if output is not None:
                    nats[mine] = output
        if isinstance(self.stage, FSDPModule):
            self.stage.reshard()  # or the next step would go on with these weights, for no backward pass frees them
        return self.world.sum(nats, "pipeline", "replicate", "shard")[:B]

    def update(self, lr: float) -> None:
        """Change the weights by the gradient."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.drop()

    def drop(self) -> None:
        """Forget the gradient; the weights and the optimizer's state stay."""
        self.optimizer.zero_grad()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Matrix products in the run's precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
