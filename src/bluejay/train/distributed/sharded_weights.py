"""The weights of a model that is divided among processes: each fills its own part; an export gathers one at a time."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from bluejay.progress import progress
from bluejay.train.distributed.parallel import AXES, World

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


def local(value: Tensor) -> Tensor:
    """The part of a tensor that this process holds."""
    return value.to_local() if isinstance(value, DTensor) else value


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
        if part.is_floating_point() and not part.isfinite().all():
            return name.removeprefix("model.")
    return None


def gather_weights(world: World, model: nn.Module, use: Callable[[Mapping[str, Tensor]], T]) -> T | None:
    """Call `use` in the main process with all weights of a parallelized model by name, each of which is gathered into
    main memory when it is read. Every process must call this; all but the main one take part in the gathering until
    `use` has returned, and get None."""
    if world.size == 1:
        return use({name: value.detach() for name, value in model.named_parameters()})
    gathered = GatheredWeights(world, model)
    if not world.is_main:
        gathered.take_part()
        return None
    try:
        return use(gathered)
    finally:
        gathered.ask(NO_MORE)


class GatheredWeights(Mapping[str, Tensor]):
    """The weights of a parallelized model, of all pipeline stages. To read one in the main process is a collective
    operation, in which the other processes take part by `take_part`."""

    def __init__(self, world: World, model: nn.Module) -> None:
        self.world, self.own = world, dict(model.named_parameters())
        self.stage, count = world.axis("pipeline")
        self.group = world.submesh("pipeline").get_group()
        described: list = [None] * count
        here = [(name, value.shape, value.dtype) for name, value in self.own.items()]
        dist.all_gather_object(described, here, group=self.group)
        self.held = {name: (stage, *rest) for stage, all_of in enumerate(described) for name, *rest in all_of}
        self.names = list(self.held)
        self.meets_main = all(world.axis(axis)[0] == 0 for axis in AXES if axis != "pipeline")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.held

    def __getitem__(self, name: str) -> Tensor:
        stage, shape, dtype = self.held[name]
        self.ask(self.names.index(name))
        value = self.part_of(name)
        if value is None:
            value = torch.empty(shape, dtype=dtype, device=self.world.device)
            dist.recv(value, group=self.group, group_src=stage)
        return value.cpu()

    def ask(self, number: int) -> int:
        """Tell all processes which weight is gathered next. They pass any number, and get that of the main one."""
        asked = torch.tensor(number)
        dist.broadcast(asked, src=0)
        return int(asked)

    def take_part(self) -> None:
        """Gather what the main process asks for, until it needs no more."""
        while (number := self.ask(NO_MORE)) != NO_MORE:
            value = self.part_of(self.names[number])
            if value is not None and self.meets_main and self.stage > 0:
                dist.send(value, group=self.group, group_dst=0)

    @torch.no_grad()
    def part_of(self, name: str) -> Tensor | None:
        """The whole weight, if it belongs to this process's stage."""
        value = self.own.get(name)
        return value.full_tensor() if isinstance(value, DTensor) else None if value is None else value.detach()
