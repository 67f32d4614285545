"""The optimizers, AdamW and Muon."""

import math
from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

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


def refuse(optimizer: torch.optim.Optimizer, refused: Float[Tensor, ""] | None) -> None:
    """Let the next steps of an optimizer change nothing where `refused` is 1 on the device; it is not waited for."""
    if isinstance(optimizer, Muon):
        optimizer.refused, optimizer = refused, optimizer.adam
    vars(optimizer)["found_inf"] = refused  # as torch.amp.GradScaler tells fused optimizers


class Muon(torch.optim.Optimizer):
    """torch's Muon for the matrices of the blocks and AdamW for all other parameters, as one optimizer with one state.

    Muon's update needs a whole matrix. If matrices are sharded, each process owns some of them: it receives the shards
    of these, orthogonalises, and returns each process its shard, all in bfloat16, in which Muon orthogonalises anyway.
    So the update is that of one process to the bit.
    """

    def __init__(self, model: torch.nn.Module, adam: torch.optim.AdamW, settings: Optimizer) -> None:
        self.matrices = [p for name, p in model.named_parameters() if p.requires_grad and uses_muon(name, p)]
        muon = torch.optim.Muon(self.matrices, lr=0.0, weight_decay=settings.weight_decay, adjust_lr_fn=ADJUST_LR_FN)
        super().__init__([*adam.param_groups, *muon.param_groups], {})
        adam.state = muon.state = self.state
        self.adam, self.muon = adam, muon
        self.refused: Tensor | None = None
        """1 on the device if the next step changes nothing."""
        self.group: dist.ProcessGroup | None = None
        if isinstance(self.matrices[0], DTensor):
            ranks = self.matrices[0].device_mesh.mesh.flatten().tolist()
            self.group = cast(dist.ProcessGroup, dist.new_group(ranks, use_local_synchronization=True))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter; `closure` is not supported."""
        self.adam.step()
        for settings in self.muon.param_groups:
            matrices, lr, decay = settings["params"], settings["lr"], settings["weight_decay"]
            size = dist.get_world_size(self.group) if self.group else 1
            for batch in (matrices[first : first + size] for first in range(0, len(matrices), size)):
                directions = [self.direction(matrix, settings["momentum"]) for matrix in batch]
                for matrix, update in zip(batch, self.orthogonal(batch, directions), strict=True):
                    weights = local(matrix)
                    new = weights * (1 - lr * decay)
                    new.add_(update, alpha=-lr * scale_of(matrix))
                    weights.copy_(self.unless_refused(weights, new))

    def direction(self, matrix: Tensor, momentum: float) -> Float[Tensor, "rows columns"]:
        """Update the momentum of a matrix; gives this process's shard of Nesterov's direction in bfloat16."""
        state, gradient = self.state[matrix], matrix.grad
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        buffer, gradient = local(state["momentum_buffer"]), local(cast(Tensor, gradient))
        buffer.copy_(self.unless_refused(buffer, buffer.lerp(gradient, 1 - momentum)))
        return gradient.lerp(buffer, momentum).bfloat16()

    def unless_refused(self, old: Tensor, new: Tensor) -> Tensor:
        """`new`, or `old` if the step is refused."""
        return new if self.refused is None else torch.where(self.refused > 0, old, new)

    def orthogonal(self, matrices: list[Tensor], directions: list[Tensor]) -> list[Tensor]:
        """This process's shards of the orthogonalised directions of at most as many matrices as there are processes."""
        if self.group is None:
            return [orthogonalised(direction) for direction in directions]
        axes = [sharded_axis(matrix) for matrix in cast(list[DTensor], matrices)]
        if None in axes or len(set(axes)) > 1:
            return self.orthogonal_by_all(cast(list[DTensor], matrices), directions)
        group = cast(DTensor, matrices[0]).device_mesh.get_group(axes[0])
        size, found = dist.get_world_size(group), []
        for first in range(0, len(matrices), size):
            found += exchange(group, matrices[first : first + size], directions[first : first + size])
        return found

    def orthogonal_by_all(self, matrices: list[DTensor], directions: list[Tensor]) -> list[Tensor]:
        """`orthogonal` for matrices that are whole in several processes, or sharded over several axes."""
        rank, found = dist.get_rank(self.group), []
        own = torch.empty(0)
        for owner, (matrix, direction) in enumerate(zip(matrices, directions, strict=True)):
            sharded = DTensor.from_local(
                direction, matrix.device_mesh, matrix.placements, shape=matrix.shape, stride=matrix.stride()
            )
            whole = sharded.full_tensor()
            own = orthogonalised(whole) if owner == rank else own
        for owner, matrix in enumerate(matrices):
            update = own if owner == rank else torch.empty(matrix.shape, device=matrix.device, dtype=torch.bfloat16)
            dist.broadcast(update, group=self.group, group_src=owner)
            found.append(local(distribute_tensor(update, matrix.device_mesh, matrix.placements, src_data_rank=None)))
        return found


def exchange(group: dist.ProcessGroup, matrices: list[Tensor], directions: list[Tensor]) -> list[Tensor]:
    """Send the shard of each direction to the process that owns the matrix, by its number, let it orthogonalise the
    whole one, and get the own shard of the result: two all-to-all operations."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    absent = [0] * (size - len(matrices))
    theirs = [direction.numel() for direction in directions] + absent
    mine = [0] * size
    if rank < len(matrices):
        rows, columns = matrices[rank].shape
        each = -(-rows // size)  # as FSDP cuts them
        mine = [columns * max(0, min(each, rows - other * each)) for other in range(size)]
    received = directions[0].new_empty(sum(mine))
    dist.all_to_all_single(received, torch.cat([d.flatten() for d in directions]), mine, theirs, group=group)
    if rank < len(matrices):
        received = orthogonalised(received.view(matrices[rank].shape)).flatten()
    returned = directions[0].new_empty(sum(theirs))
    dist.all_to_all_single(returned, received, theirs, mine, group=group)
    return [piece.view_as(own) for piece, own in zip(returned.split(theirs), directions, strict=False)]


def sharded_axis(matrix: DTensor) -> int | None:
    """The one axis of a matrix's mesh over which its rows are sharded; None if it is sharded otherwise, or whole."""
    mesh = matrix.device_mesh
    axes = [axis for axis, kind in enumerate(matrix.placements) if mesh.size(axis) > 1 and not kind.is_replicate()]
    return axes[0] if len(axes) == 1 and matrix.placements[axes[0]] == Shard(0) else None


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor; it shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def scale_of(matrix: Tensor) -> float:
    """What the learning rate of a matrix is multiplied by (Liu et al. 2025, equation 4)."""
    return 0.2 * math.sqrt(max(matrix.shape))


def orthogonalised(direction: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The bfloat16 matrix that torch's Muon makes of a whole direction: its singular values are about 1."""
    update = nn.Parameter(torch.zeros(direction.shape, device=direction.device))
    update.grad = direction.float()
    torch.optim.Muon([update], lr=1.0, weight_decay=0.0, momentum=0.0, nesterov=False, adjust_lr_fn=ADJUST_LR_FN).step()
    return (update.detach() / -scale_of(direction)).bfloat16()
