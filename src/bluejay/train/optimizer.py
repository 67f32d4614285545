"""The optimizer and the learning rate over time."""

import math
from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from bluejay.train.recipe import Optimizer, Schedule

ADJUST_LR_FN = "match_rms_adamw"
"""Muon's updates are as long as AdamW's would be, so that one learning rate and one decay serve both (Liu et al. 2025,
"Muon is scalable for LLM training", section 2.2)."""


def make_optimizer(model: torch.nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """What the recipe asks for, over the parameters that are trainable_parameters."""
    adam = adamw(model, settings)
    return Muon(model, adam, settings) if settings.kind == "muon" else adam


def adamw(model: torch.nn.Module, settings: Optimizer) -> torch.optim.AdamW:
    """AdamW that decays matrices, the embedding too, but not biases and norms, as mesh-transformer-jax did."""
    trainable_parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    left = [p for name, p in trainable_parameters if settings.kind == "adamw" or not orthogonal(name, p)]
    groups = [
        {"params": [p for p in left if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in left if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=True)


def orthogonal(name: str, parameter: torch.nn.Parameter) -> bool:
    """Whether Muon takes a parameter: the matrices of the blocks, not the embedding and the head (Jordan, 2024)."""
    return parameter.ndim == 2 and name.startswith("blocks.")


class Muon(torch.optim.Optimizer):
    """torch's Muon for the matrices of the blocks, AdamW for the rest, as one optimizer with one state.

    What Muon does to a matrix needs all of it. Where matrices are spread over processes, each process gathers some of
    them, makes their updates and hands these out.
    """

    def __init__(self, model: torch.nn.Module, adam: torch.optim.AdamW, settings: Optimizer) -> None:
        matrices = [p for name, p in model.named_parameters() if p.requires_grad and orthogonal(name, p)]
        muon = torch.optim.Muon(matrices, lr=0.0, weight_decay=settings.weight_decay, adjust_lr_fn=ADJUST_LR_FN)
        super().__init__([*adam.param_groups, *muon.param_groups], {})
        adam.state = muon.state = self.state
        self.adam, self.muon = adam, muon
        self.group: dist.ProcessGroup | None = None
        if isinstance(matrices[0], DTensor):
            holders = matrices[0].device_mesh.mesh.flatten().tolist()
            self.group = cast(dist.ProcessGroup, dist.new_group(holders, use_local_synchronization=True))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every parameter; there is no closure to call."""
        self.adam.step()
        if self.group is None:
            self.muon.step()
        else:
            for settings in self.muon.param_groups:
                self.step_sharded(self.group, settings)

    def step_sharded(self, group: dist.ProcessGroup, settings: dict[str, Any]) -> None:
        """`torch.optim.Muon.step` for matrices that the processes of a group share."""
        rank, size = dist.get_rank(group), dist.get_world_size(group)
        matrices, lr = settings["params"], settings["lr"]
        for first in range(0, len(matrices), size):
            some, own = matrices[first : first + size], torch.empty(0)
            for holder, matrix in enumerate(some):
                if not self.state[matrix]:
                    self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
                momentum = self.state[matrix]["momentum_buffer"]
                momentum.lerp_(matrix.grad, 1 - settings["momentum"])
                direction = matrix.grad.lerp(momentum, settings["momentum"]).full_tensor()
                own = change(direction, lr) if holder == rank else own
            for holder, matrix in enumerate(some):
                whole = own if holder == rank else torch.empty(matrix.shape, device=matrix.device)
                dist.broadcast(whole, group=group, group_src=holder)
                matrix.mul_(1 - lr * settings["weight_decay"])
                matrix.add_(distribute_tensor(whole, matrix.device_mesh, matrix.placements, src_data_rank=None))


def change(direction: Float[Tensor, "rows columns"], lr: float) -> Float[Tensor, "rows columns"]:
    """What torch's Muon adds to a whole matrix, given where momentum points to."""
    added = nn.Parameter(torch.zeros_like(direction))
    added.grad = direction
    torch.optim.Muon([added], lr=lr, weight_decay=0.0, momentum=0.0, nesterov=False, adjust_lr_fn=ADJUST_LR_FN).step()
    return added.detach()


def learning_rate(step: int, steps: int, peak: float, schedule: Schedule) -> float:
    """The rate of a step, counted from 0: linear up to the peak, half a cosine down to the floor, then the floor."""
    warmup, decay = schedule.warmup * steps, schedule.decay * steps
    if step < warmup:
        return peak * (step + 1) / (math.floor(warmup) + 1)
    done = min(1.0, (step - warmup) / max(1.0, decay - warmup))
    return peak * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * done)) / 2)
