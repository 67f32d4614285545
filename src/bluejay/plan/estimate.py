"""An analytical model of a training step: bytes of memory and seconds on the device that needs most of them.

Letters as in `bluejay.gpt.model`, and: M tokens of a micro-batch on one device · m micro-batches of a step ·
r, s, t, p devices along the mesh axes replicate, shard, tensor, pipeline · w bytes of a number in a matrix product.

Matrix products run at the hardware's rate, and all other operations at the bandwidth of its memory. Collective
operations take the time of a ring (Thakur et al. 2005: (n - 1) / n of the data crosses each link to gather or to
reduce-scatter, twice that to all-reduce). Sharded weights and gradients are sent during the computation (FSDP, Zhao et
al. 2023, section 3.3); the computation waits for what tensor parallelism and the pipeline send.
"""

import dataclasses
import math
from dataclasses import dataclass

from bluejay.gpt.config import GPTConfig
from bluejay.plan.hardware import Hardware
from bluejay.train.loss import COMPILED_LOGITS, LOGIT_ROWS
from bluejay.train.recipe import TrainRecipe

UNFUSED_PASSES = {4: 2.0, 2: 3.0}
"""w -> memory traffic of norms, rotary embedding, casts and residual sums as separate operations, relative to fused
ones. Narrow types need additional casts. Counted with PyTorch's dispatch mode."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device that needs most, by use."""

    weights: float
    """Master weights in float32, and the copies in the data type of matrix products."""
    gradients: float
    """Gradients in float32. With a single micro-batch, they reuse the memory of activations that the backward pass has
    freed, and only the excess counts."""
    optimizer: float
    """Moments of the optimizer."""
    activations: float
    """What the forward pass stores for the backward pass, and the logits."""
    reserved: float
    """Memory that libraries and the allocator take."""

    @property
    def total(self) -> float:
        """Bytes of all uses."""
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True)
class Seconds:
    """Seconds per training step, by cause."""

    matmul: float
    """Matrix products, including those of attention."""
    memory: float
    """Memory-bound operations: norms, activations, residuals, casts, softmax."""
    tensor: float
    """Collective operations of tensor parallelism."""
    pipeline: float
    """Idle time at the start and end of a step (the pipeline bubble), and hidden states sent between stages."""
    data: float
    """Gathering weights and reducing gradients, as far as it takes longer than the concurrent computation."""
    optimizer: float
    """The update of the weights."""

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True)
class Workload:
    """A recipe on a mesh of devices, from which memory and time are computed."""

    recipe: TrainRecipe
    config: GPTConfig
    hardware: Hardware
    mesh: dict[str, int]
    micro: int
    """M, tokens of a micro-batch on one device."""
    frozen_bytes: float = 0.0
    """Bytes of the frozen base model of adapters; 0 if all weights are trained."""

    @property
    def micro_batches(self) -> int:
        """m, micro-batches of a step on each device."""
        return self.recipe.train.batch_tokens // (self.mesh["replicate"] * self.mesh["shard"] * self.micro)

    @property
    def precision(self) -> str:
        """Data type of matrix products, "bfloat16" or "float32"."""
        return self.recipe.train.matmul_precision(self.hardware.bfloat16 > self.hardware.float32)

    @property
    def width(self) -> int:
        """w, bytes of a number in a matrix product."""
        return 4 if self.precision == "float32" else 2

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
        lora, config = self.recipe.lora, self.config
        if lora is None:
            return self.weights
        d, heads, keys = config.d_model, config.n_head * config.d_head, config.kv_heads * config.d_head
        f = config.d_hidden
        shapes = {"q": d + heads, "k": d + keys, "v": d + keys, "out": heads + d, "up": d + f, "down": f + d}
        shapes |= {"gate": d + f} if config.gated else {}
        return float(self.layers * lora.rank * sum(shapes[name] for name in lora.targets or shapes))

    def memory(self) -> Memory:
        """Memory of the first stage, which has the most micro-batches in flight."""
        share, activations = self.trainable / self.mesh["shard"], self.activations()
        single = self.micro_batches == self.mesh["pipeline"] == 1
        frozen = self.frozen_bytes * self.layers / self.config.n_layer
        return Memory(
            weights=4 * share + (frozen or self.gathered()),
            gradients=max(0.0, 4 * share - activations) if single else 4 * share,
            optimizer=self.moments / self.mesh["shard"],
            activations=activations,
            reserved=1e9 * self.hardware.reserved,
        )

    @property
    def moments(self) -> float:
        """Bytes of a device's moments before sharding: two for each weight, one where Muon updates it."""
        muon = self.recipe.train.optimizer.kind == "muon" and not self.frozen_bytes
        return 8 * self.trainable - (4 * self.layers * self.config.n_block / self.mesh["tensor"] if muon else 0.0)

    def gathered(self) -> float:
        """Bytes of weights in addition to the masters: without sharding, all in the data type of matrix products; with
        sharding, two blocks in that type, the unreduced gradient of one, and embedding and head with gradients."""
        w, t = self.width, self.mesh["tensor"]
        if self.mesh["shard"] == 1:
            return w * self.weights if w < 4 else 0.0
        return ((3 * w + 4) * self.config.n_block + 8 * self.embedding_weights) / t

    def activations(self) -> float:
        """Bytes that the forward pass stores for the backward pass, and bytes of the head."""
        config, t = self.config, self.mesh["tensor"]
        in_flight = min(self.mesh["pipeline"], self.micro_batches)
        kind = self.recipe.train.recompute
        working = (1 if kind == "none" else 2) * self.kept("none")  # gradients and recomputed activations
        blocks = in_flight * self.layers * self.kept(kind) + working
        logits = 3 * 4 * min(LOGIT_ROWS, self.micro) * config.vocab_size / t  # at most three copies in float32
        if self.compiled_head:
            logits = 2 * self.width * min(COMPILED_LOGITS, self.micro * config.vocab_size)  # they and their gradient
        gradient = 0.0 if self.frozen_bytes else 4 * config.vocab_size * config.d_model / t
        head = 4 * self.micro * config.d_model + gradient
        return blocks * self.micro + logits + head

    def kept(self, kind: str) -> float:
        """Bytes that a block stores for each token with a kind of recomputation.

        "none": the input of each norm in float32; the norm's output, in bfloat16 once for each matrix that reads it;
        queries, keys, values; the output of attention twice, before and after its heads are concatenated; the hidden
        units before and after the activation, and with a gate before and after its product. Bluejay's native kernels
        store nothing twice. "selective": the outputs of the matrix products. "full": the input.
        """
        config, w, t = self.config, self.width, self.mesh["tensor"]
        heads, keys, up = config.n_head * config.d_head, config.kv_heads * config.d_head, 2 if config.gated else 1
        single = w == 4 or self.own_kernels
        if kind == "full":
            return 4 * config.d_model / t
        if kind == "selective":
            return (4 + 2 * w) * config.d_model / t + w * (2 * heads + 2 * keys + up * config.d_hidden) / t
        normed = w * config.d_model * (config.n_norm if single else 3 + up)
        split = w * ((2 if self.own_kernels else 3) * heads + 2 * keys + 2 * up * config.d_hidden) / t
        return 4 * config.d_model * config.n_norm / t + normed + split

    @property
    def own_kernels(self) -> bool:
        """Whether the native kernels of `bluejay.gpt.kernels` are used, which support bfloat16 only."""
        return self.hardware.fused_kernels and self.width == 2

    @property
    def compiled_head(self) -> bool:
        """Whether torch compiles the loss head, which it does on GPUs for a vocabulary that is not divided."""
        return self.recipe.train.compile and not self.hardware.fused_kernels and self.mesh["tensor"] == 1

    def seconds(self) -> Seconds:
        """Seconds of a step."""
        m, p = self.micro_batches, self.mesh["pipeline"]
        matmul, memory, tensor = self.matmul(), self.traffic(), self.tensor()
        compute_seconds = matmul + memory + tensor
        state = self.width * self.micro * self.config.d_model / self.mesh["tensor"]
        sending = 2 * self.hardware.seconds_to_send(state, 2, self.spacing("pipeline"))  # forward and backward
        waiting = (p - 1) * (compute_seconds + sending) + m * sending if p > 1 else 0.0
        return Seconds(
            matmul=m * matmul,
            memory=m * memory,
            tensor=m * tensor,
            pipeline=waiting,
            data=self.data(compute_seconds),
            optimizer=self.hardware.seconds_to_pass(32 * self.trainable / self.mesh["shard"]),
        )

    def matmul(self) -> float:
        """Seconds of a micro-batch's matrix products on the slowest stage, which also has the head: the time of the
        arithmetic or of reading the weights, whichever is longer."""
        blocks, head = self.flops_of_block(), 2 * self.products * self.config.vocab_size * self.config.d_model
        rate = self.hardware.rate(self.precision) * self.hardware.matmul_share
        arithmetic = (self.layers * blocks + head) * self.micro / self.mesh["tensor"] / rate
        return max(arithmetic, self.hardware.seconds_to_pass(self.products * self.width * self.weights))

    @property
    def products(self) -> int:
        """Products with each matrix: forward, for the gradient of its input and, if trainable, for its own gradient."""
        return 2 if self.frozen_bytes else 3

    def flops_of_block(self) -> float:
        """FLOPs of a block for each token: forward, backward and recomputation.

        Fused attention skips the masked half of the scores, and recomputes the scores in the backward pass
        (FlashAttention-2, section 3.1).
        """
        seen = self.recipe.data.sequence_length / (2 if self.hardware.fused_attention else 1)
        weights, scores = 2 * self.config.n_block, 4 * self.config.n_head * self.config.d_head * seen
        again = {"none": 0.0, "selective": scores, "full": weights + scores}[self.recipe.train.recompute]
        return self.products * weights + (3.5 if self.hardware.fused_attention else 3) * scores + again

    def traffic(self) -> float:
        """Seconds of a micro-batch's memory-bound operations on the slowest stage."""
        config, w, t = self.config, self.width, self.mesh["tensor"]
        heads, keys = config.n_head * config.d_head, config.kv_heads * config.d_head
        fusible = (
            (4 + w) * config.n_norm * config.d_model  # norms: read the float32 stream, write
            + (8 + 2 * w) * config.d_model  # residual: read the stream and two outputs, write the stream
            + 2 * w * (heads + keys)  # rotary: read, write
        )
        attention = 2 * w * (heads + keys)  # read queries, keys, values, write the result
        if not self.hardware.fused_attention:
            attention += 4 * w * config.n_head * self.recipe.data.sequence_length  # scores: written, softmax, read
        activation = w * (3 if config.gated else 2) * config.d_hidden  # read, write
        forward = (
            (1.0 if self.recipe.train.compile or self.own_kernels else UNFUSED_PASSES[w]) * fusible
            + attention
            + activation
        )
        passes = 4 if self.recipe.train.recompute == "full" else 3  # backward reads and writes twice as much
        block = passes * forward * self.micro / t
        # The logits pass six times: product, softmax, gradient. Compiled, they keep the type of the products.
        head = (w if self.compiled_head else 4) * 6 * config.vocab_size * self.micro / t
        casts = 0.0 if self.frozen_bytes else 6 * self.weights
        return self.hardware.seconds_to_pass(self.layers * block + head + casts)

    def tensor(self) -> float:
        """Seconds of a micro-batch's tensor-parallel communication: each norm gathers its tokens, attention and MLP
        scatter theirs, and the backward pass the reverse (Korthikanti et al. 2022, section 4.2.2)."""
        passes = 3 if self.recipe.train.recompute == "full" else 2
        size = float(self.width * self.micro * self.config.d_model)
        return self.layers * passes * (self.config.n_norm + 2) * self.send(size, 1, "tensor")

    def data(self, compute_seconds: float) -> float:
        """Seconds of a step's data-parallel communication beyond the concurrent computation. In each micro-batch,
        weights are gathered twice and gradients scattered; in the last backward pass, replicas all-reduce theirs."""
        m, s = self.micro_batches, self.mesh["shard"]
        pieces = self.layers + 1
        gathered = 0.0 if self.frozen_bytes else self.send(self.width * self.weights, 1, "shard", pieces)
        scattered = self.send(4 * self.trainable, 1, "shard", pieces)
        reduced = self.send(4 * self.trainable / s, 2, "replicate", pieces)
        backward = compute_seconds * 2 / 3
        return m * max(0.0, 2 * gathered + scattered - compute_seconds) + max(0.0, reduced - backward)

    def send(self, size: float, times: int, axis: str, pieces: int = 1) -> float:
        """Seconds of collective operations on `size` bytes in `pieces`, each `times` round the ring of an axis."""
        n = self.mesh[axis]
        each = self.hardware.seconds_to_send(size / pieces * (n - 1) / n, n, self.spacing(axis))
        return times * pieces * each

    def spacing(self, axis: str) -> int:
        """Distance between neighbours along an axis, in devices."""
        order = ("tensor", "shard", "replicate", "pipeline")
        return math.prod(self.mesh[inner] for inner in order[: order.index(axis)])
