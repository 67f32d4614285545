"""The time of a training step: each term by its formula, on the device that has the most work.

Letters as in `bluejay.plan.workload`. What a device computes, it computes one operation after the other: matrix
products at the rate of its matrix units, attention at a rate of its own, all else at the bandwidth of its memory. What
devices send each other takes the time of a ring (Thakur et al. 2005: (n - 1) / n of the data crosses each link to
gather or to reduce-scatter, twice that to all-reduce). Sharded weights and gradients are sent during the computation
of one block (FSDP, Zhao et al. 2023, section 3.3), as far as there is one; the computation waits for what tensor
parallelism and the pipeline send.
"""

import dataclasses
import math
from dataclasses import dataclass

from bluejay.plan.workload import Workload

UNFUSED_PASSES = {4: 2.0, 2: 3.0}
"""w -> memory traffic of norms, rotary embedding, casts and residual sums as separate operations, relative to fused
ones. Narrow types need additional casts. Counted with PyTorch's dispatch mode."""
TILE = 128
"""Rows and columns of a product's result that one multiprocessor computes at a time (cuBLAS and CUTLASS)."""
UPDATE_BYTES = 40
"""Bytes for each trained weight and step: AdamW reads weight, gradient and two moments in float32 and writes all but
the gradient (28); the norm reads the gradient (4); clipping reads and writes it (8)."""


@dataclass(frozen=True)
class Seconds:
    """Seconds per training step, by cause."""

    matmul: float
    """Products with weight matrices."""
    attention: float
    """Products of queries and keys, and of scores and values."""
    memory: float
    """Memory-bound operations: norms, activations, residuals, casts, softmax, sums of gradients."""
    launch: float
    """Idle time in which the device waits for the program to start operations, and for each step's loss and norm."""
    tensor: float
    """Collective operations of tensor parallelism."""
    pipeline: float
    """Idle time at the start and end of a step (the pipeline bubble), and hidden states sent between stages."""
    data: float
    """Gathering weights and reducing gradients, as far as no computation runs meanwhile."""
    optimizer: float
    """The update of the weights."""

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        return sum(dataclasses.astuple(self))


def seconds(load: Workload) -> Seconds:
    """Seconds of a step."""
    m, p, hardware = load.micro_batches, load.mesh["pipeline"], load.hardware
    products, scores, moved, sent = matmul(load), attention(load), traffic(load), tensor(load)
    busy = products + scores + moved
    waiting = max(0.0, operations(load) * hardware.launch - busy)
    one = busy + waiting + sent
    state = load.width * load.micro * load.config.d_model / load.mesh["tensor"]
    sending = 2 * hardware.seconds_to_send(state, 2, load.spacing("pipeline"))  # forward and backward
    return Seconds(
        matmul=m * products,
        attention=m * scores,
        memory=m * moved,
        launch=m * waiting + hardware.pause,
        tensor=m * sent,
        pipeline=(p - 1) * (one + sending) + m * sending if p > 1 else 0.0,
        data=data(load, one),
        optimizer=hardware.seconds_to_pass(UPDATE_BYTES * load.trainable / load.mesh["shard"]),
    )


def matmul(load: Workload) -> float:
    """Seconds of a micro-batch's products with weights, on the slowest stage, which also has the head.

    A product takes 2 M K N / rate, or the time to read its matrix if that is longer. In the last round of tiles, some
    multiprocessors have none (`occupancy`). Each matrix is multiplied forward, for the gradient of its input and, if
    trainable, for its own gradient; once more if the block is recomputed.
    """
    again = load.recipe.train.recompute == "full"
    blocks = sum(product_seconds(load, *shape, again) for shape in load.matrices.values())
    head = product_seconds(load, load.config.d_model, load.config.vocab_size, again=False)
    return load.layers * blocks + head


def product_seconds(load: Workload, columns: int, rows: int, again: bool) -> float:
    """Seconds of all products of a micro-batch with one matrix, which tensor parallelism divides."""
    hardware, t = load.hardware, load.mesh["tensor"]
    one = 2 * load.micro * columns * rows / t / (hardware.rate(load.precision) * hardware.matmul_share)
    read = hardware.seconds_to_pass(load.width * columns * rows / t)
    forward = max(one / occupancy(load.micro, -(-rows // t), hardware.multiprocessors), read)
    backward = max(one / occupancy(load.micro, -(-columns // t), hardware.multiprocessors), read)
    gradient = max(one, read) if load.products == 3 else 0.0  # its sum over tokens is divided, too
    return (2 if again else 1) * forward + backward + gradient


def occupancy(rows: int, columns: int, multiprocessors: int) -> float:
    """Share of the multiprocessors that work on average while a product of `rows` x `columns` is computed in tiles:
    tiles / (rounds x multiprocessors) (wave quantisation, NVIDIA's "Matrix Multiplication Background", section 3.2)."""
    if not multiprocessors:
        return 1.0
    tiles = math.ceil(rows / TILE) * math.ceil(columns / TILE)
    return tiles / (math.ceil(tiles / multiprocessors) * multiprocessors)


def score_flops(load: Workload) -> float:
    """FLOPs of attention for each token, forward, backward and recomputation, on average over the blocks.

    Fused attention skips masked scores, and recomputes the scores in the backward pass (FlashAttention-2, section 3.1:
    2.5 times the forward pass). Recomputing "selective" stores its result.
    """
    fused, kind = load.hardware.fused_attention, load.recipe.train.recompute
    again = kind == "full" or (kind == "selective" and not fused)
    seen = visible(load) if fused else load.recipe.data.sequence_length
    return ((3.5 if fused else 3.0) + again) * 4 * load.config.n_head * load.config.d_head * seen


def visible(load: Workload) -> float:
    """Tokens that a token attends to, on average over the sequence and the blocks, some of which may have a window."""
    config, length = load.config, load.recipe.data.sequence_length
    window = min(config.window or length, length)
    local = len(config.local_layers) / config.n_layer
    return (1 - local) * length / 2 + local * (window - window**2 / (2 * length))


def attention(load: Workload) -> float:
    """Seconds of a micro-batch's attention on one stage."""
    hardware = load.hardware
    share = hardware.matmul_share if hardware.attention_share is None else hardware.attention_share
    return load.layers * load.micro * score_flops(load) / load.mesh["tensor"] / (hardware.rate(load.precision) * share)


def traffic(load: Workload) -> float:
    """Seconds of a micro-batch's memory-bound operations on the slowest stage."""
    config, w, t = load.config, load.width, load.mesh["tensor"]
    heads, keys = config.n_head * config.d_head, config.kv_heads * config.d_head
    fusible = (
        (4 + w) * config.n_norm * config.d_model  # norms: read the float32 stream, write
        + (8 + 2 * w) * config.d_model  # residual: read the stream and two outputs, write the stream
        + 2 * w * (heads + keys) * (bool(config.n_rotary) + config.qk_norm)  # rotary, norms of heads: read, write
    )
    scores = 2 * w * (heads + keys)  # read queries, keys, values, write the result
    if not load.hardware.fused_attention:
        scores += 4 * w * config.n_head * load.recipe.data.sequence_length  # written, softmax, read
    activation = w * (3 if config.gated else 2) * config.d_hidden  # read, write
    fused = load.recipe.train.compile or load.own_kernels
    forward = (1.0 if fused else UNFUSED_PASSES[w]) * fusible + scores + activation
    # The backward pass reads and writes twice as much. Both kinds of recomputation repeat all these operations.
    passes = 3 if load.recipe.train.recompute == "none" else 4
    block = passes * forward * load.micro / t
    # The logits pass six times: product, softmax, gradient. Compiled, they keep the type of the products.
    head = (w if load.compiled_head else 4) * 6 * config.vocab_size * load.micro / t
    return load.hardware.seconds_to_pass(load.layers * block + head + weight_traffic(load))


def weight_traffic(load: Workload) -> float:
    """Bytes of weights and gradients in a micro-batch: the weights cast to the type of the products (read 4, write w),
    their gradients cast back (read w, write 4), and added to those of earlier micro-batches (read 8, write 4). With
    sharding, a device casts its shard of the weights twice and adds its shard of the gradients."""
    if load.frozen_bytes:
        return 0.0
    s, cast = load.mesh["shard"], (4.0 + load.width) * (load.width < 4)
    added = 12 * load.weights / s if load.micro_batches > 1 else 0.0
    return added + (cast if s == 1 else 2 * cast / s) * load.weights + cast * load.weights


def operations(load: Workload) -> float:
    """Operations that the program starts on a device in a micro-batch, most of them in Python.

    A compiled block starts about 50 (983 in 12 layers and their loss, 1,446 in 24: docs/gpu.md). Otherwise it starts
    25 forward, 20 more with rotary positions, 6 for each norm that is not one operation and 4 for a gate, and 1.4 times
    as many backward, as PyTorch's dispatch mode counts them; an adapter adds 6 and 8. Outside compiled code, a
    recomputed operation passes through Python twice, because torch packs and unpacks what it saves by hooks.
    """
    config, train, lora = load.config, load.recipe.train, load.recipe.lora
    of_heads = 2 * config.qk_norm
    forward = 25 + of_heads + 20 * bool(config.n_rotary) + 4 * config.gated
    forward += 6 * (config.norm == "rmsnorm") * (config.n_norm + of_heads)
    if train.compile:
        forward = 20
    if lora is not None:
        forward += 6 * len(lora.targets or load.matrices)
    again = 0 if train.recompute == "none" else 1 if train.compile else 2
    return load.layers * forward * (2.4 + again)


def tensor(load: Workload) -> float:
    """Seconds of a micro-batch's tensor-parallel communication: each norm gathers its tokens, attention and MLP
    scatter theirs, and the backward pass the reverse (Korthikanti et al. 2022, section 4.2.2)."""
    passes = 3 if load.recipe.train.recompute == "full" else 2
    size = float(load.width * load.micro * load.config.d_model)
    return load.layers * passes * (load.config.n_norm + 2) * load.send(size, 1, "tensor")


def data(load: Workload, one: float) -> float:
    """Seconds of a step's data-parallel communication that no computation hides; `one` micro-batch is computed in that
    many seconds.

    FSDP gathers a block's weights while the block before is computed, forward and backward, and scatters a block's
    gradients while the next is computed, in each micro-batch. Nothing is computed while the embedding, the head and
    the first block are gathered, and while the last gradients are scattered. The replicas sum their gradients during
    the last backward pass; those of the embedding come last.
    """
    m, s, t = load.micro_batches, load.mesh["shard"], load.mesh["tensor"]
    backward = one * (3 / 4 if load.recipe.train.recompute == "full" else 2 / 3)
    trained = load.trainable / load.weights
    block, root = load.config.n_block / t, load.embedding_weights / t
    reduced = load.send(4 * load.trainable / s, 2, "replicate")
    last = load.send(4 * trained * root / s, 2, "replicate")
    exposed = max(last, reduced - backward) if reduced else 0.0
    if s == 1:
        return exposed
    gather, first = (0.0 if load.frozen_bytes else load.send(load.width * n, 1, "shard") for n in (block, root))
    scatter, final = (load.send(4 * trained * n, 1, "shard") for n in (block, root))
    forward_wait = max(0.0, gather - (one - backward) / load.layers)
    backward_wait = max(0.0, gather + scatter - backward / load.layers)
    return m * (first + gather + scatter + final + load.layers * (forward_wait + backward_wait)) + exposed
