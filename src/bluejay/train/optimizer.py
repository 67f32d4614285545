"""The optimizers, AdamW and Muon."""

from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from bluejay.train.recipe import Optimizer

ADJUST_LR_FN = "match_rms_adamw"
"""Scales Muon's updates to the root mean square of AdamW's, so that both use the same learning rate and weight decay
(Liu et al. 2025, "Muon is scalable for LLM training", section 2.2)."""


def make_optimizer(model: torch.nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """The optimizer of a recipe, for the trainable parameters of a model."""
    adam = adamw(model, settings)
    return Muon(model, adam, settings) if settings.kind == "muon" else adam


def adamw(model: torch.nn.Module, settings: Optimizer) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices including the embedding, not on biases and norms (mesh-transformer-jax)."""
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    parameters = [p for name, p in trainable if settings.kind == "adamw" or not uses_muon(name, p)]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=True)


def uses_muon(name: str, parameter: torch.nn.Parameter) -> bool:
    """Whether Muon updates a parameter: matrices of the blocks, not the embedding and the head (Jordan, 2024)."""
    return parameter.ndim == 2 and name.startswith("blocks.")


class Muon(torch.optim.Optimizer):
    """torch's Muon for the matrices of the blocks and AdamW for all other parameters, as one optimizer with one state.

    Muon's update needs a whole matrix. If matrices are sharded over processes, each process gathers some of them,
    computes their updates and broadcasts these.
    """

    def __init__(self, model: torch.nn.Module, adam: torch.optim.AdamW, settings: Optimizer) -> None:
        matrices = [p for name, p in model.named_parameters() if p.requires_grad and uses_muon(name, p)]
        muon = torch.optim.Muon(matrices, lr=0.0, weight_decay=settings.weight_decay, adjust_lr_fn=ADJUST_LR_FN)
        super().__init__([*adam.param_groups, *muon.param_groups], {})
        adam.state = muon.state = self.state
        self.adam, self.muon = adam, muon
        self.group: dist.ProcessGroup | None = None
        if isinstance(matrices[0], DTensor):
            ranks = matrices[0].device_mesh.mesh.flatten().tolist()
            self.group = cast(dist.ProcessGroup, dist.new_group(ranks, use_local_synchronization=True))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter; `closure` is not supported."""
        self.adam.step()
        if self.group is None:
            self.muon.step()
        else:
            for settings in self.muon.param_groups:
                self.step_sharded(self.group, settings)

    def step_sharded(self, group: dist.ProcessGroup, settings: dict[str, Any]) -> None:
        """`torch.optim.Muon.step` for matrices that are sharded over the processes of a group."""
        rank, size = dist.get_rank(group), dist.get_world_size(group)
        matrices, lr = settings["params"], settings["lr"]
        for first in range(0, len(matrices), size):
            batch, own = matrices[first : first + size], torch.empty(0)
            for owner, matrix in enumerate(batch):
                if not self.state[matrix]:
                    self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
                momentum = self.state[matrix]["momentum_buffer"]
                momentum.lerp_(matrix.grad, 1 - settings["momentum"])
                direction = matrix.grad.lerp(momentum, settings["momentum"]).full_tensor()
                own = muon_update(direction, lr) if owner == rank else own
            for owner, matrix in enumerate(batch):
                update = own if owner == rank else torch.empty(matrix.shape, device=matrix.device)
                dist.broadcast(update, group=group, group_src=owner)
                matrix.mul_(1 - lr * settings["weight_decay"])
                matrix.add_(distribute_tensor(update, matrix.device_mesh, matrix.placements, src_data_rank=None))


def muon_update(direction: Float[Tensor, "rows columns"], lr: float) -> Float[Tensor, "rows columns"]:
    """The update that torch's Muon adds to a whole matrix, given the momentum direction."""
    update = nn.Parameter(torch.zeros_like(direction))
    update.grad = direction
    torch.optim.Muon([update], lr=lr, weight_decay=0.0, momentum=0.0, nesterov=False, adjust_lr_fn=ADJUST_LR_FN).step()
    return update.detach()
