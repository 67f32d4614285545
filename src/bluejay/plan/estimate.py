"""What a training step needs of each device: bytes of memory and seconds, by kind, from counting.

Letters as in `bluejay.gpt.model`, and: M tokens of a micro-batch on one device · m micro-batches of a step ·
r, s, t, p devices along the mesh's axes replicate, shard, tensor, pipeline.

Counted is what the slowest device does. Its matrix products run at the hardware's rate, everything else passes through
its memory, and collective operations take the time of a ring (Thakur et al. 2005: (n - 1) / n of the data crosses each
link to gather or to reduce-scatter, twice that to sum). Sharded weights and gradients travel beside the computation
(FSDP, Zhao et al. 2023, section 3.3); what tensor parallelism and the pipeline send is waited for.
"""

import dataclasses
import math
from dataclasses import dataclass

from bluejay.gpt.config import GPTConfig
from bluejay.plan.hardware import Hardware
from bluejay.train.recipe import TrainRecipe

CHUNK = 256
"""Rows of logits at once (`bluejay.train.loss`)."""
UNFUSED = {4: 2.0, 2: 3.0}
"""How often each number passes through memory where norms, rotary angles, casts and sums run one by one, for once where
`torch.compile` fuses them; by the bytes of a number that is multiplied, for narrow ones are cast besides. Counted with
PyTorch's dispatch mode."""


@dataclass(frozen=True)
class Memory:
    """Bytes of the device that needs most."""

    weights: float
    gradients: float
    """Of one micro-batch only what exceeds the activations, whose place they take as the backward pass goes on."""
    optimizer: float
    activations: float
    reserved: float

    @property
    def total(self) -> float:
        """All of them."""
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True)
class Seconds:
    """Of a step, by what is waited for."""

    matmul: float
    """Matrix products, attention's among them."""
    memory: float
    """Norms, activations, residuals, casts, softmax: all that is bound by memory."""
    tensor: float
    """Sums and gathers between the devices that share a layer."""
    pipeline: float
    """Idle at the beginning and the end of a step, and states handed on."""
    data: float
    """Weights gathered and gradients summed, as far as they outlast the computation beside them."""
    optimizer: float

    @property
    def total(self) -> float:
        """All of them, one after the other."""
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True)
class Workload:
    """A recipe on hardware: the counts that memory and time follow from."""

    recipe: TrainRecipe
    config: GPTConfig
    hardware: Hardware
    mesh: dict[str, int]
    micro: int
    """M."""
    base: float = 0.0
    """Bytes of the model that adapters are for; 0 where the model itself learns."""

    @property
    def micro_batches(self) -> int:
        """m."""
        return self.recipe.train.batch_tokens // (self.mesh["replicate"] * self.mesh["shard"] * self.micro)

    @property
    def precision(self) -> str:
        """The type of the matrix products: the recipe's, or what the hardware multiplies fast."""
        faster = "bfloat16" if self.hardware.bfloat16 > self.hardware.float32 else "float32"
        return faster if self.recipe.train.precision == "auto" else self.recipe.train.precision

    @property
    def width(self) -> int:
        """Bytes of a number that is multiplied."""
        return 4 if self.precision == "float32" else 2

    @property
    def layers(self) -> int:
        """Of the longest stage."""
        return -(-self.config.n_layer // self.mesh["pipeline"])

    @property
    def table(self) -> int:
        """Weights of the embedding and the head where both are on one device, else of the larger."""
        outside = self.config.n_parameters - self.config.n_layer * self.config.n_block
        return outside if self.mesh["pipeline"] == 1 else self.config.vocab_size * self.config.d_model

    @property
    def weights(self) -> float:
        """Of a device before sharding."""
        return (self.layers * self.config.n_block + self.table) / self.mesh["tensor"]

    @property
    def learned(self) -> float:
        """Weights of a device before sharding that have gradients and moments."""
        lora, config = self.recipe.lora, self.config
        if lora is None:
            return self.weights
        d, heads, keys = config.d_model, config.n_head * config.d_head, config.kv_heads * config.d_head
        f = config.d_hidden
        shapes = {"q": d + heads, "k": d + keys, "v": d + keys, "out": heads + d, "up": d + f, "down": f + d}
        shapes |= {"gate": d + f} if config.gated else {}
        return float(self.layers * lora.rank * sum(shapes[name] for name in lora.targets or shapes))

    def memory(self) -> Memory:
        """What the first stage holds, which has the most micro-batches under way."""
        share, activations = self.learned / self.mesh["shard"], self.activations()
        once = self.micro_batches == self.mesh["pipeline"] == 1
        held = self.base * self.layers / self.config.n_layer if self.base else self.gathered()
        return Memory(
            weights=4 * share + held,
            gradients=max(0.0, 4 * share - activations) if once else 4 * share,
            optimizer=self.moments / self.mesh["shard"],
            activations=activations,
            reserved=1e9 * self.hardware.reserved,
        )

    @property
    def moments(self) -> float:
        """Bytes of a device's moments before sharding: two of each weight; Muon has one of the matrices of blocks."""
        muon = self.recipe.train.optimizer.kind == "muon" and not self.base
        return 8 * self.learned - (4 * self.layers * self.config.n_block / self.mesh["tensor"] if muon else 0.0)

    def gathered(self) -> float:
        """What exists beside the masters: of one process all weights in the type that multiplies; of a sharded one two
        blocks so, the gradient of one before it is scattered, and embedding and head with theirs."""
        w, t = self.width, self.mesh["tensor"]
        if self.mesh["shard"] == 1:
            return w * self.weights if w < 4 else 0.0
        return ((3 * w + 4) * self.config.n_block + 8 * self.table) / t

    def activations(self) -> float:
        """What the forward pass keeps for the backward pass, and what the head holds beside it."""
        config, t = self.config, self.mesh["tensor"]
        under_way = min(self.mesh["pipeline"], self.micro_batches)
        kind = self.recipe.train.recompute
        working = (1 if kind == "none" else 2) * self.kept("none")  # a block's gradients, and what was computed again
        blocks = under_way * self.layers * self.kept(kind) + working
        logits = 3 * 4 * min(CHUNK, self.micro) * config.vocab_size / t
        gradient = 0.0 if self.base else 4 * config.vocab_size * config.d_model / t
        head = 4 * self.micro * config.d_model + gradient
        return blocks * self.micro + logits + head

    def kept(self, kind: str) -> float:
        """Bytes that a block keeps for each token under a kind of recomputation.

        None: what each norm read, in float32; the norm's result, in bfloat16 once for each matrix that reads it;
        queries, keys, values; the result of attention twice, before and after its heads are put side by side; the
        hidden units before and after the activation, and where it is gated before and after that. Our own kernels keep
        nothing twice. Selective: the results of the matrix products. Full: the input.
        """
        config, w, t = self.config, self.width, self.mesh["tensor"]
        heads, keys, up = config.n_head * config.d_head, config.kv_heads * config.d_head, 2 if config.gated else 1
        once = w == 4 or self.own_kernels
        if kind == "full":
            return 4 * config.d_model / t
        if kind == "selective":
            return (4 + 2 * w) * config.d_model / t + w * (2 * heads + 2 * keys + up * config.d_hidden) / t
        normed = w * config.d_model * (config.n_norm if once else 3 + up)
        split = w * ((2 if self.own_kernels else 3) * heads + 2 * keys + 2 * up * config.d_hidden) / t
        return 4 * config.d_model * config.n_norm / t + normed + split

    @property
    def own_kernels(self) -> bool:
        """Whether the kernels of `bluejay.gpt.kernels` do the work, which they do in bfloat16."""
        return self.hardware.fused_kernels and self.width == 2

    def seconds(self) -> Seconds:
        """The time of a step."""
        m, p = self.micro_batches, self.mesh["pipeline"]
        matmul, memory, tensor = self.matmul(), self.traffic(), self.tensor()
        once = matmul + memory + tensor
        state = self.width * self.micro * self.config.d_model / self.mesh["tensor"]
        handed_on = 2 * self.hardware.seconds_to_send(state, 2, self.spacing("pipeline"))  # forward and back
        waits = (p - 1) * (once + handed_on) + m * handed_on if p > 1 else 0.0
        return Seconds(
            matmul=m * matmul,
            memory=m * memory,
            tensor=m * tensor,
            pipeline=waits,
            data=self.data(once),
            optimizer=self.hardware.seconds_to_pass(32 * self.learned / self.mesh["shard"]),
        )

    def matmul(self) -> float:
        """Of a micro-batch on the slowest stage, which also has the head: as long as the arithmetic takes, or as the
        weights take to be read."""
        blocks, head = self.flops_of_block(), 2 * self.products * self.config.vocab_size * self.config.d_model
        rate = self.hardware.rate(self.precision) * self.hardware.matmul_share
        arithmetic = (self.layers * blocks + head) * self.micro / self.mesh["tensor"] / rate
        return max(arithmetic, self.hardware.seconds_to_pass(self.products * self.width * self.weights))

    @property
    def products(self) -> int:
        """With each matrix: forward, and backward by what it read and, where it learns, by the matrix."""
        return 2 if self.base else 3

    def flops_of_block(self) -> float:
        """For a token: forward, backward, and forward again where it is recomputed.

        Fused attention leaves out the half of the scores that are masked, and makes them again in the backward pass
        (FlashAttention-2, section 3.1).
        """
        seen = self.recipe.data.sequence_length / (2 if self.hardware.fused_attention else 1)
        weights, scores = 2 * self.config.n_block, 4 * self.config.n_head * self.config.d_head * seen
        again = {"none": 0.0, "selective": scores, "full": weights + scores}[self.recipe.train.recompute]
        return self.products * weights + (3.5 if self.hardware.fused_attention else 3) * scores + again

    def traffic(self) -> float:
        """Of a micro-batch on the slowest stage: bytes read and written outside of matrix products."""
        config, w, t = self.config, self.width, self.mesh["tensor"]
        heads, keys = config.n_head * config.d_head, config.kv_heads * config.d_head
        fusible = (
            (4 + w) * config.n_norm * config.d_model  # norms: read the float32 stream, write what matrices read
            + (8 + 2 * w) * config.d_model  # residual: read the stream and two results, write the stream
            + 2 * w * (heads + keys)  # rotary: read, write
        )
        attention = 2 * w * (heads + keys)  # read queries, keys, values, write the result
        if not self.hardware.fused_attention:
            attention += 4 * w * config.n_head * self.recipe.data.sequence_length  # scores: written, softmax, read
        activation = w * (3 if config.gated else 2) * config.d_hidden  # read, write
        forward = (
            (1.0 if self.recipe.train.compile or self.own_kernels else UNFUSED[w]) * fusible + attention + activation
        )
        passes = 4 if self.recipe.train.recompute == "full" else 3  # backward reads and writes twice as much
        block = passes * forward * self.micro / t
        head = 4 * 6 * config.vocab_size * self.micro / t  # the logits in float32: made, softmax, gradient
        casts = 0.0 if self.base else 6 * self.weights
        return self.hardware.seconds_to_pass(self.layers * block + head + casts)

    def tensor(self) -> float:
        """Of a micro-batch: each norm gathers its tokens, attention and MLP scatter theirs, and backward the reverse
        (Korthikanti et al. 2022, section 4.2.2)."""
        passes = 3 if self.recipe.train.recompute == "full" else 2
        size = float(self.width * self.micro * self.config.d_model)
        return self.layers * passes * (self.config.n_norm + 2) * self.send(size, 1, "tensor")

    def data(self, once: float) -> float:
        """Beside a micro-batch the weights are gathered twice and the gradients scattered; beside the last backward
        pass the replicas' gradients are summed."""
        m, s = self.micro_batches, self.mesh["shard"]
        pieces = self.layers + 1
        gathered = 0.0 if self.base else self.send(self.width * self.weights, 1, "shard", pieces)
        scattered = self.send(4 * self.learned, 1, "shard", pieces)
        summed = self.send(4 * self.learned / s, 2, "replicate", pieces)
        return m * max(0.0, 2 * gathered + scattered - once) + max(0.0, summed - once * 2 / 3)

    def send(self, size: float, times: int, axis: str, pieces: int = 1) -> float:
        """How long collective operations along an axis take that go `times` round its ring, `size` bytes in pieces."""
        n = self.mesh[axis]
        each = self.hardware.seconds_to_send(size / pieces * (n - 1) / n, n, self.spacing(axis))
        return times * pieces * each

    def spacing(self, axis: str) -> int:
        """How many devices apart neighbours along an axis stand."""
        order = ("tensor", "shard", "replicate", "pipeline")
        return math.prod(self.mesh[inner] for inner in order[: order.index(axis)])
