"""The weights of a model that is divided among processes: each fills its own part; an export gathers one at a time."""

import mmap
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from bluejay.gpt.formats.tensors import is_finite
from bluejay.progress import progress
from bluejay.train.distributed.parallel import AXES, World
from bluejay.train.optimizer import local

T = TypeVar("T")
NO_MORE = -1
"""What the main process asks for when it needs no more weights."""


@torch.no_grad()
def load_weights(
    model: nn.Module, weight: Callable[[str, torch.Size, tuple[slice, ...], torch.device], Tensor]
) -> None:
    """Fill a parallelized model, in each process only the part that it holds, with what `weight` returns for a name,
    the whole shape, the region that is wanted and the device that it is for."""
    held = [(name, whole, local(whole)) for name, whole in model.named_parameters()]
    with progress("load", sum(part.numel() for _, _, part in held), "weights") as bar:
        for name, whole, part in held:
            if part.numel():
                part.copy_(weight(name, whole.shape, region_of(whole), part.device))
                bar.advance(part.numel())


def region_of(parameter: Tensor) -> tuple[slice, ...]:
    """Where the part of a parameter that this process holds is in the whole."""
    shape, first = parameter.shape, (0,) * parameter.ndim
    if isinstance(parameter, DTensor):
        shape, first = compute_local_shape_and_global_offset(shape, parameter.device_mesh, parameter.placements)
    return tuple(slice(start, start + size) for start, size in zip(first, shape, strict=True))


@torch.no_grad()
def not_finite(stage: nn.Module, frozen: bool) -> str | None:
    """The name of the first trained weight, or with `frozen` of any weight, of which this process holds a value that is
    not finite."""
    for name, value in (*stage.named_parameters(), *(stage.named_buffers() if frozen else ())):
        part = local(value)
        if part.is_floating_point() and not is_finite(part):
            return name.removeprefix("model.")
    return None


def gather_weights(world: World, model: nn.Module, use: Callable[[Mapping[str, Tensor]], T]) -> T | None:
    """Call `use` in the main process with all weights of a parallelized model by name. Those of a single process are on
    its device; of several processes each weight is gathered into main memory when it is read. Every process must call
    this; all but the main one send their parts until `use` has returned, and get None."""
    if world.size == 1:
        return use({name: value.detach() for name, value in model.named_parameters()})
    gathered = GatheredWeights(world, model)
    if not world.is_main:
        gathered.send_parts()
        return None
    try:
        return use(gathered)
    finally:
        gathered.ask(NO_MORE)


class GatheredWeights(Mapping[str, Tensor]):
    """The weights of a parallelized model, of all pipeline stages. When one is read in the main process, the others
    send their parts of it by `send_parts`; no process but the main one holds more than its own."""

    def __init__(self, world: World, model: nn.Module) -> None:
        self.own = {name: value for name, value in model.named_parameters() if sends(world, value)}
        here = {name: (value.shape, value.dtype, region_of(value)) for name, value in self.own.items()}
        described: list[dict] | None = [{}] * world.size if world.is_main else None
        dist.gather_object(here, described, dst=0)
        self.held: dict[str, tuple[torch.Size, torch.dtype]] = {}
        self.parts: dict[str, list[tuple[int, tuple[slice, ...]]]] = {}
        for rank, weights in enumerate(described or ()):
            for name, (shape, dtype, region) in weights.items():
                self.held[name] = shape, dtype
                self.parts.setdefault(name, []).append((rank, region))
        names = [list(self.held)]
        dist.broadcast_object_list(names, src=0)
        self.names = names[0]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.held

    @torch.no_grad()
    def __getitem__(self, name: str) -> Tensor:
        shape, dtype = self.held[name]
        self.ask(self.names.index(name))
        # A map goes back to the system with the tensor; the C library would keep what was allocated for a while.
        whole = torch.frombuffer(mmap.mmap(-1, shape.numel() * dtype.itemsize), dtype=dtype).view(shape)
        for rank, region in self.parts[name]:
            part = whole[region]
            if rank == 0:
                part.copy_(local(self.own[name]))
                continue
            received = part if part.is_contiguous() else torch.empty(part.shape, dtype=dtype)
            dist.recv(received, src=rank)
            if received is not part:
                part.copy_(received)
        return whole

    def ask(self, number: int) -> int:
        """Tell all processes which weight is gathered next. They pass any number, and get that of the main one."""
        asked = torch.tensor(number)
        dist.broadcast(asked, src=0)
        return int(asked)

    @torch.no_grad()
    def send_parts(self) -> None:
        """Send this process's parts of what the main process asks for, until it needs no more."""
        while (number := self.ask(NO_MORE)) != NO_MORE:
            if (value := self.own.get(self.names[number])) is not None:
                dist.send(local(value).cpu().contiguous(), dst=0)


def sends(world: World, value: Tensor) -> bool:
    """Whether this process is the first of those that hold the same part of a weight, and the part is not empty."""
    divided: set[str] = {"pipeline"}
    if isinstance(value, DTensor):
        names = value.device_mesh.mesh_dim_names or ()
        divided |= {
            name for name, placement in zip(names, value.placements, strict=True) if not placement.is_replicate()
        }
    return local(value).numel() > 0 and all(world.axis(axis)[0] == 0 for axis in AXES if axis not in divided)
