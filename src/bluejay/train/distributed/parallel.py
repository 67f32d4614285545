"""How a model is spread over processes: data, tensor and pipeline parallelism on PyTorch's own engine.

The processes form a mesh of four axes, the last one's nearest to each other:

| axis      | what its processes share out                              | engine                                      |
| --------- | --------------------------------------------------------- | ------------------------------------------- |
| pipeline  | the blocks; micro-batches flow through them (1F1B)        | `torch.distributed.pipelining`              |
| replicate | the rows of the batch; each holds all weights             | FSDP2 on two axes (HSDP)                    |
| shard     | the rows; each holds a part of every weight and moment    | FSDP2 (ZeRO, Rajbhandari et al. 2020)       |
| tensor    | heads, hidden units, vocabulary; between blocks, tokens   | DTensor (Megatron; Korthikanti et al. 2022) |

The model's code knows none of this. One process is a mesh of ones: nothing is wrapped and there is no process group.
"""

import datetime
import math
import os
import warnings
from collections import defaultdict
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleOutput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from bluejay.gpt.config import GPTConfig
from bluejay.train.distributed.stage import Stage
from bluejay.train.recipe import Mesh

if TYPE_CHECKING:
    from torch.distributed.pipelining import Schedule1F1B

AXES = ("pipeline", "replicate", "shard", "tensor")


class HeadParallel(ParallelStyle):
    """Shares out the rows of the head, one for each token of the vocabulary; the loss sums over them."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def split(_: str, head: nn.Module, mesh: DeviceMesh) -> None:
            for name, parameter in head.named_parameters(recurse=False):
                rows = distribute_tensor(parameter, mesh, [Shard(0)], src_data_rank=None)
                head.register_parameter(name, nn.Parameter(rows))

        return distribute_module(module, device_mesh, split)


class MaterializeOutput(ParallelStyle):
    """Waits for what a layer gives: compiled blocks lose the gradient of an input that is still under way."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        module.register_forward_hook(lambda _module, _inputs, output: output.clone())
        return module


LOOKUP = (RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)), MaterializeOutput())
COLUMNS = (ColwiseParallel(),)
ROWS = (RowwiseParallel(output_layouts=Shard(1)),)
NORM = (
    SequenceParallel(),
    PrepareModuleOutput(output_layouts=Shard(1), desired_output_layouts=Replicate(), use_local_output=False),
)
TENSOR: dict[str, tuple[ParallelStyle, ...]] = {
    "embed": LOOKUP,
    "position": LOOKUP,
    "norm": NORM,
    "mlp_norm": NORM,
    "q": COLUMNS,
    "k": COLUMNS,
    "v": COLUMNS,
    "out": ROWS,
    "gate": COLUMNS,
    "up": COLUMNS,
    "down": ROWS,
    "head": (HeadParallel(),),
}
"""What the axis `tensor` makes of each kind of layer, which the last part of its name tells.

Between blocks each process holds a part of the tokens. A norm works on that part and gathers the whole for the matrices
that follow; these are split by columns, then by rows, whose partial sums are added up and shared out by tokens again.
"""


@dataclass(frozen=True)
class World:
    """The processes of a run, and which of them this one is."""

    device: torch.device
    mesh: DeviceMesh | None = None
    """Its axes are `AXES`; None for one process."""

    def along(self, *axes: str) -> DeviceMesh:
        """The mesh of some axes, of more than one process."""
        assert self.mesh is not None
        return self.mesh[axes]

    @property
    def size(self) -> int:
        """How many processes there are."""
        return 1 if self.mesh is None else self.mesh.size()

    @property
    def rank(self) -> int:
        """The number of this one."""
        return 0 if self.mesh is None else self.mesh.get_rank()

    @property
    def main(self) -> bool:
        """Whether this is the process that speaks and writes for all."""
        return self.rank == 0

    def at(self, axis: str) -> tuple[int, int]:
        """The index of this process along an axis, and how many there are."""
        return (0, 1) if self.mesh is None else (self.mesh.get_local_rank(axis), self.mesh[axis].size())

    @property
    def data(self) -> tuple[int, int]:
        """Which share of a batch's rows this process trains on, and of how many."""
        (replica, _), (shard, shards) = self.at("replicate"), self.at("shard")
        return replica * shards + shard, self.at("replicate")[1] * shards

    def sum(self, value: Tensor, *axes: str) -> Tensor:
        """The sum of a tensor over all processes, or those along some axes, in place."""
        if self.mesh is not None and not axes:
            dist.all_reduce(value)
        for axis in axes:
            if self.mesh is not None and self.at(axis)[1] > 1:
                dist.all_reduce(value, group=self.mesh.get_group(axis))
        return value

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Which flags are set in any process."""
        if self.mesh is None:
            return flags
        raised = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in raised)


@contextmanager
def init_world(mesh: Mesh, timeout: datetime.timedelta) -> Generator[World]:
    """The processes that torchrun started, or this one alone.

    A collective that one of them does not reach within `timeout` fails in the others. Raises ValueError where the mesh
    needs another number of processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    sizes = mesh.sizes(size)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if size == 1:
        yield World(device)
        return
    # Checkpoints are written from memory and flags are exchanged on the CPU, hence gloo beside NCCL.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timeout)
    try:
        shape = tuple(sizes[axis] for axis in AXES)
        with warnings.catch_warnings():
            # It warns that a view changed in place would lose its gradient; blocks add out of place.
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
            yield World(device, init_device_mesh(device.type, shape, mesh_dim_names=AXES))
    finally:
        dist.destroy_process_group()


def check_mesh(world: World, config: GPTConfig, sequence_length: int) -> None:
    """Raises ValueError where a model cannot be shared out evenly over the processes there are."""
    check_mesh_sizes({axis: world.at(axis)[1] for axis in AXES}, config, sequence_length)


def check_mesh_sizes(sizes: dict[str, int], config: GPTConfig, sequence_length: int) -> None:
    """Raises ValueError where a model cannot be shared out evenly, naming the first number that does not divide."""
    stages, tensor = sizes["pipeline"], sizes["tensor"]
    if config.n_layer < stages:
        raise ValueError(f"mesh.pipeline {stages} is more than the {config.n_layer} blocks of the model")
    if config.tied and stages > 1:
        raise ValueError("mesh.pipeline above 1 needs model.tied = false: the ends of the pipeline share no weights")
    divided = {
        "model.n_head": config.n_head,
        "model.n_kv_head": config.kv_heads,
        "model.d_ff": config.d_hidden,
        "data.sequence_length": sequence_length,
    } | ({"model.n_ctx": config.n_ctx} if config.learned_positions else {})
    for name, value in divided.items():
        if value % tensor:
            larger = -(-value // tensor) * tensor
            raise ValueError(f"{name} {value} is not a multiple of mesh.tensor {tensor}; the next one is {larger}")
    rows, others = -(-config.vocab_size // tensor), tensor - 1  # the last process has the fewest rows
    if rows * others >= config.vocab_size:
        raise ValueError(
            f"model.vocab_size {config.vocab_size} leaves some of mesh.tensor {tensor} processes without a token; "
            f"{rows * others + 1} would be enough"
        )


def parallelize(world: World, stage: Stage, precision: str) -> None:
    """Share out a stage, in place; where its weights are on the meta device, `fill` or a checkpoint gives their values.

    `precision` is the type that the matrix products are made in, "bfloat16" or "float32"; the weights are gathered in
    that type, and gradients are summed in float32.
    """
    if world.at("tensor")[1] > 1:
        mesh = world.along("tensor")  # one object for all layers: torch.compile takes equal ones for different
        for name, module in list(stage.model.named_modules()):
            if next(module.parameters(), None) is not None:
                for style in TENSOR.get(name.rpartition(".")[2], ()):
                    parallelize_module(module, mesh, style, src_data_rank=None)
    if world.data[1] > 1:
        apply_fsdp(world, stage, precision)
    if next(stage.parameters()).is_meta:
        stage.to_empty(device=world.device)


def apply_fsdp(world: World, stage: Stage, precision: str) -> None:
    """FSDP2: the matrices of a block are gathered before it runs; norms, embedding and head once a pass."""
    mesh = world.along("replicate", "shard") if world.at("replicate")[1] > 1 else world.along("shard")
    dtype = torch.bfloat16 if precision == "bfloat16" else None
    matrices = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in stage.layers:
        block = stage.model.blocks[layer]
        parts = [block.get_submodule("attention"), block.get_submodule("mlp")]
        fully_shard(parts, mesh=mesh, mp_policy=matrices)
    fully_shard(stage, mesh=mesh, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False))
    for module in stage.modules():
        if isinstance(module, FSDPModule):
            # Losses are sums over the batch, and so are gradients. Gloo has no other reduction.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


@torch.no_grad()
def load_weights(model: nn.Module, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Give a placed model its weights, each whole and under its name in the whole model; others' are passed over."""
    parameters = dict(model.named_parameters())
    for name, value in weights:
        parameter = parameters.get(name)
        if isinstance(parameter, DTensor):
            value = value.to(parameter.device, parameter.dtype)
            value = distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
        if parameter is not None:
            parameter.copy_(value)


@torch.no_grad()
def gather_weights(world: World, model: nn.Module) -> dict[str, Tensor]:
    """All weights of a model that is spread over the processes, by name, in the memory of the main one; none in the
    others, which must call this, too."""
    own = dict(model.named_parameters())
    stages = [[(name, value.shape, value.dtype) for name, value in own.items()]]
    index, count = world.at("pipeline")
    if count > 1:
        group = world.along("pipeline").get_group()
        mine, stages = stages[0], [[] for _ in range(count)]
        dist.all_gather_object(stages, mine, group=group)
    weights = {}
    for stage, held in enumerate(stages):
        for name, shape, dtype in held:
            value = own[name] if stage == index else torch.empty(shape, dtype=dtype, device=world.device)
            value = value.full_tensor() if isinstance(value, DTensor) else value.detach()
            if count > 1:
                dist.broadcast(value, group=world.along("pipeline").get_group(), group_src=stage)
            if world.main:
                weights[name] = value.cpu()
    return weights


def schedule(world: World, stage: Stage, rows: int, length: int, count: int, learning: bool) -> "Schedule1F1B":
    """How `count` micro-batches of so many rows flow through a pipeline; with gradients, or only forward."""
    from torch.distributed.pipelining import PipelineStage, Schedule1F1B  # takes seconds, and few need it

    index, stages = world.at("pipeline")
    shape = (rows, length // world.at("tensor")[1], stage.model.config.d_model)
    hidden = torch.empty(shape, dtype=stage.stream, device="meta", requires_grad=learning)
    result = torch.empty(() if learning else (rows, length), device="meta")
    place = PipelineStage(
        stage,
        index,
        stages,
        world.device,
        input_args=() if stage.first else hidden,
        output_args=result if stage.last else hidden,
        group=world.along("pipeline").get_group(),
    )
    loss = (lambda output, _: output) if learning else None
    return Schedule1F1B(place, count, loss, scale_grads=False)


def global_gradient_norm(world: World, parameters: Iterable[nn.Parameter]) -> Tensor:
    """The length of the gradient over all weights of the run: the same number in every process.

    Gradients that a layer left as partial sums are added up first.
    """
    held: dict[int, list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        gradient = parameter.grad
        if isinstance(gradient, DTensor) and isinstance(parameter, DTensor):
            gradient = parameter.grad = gradient.redistribute(placements=parameter.placements)
            along = zip(gradient.device_mesh.shape, gradient.placements, strict=True)
            copies = math.prod(size for size, placement in along if placement.is_replicate())
            held[copies].append(gradient.to_local())
        elif gradient is not None:
            held[1].append(gradient)
    squares = torch.zeros((), device=world.device)
    for copies, gradients in held.items():
        squares += torch.nn.utils.get_total_norm(gradients).square() / copies
    return world.sum(squares).sqrt()
