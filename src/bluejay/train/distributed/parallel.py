"""Data, tensor and pipeline parallelism with PyTorch's own implementations.

The processes form a mesh of four axes; neighbours along the last axis are closest to each other:

| axis      | what is divided among its processes                       | implementation                              |
| --------- | --------------------------------------------------------- | ------------------------------------------- |
| pipeline  | the blocks; micro-batches flow through them (1F1B)        | `torch.distributed.pipelining`              |
| replicate | the rows of the batch; each holds all weights             | FSDP2 on two axes (HSDP)                    |
| shard     | the rows; each holds a part of every weight and moment    | FSDP2 (ZeRO, Rajbhandari et al. 2020)       |
| tensor    | heads, hidden units, vocabulary; between blocks, tokens   | DTensor (Megatron; Korthikanti et al. 2022) |

The model's code knows nothing of this. With a single process, nothing is wrapped and there is no process group.
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
from jaxtyping import Float64
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
from bluejay.machine import processor
from bluejay.train.distributed.device import own_device
from bluejay.train.distributed.stage import Stage
from bluejay.train.recipe import Mesh

if TYPE_CHECKING:
    from torch.distributed.pipelining import Schedule1F1B

AXES = ("pipeline", "replicate", "shard", "tensor")


class HeadParallel(ParallelStyle):
    """Divides the rows of the head, one for each token of the vocabulary; the loss sums over them."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def split(_: str, head: nn.Module, mesh: DeviceMesh) -> None:
            for name, parameter in head.named_parameters(recurse=False):
                rows = distribute_tensor(parameter, mesh, [Shard(0)], src_data_rank=None)
                head.register_parameter(name, nn.Parameter(rows))

        return distribute_module(module, device_mesh, split)


class MaterializeOutput(ParallelStyle):
    """Waits for the asynchronous output of a layer: compiled blocks lose the gradient of an input still in flight."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        module.register_forward_hook(lambda _module, _inputs, output: output.clone())
        return module


EMBEDDING = (RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)), MaterializeOutput())
COLUMN_WISE = (ColwiseParallel(),)
ROW_WISE = (RowwiseParallel(output_layouts=Shard(1)),)
NORM = (
    SequenceParallel(),
    PrepareModuleOutput(output_layouts=Shard(1), desired_output_layouts=Replicate(), use_local_output=False),
)
HEAD_NORM = (SequenceParallel(sequence_dim=2, use_local_output=True),)  # it normalises the heads of its process
TENSOR_STYLES: dict[str, tuple[ParallelStyle, ...]] = {
    "embed": EMBEDDING,
    "position": EMBEDDING,
    "norm": NORM,
    "mlp_norm": NORM,
    "q": COLUMN_WISE,
    "k": COLUMN_WISE,
    "v": COLUMN_WISE,
    "q_norm": HEAD_NORM,
    "k_norm": HEAD_NORM,
    "out": ROW_WISE,
    "gate": COLUMN_WISE,
    "up": COLUMN_WISE,
    "down": ROW_WISE,
    "head": (HeadParallel(),),
}
"""How tensor parallelism divides each kind of layer, by the last part of the layer's name.

Between blocks each process holds a part of the tokens. A norm processes that part and gathers all tokens for the
matrices that follow. These are split by columns, then by rows; the partial sums are reduced and scattered by tokens.
"""


@dataclass(frozen=True)
class World:
    """The processes of a run, and the position of this one among them."""

    device: torch.device
    mesh: DeviceMesh | None = None
    """Mesh with the axes `AXES`; None for a single process."""

    def submesh(self, *axes: str) -> DeviceMesh:
        """The mesh reduced to `axes`; requires more than one process."""
        assert self.mesh is not None
        return self.mesh[axes]

    @property
    def size(self) -> int:
        """Number of processes."""
        return 1 if self.mesh is None else self.mesh.size()

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return 0 if self.mesh is None else self.mesh.get_rank()

    @property
    def machine(self) -> str:
        """What the run computes on, in words."""
        if self.device.type == "cuda":
            return f"{self.size} x {torch.cuda.get_device_name(self.device)}"
        return processor() if self.size == 1 else f"{self.size} processes on {processor()}"

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which prints and writes files for all processes."""
        return self.rank == 0

    def axis(self, axis: str) -> tuple[int, int]:
        """This process's index along a mesh axis, and the size of that axis."""
        return (0, 1) if self.mesh is None else (self.mesh.get_local_rank(axis), self.mesh[axis].size())

    @property
    def data_shard(self) -> tuple[int, int]:
        """Which part of a batch's rows this process trains on, and the number of parts."""
        (replica, replicas), (shard, shards) = self.axis("replicate"), self.axis("shard")
        return replica * shards + shard, replicas * shards

    def sum(self, value: Tensor, *axes: str) -> Tensor:
        """All-reduce a tensor in place over the given axes, or over all processes if none are given."""
        if self.mesh is not None and not axes:
            dist.all_reduce(value)
        for axis in axes:
            if self.mesh is not None and self.axis(axis)[1] > 1:
                dist.all_reduce(value, group=self.mesh.get_group(axis))
        return value

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is set in any process."""
        if self.mesh is None:
            return flags
        raised = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in raised)


@contextmanager
def init_world(mesh: Mesh, timeout: datetime.timedelta) -> Generator[World]:
    """Join the processes that torchrun started; without torchrun, this process is the whole world.

    A collective operation that a process does not reach within `timeout` fails in the others. Raises ValueError if the
    mesh needs another number of processes, or this process has no GPU where others have one.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    sizes = mesh.sizes(size)
    device = own_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size == 1:
        yield World(device)
        return
    # Checkpoints and flags are exchanged in main memory, which needs gloo in addition to NCCL.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timeout)
    try:
        shape = tuple(sizes[axis] for axis in AXES)
        with warnings.catch_warnings():
            # The warning concerns views that are modified in place; blocks add out of place.
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
            yield World(device, init_device_mesh(device.type, shape, mesh_dim_names=AXES))
    finally:
        dist.destroy_process_group()


def check_mesh(world: World, config: GPTConfig, sequence_length: int) -> None:
    """Raises ValueError if a model cannot be divided evenly among the processes."""
    check_mesh_sizes({axis: world.axis(axis)[1] for axis in AXES}, config, sequence_length)


def check_mesh_sizes(sizes: dict[str, int], config: GPTConfig, sequence_length: int) -> None:
    """Raises ValueError, naming the first dimension that a mesh of these sizes does not divide evenly."""
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
    rows, others = -(-config.vocab_size // tensor), tensor - 1  # the last process holds the fewest rows
    if rows * others >= config.vocab_size:
        raise ValueError(
            f"model.vocab_size {config.vocab_size} leaves some of mesh.tensor {tensor} processes without a token; "
            f"{rows * others + 1} would be enough"
        )


def check_micro_batches(count: int, stages: int) -> None:
    """Raises ValueError if a step has too few micro-batches for the stages of a pipeline to work at the same time."""
    if count < stages:
        raise ValueError(
            f"mesh.pipeline {stages} needs at least {stages} micro-batches in a step of each process, and it has "
            f"{count}; lower train.micro_batch_tokens, or raise train.batch_tokens"
        )


def parallelize(world: World, stage: Stage, precision: str) -> None:
    """Apply tensor parallelism and FSDP to a stage, in place. Weights on the meta device are allocated and left
    uninitialised for `sharded_weights.load_weights` or a checkpoint.

    `precision` is the data type of matrix products. Weights are gathered in that type, and gradients are summed in
    float32.
    """
    if world.axis("tensor")[1] > 1:
        mesh = world.submesh("tensor")  # one object for all layers: torch.compile treats equal ones as different
        for name, module in list(stage.model.named_modules()):
            if next(module.parameters(), None) is not None:
                for style in TENSOR_STYLES.get(name.rpartition(".")[2], ()):
                    parallelize_module(module, mesh, style, src_data_rank=None)
    if world.data_shard[1] > 1:
        apply_fsdp(world, stage, precision)
    if next(stage.parameters()).is_meta:
        stage.to_empty(device=world.device)


def apply_fsdp(world: World, stage: Stage, precision: str) -> None:
    """FSDP2: gathers the weights of a block before it runs; the last norm, embedding and head once in each pass. A
    block is one unit, so that nothing of FSDP is inside what is compiled. The weights of its norms are rounded to
    `precision` as its matrices are; norms compute in float32."""
    mesh = world.submesh("replicate", "shard") if world.axis("replicate")[1] > 1 else world.submesh("shard")
    dtype = torch.bfloat16 if precision == "bfloat16" else None
    of_blocks = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in stage.layers:
        fully_shard(stage.model.blocks[layer], mesh=mesh, mp_policy=of_blocks)
    fully_shard(stage, mesh=mesh, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False))
    for module in stage.modules():
        if isinstance(module, FSDPModule):
            # Losses and gradients are sums over the batch. Gloo supports no other reduction.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def pipeline_schedule(world: World, stage: Stage, rows: int, length: int, count: int, learning: bool) -> "Schedule1F1B":
    """The 1F1B schedule of `count` micro-batches of `rows` sequences; without `learning`, only forward passes."""
    from torch.distributed.pipelining import PipelineStage, Schedule1F1B  # takes seconds to import, rarely needed

    index, stages = world.axis("pipeline")
    shape = (rows, length // world.axis("tensor")[1], stage.model.config.d_model)
    hidden = torch.empty(shape, dtype=stage.hidden_dtype, device="meta", requires_grad=learning)
    result = torch.empty(() if learning else (rows, length), device="meta")
    pipeline_stage = PipelineStage(
        stage,
        index,
        stages,
        world.device,
        input_args=() if stage.is_first else hidden,
        output_args=result if stage.is_last else hidden,
        group=world.submesh("pipeline").get_group(),
    )
    loss = (lambda output, _: output) if learning else None
    return Schedule1F1B(pipeline_stage, count, loss, scale_grads=False)


def squared_gradient_norm(world: World, parameters: Iterable[nn.Parameter]) -> Float64[Tensor, ""]:
    """This process's part of the squared L2 norm of the gradient: the parts of all processes add up to the whole.

    Gradients that a layer left as partial sums are reduced first.
    """
    by_copies: dict[int, list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        gradient = parameter.grad
        if isinstance(gradient, DTensor) and isinstance(parameter, DTensor):
            gradient = parameter.grad = gradient.redistribute(placements=parameter.placements)
            axes = zip(gradient.device_mesh.shape, gradient.placements, strict=True)
            copies = math.prod(size for size, placement in axes if placement.is_replicate())
            by_copies[copies].append(gradient.to_local())
        elif gradient is not None:
            by_copies[1].append(gradient)
    squares = torch.zeros((), device=world.device, dtype=torch.float64)
    for copies, gradients in by_copies.items():
        squares += torch.nn.utils.get_total_norm(gradients).double().square() / copies
    return squares
