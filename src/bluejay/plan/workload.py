"""What a training run asks of one device: the recipe's model on a mesh, counted in weights, tokens and data types.

Letters as in `bluejay.gpt.model`, and: M tokens of a micro-batch on one device · m micro-batches of a step ·
r, s, t, p devices along the mesh axes replicate, shard, tensor, pipeline · w bytes of a number in a matrix product.
"""

import math
from dataclasses import dataclass

from bluejay.gpt.config import GPTConfig
from bluejay.plan.hardware import Hardware
from bluejay.train.recipe import TrainRecipe

RECOMPUTE = ("none", "selective", "full")
"""Kinds of recomputation, from the one that stores most to the one that stores least."""


@dataclass(frozen=True)
class Workload:
    """A recipe on a mesh of devices, from which memory and time are computed."""

    recipe: TrainRecipe
    config: GPTConfig
    hardware: Hardware
    mesh: dict[str, int]
    micro: int
    """M, tokens of a micro-batch on one device."""
    packed_bytes: int = 0
    """Bytes of a quantised model that the run starts from; 0 if there is none."""

    @property
    def micro_batches(self) -> int:
        """m, micro-batches of a step on each device."""
        return self.recipe.train.batch_tokens // (self.mesh["replicate"] * self.mesh["shard"] * self.micro)

    @property
    def precision(self) -> str:
        """Data type of matrix products, "bfloat16", "float32" or "tf32"."""
        return self.recipe.train.matmul_precision(self.hardware.bfloat16 > self.hardware.float32)

    @property
    def width(self) -> int:
        """w, bytes of a number in a matrix product."""
        return 2 if self.precision == "bfloat16" else 4

    @property
    def layers(self) -> int:
        """Layers of the longest pipeline stage."""
        return -(-self.config.n_layer // self.mesh["pipeline"])

    @property
    def embedding_weights(self) -> int:
        """Weights of embedding and head; with a pipeline, which separates them, of the larger one."""
        outside = self.config.n_parameters - self.config.n_layer * self.config.n_block
        return outside if self.mesh["pipeline"] == 1 else self.config.vocab_size * self.config.d_model

    @property
    def weights(self) -> float:
        """Weights of a device before sharding."""
        return (self.layers * self.config.n_block + self.embedding_weights) / self.mesh["tensor"]

    @property
    def trainable(self) -> float:
        """Trainable weights of a device before sharding."""
        lora, shapes = self.recipe.lora, self.matrices
        if lora is None:
            return self.weights
        return float(self.layers * lora.rank * sum(sum(shapes[name]) for name in lora.targets or shapes))

    @property
    def frozen_bytes(self) -> int:
        """Bytes of the frozen base model of adapters; 0 if all weights are trained."""
        return 0 if self.recipe.lora is None else self.packed_bytes or self.width * self.config.n_parameters

    @property
    def products(self) -> int:
        """Products with each matrix: forward, for the gradient of its input and, if trainable, for its own gradient."""
        return 2 if self.frozen_bytes else 3

    @property
    def moments(self) -> float:
        """Bytes of a device's moments before sharding: two for each weight, one where Muon updates it."""
        in_blocks = self.trainable if self.frozen_bytes else self.layers * self.config.n_block / self.mesh["tensor"]
        return 8 * self.trainable - (4 * in_blocks if self.recipe.train.optimizer.kind == "muon" else 0.0)

    @property
    def own_kernels(self) -> bool:
        """Whether the native kernels of `bluejay.gpt.kernels` are used, which support bfloat16 only."""
        return self.hardware.fused_kernels and self.width == 2

    @property
    def compiled_head(self) -> bool:
        """Whether torch compiles the loss head, which it does on GPUs for a vocabulary that is not divided."""
        return self.recipe.train.compile and not self.hardware.fused_kernels and self.mesh["tensor"] == 1

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Columns and rows of each matrix of a block."""
        config = self.config
        d, f = config.d_model, config.d_hidden
        heads, keys = config.n_head * config.d_head, config.kv_heads * config.d_head
        found = {"q": (d, heads), "k": (d, keys), "v": (d, keys), "out": (heads, d), "up": (d, f), "down": (f, d)}
        return found | ({"gate": (d, f)} if config.gated else {})

    def send(self, size: float, times: int, axis: str) -> float:
        """Seconds of a collective operation on `size` bytes, `times` round the ring of an axis."""
        n = self.mesh[axis]
        return times * self.hardware.seconds_to_send(size * (n - 1) / n, n, self.spacing(axis))

    def spacing(self, axis: str) -> int:
        """Distance between neighbours along an axis, in devices."""
        order = ("tensor", "shard", "replicate", "pipeline")
        return math.prod(self.mesh[inner] for inner in order[: order.index(axis)])
