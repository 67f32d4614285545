"""The memory that a training run takes on the device that needs most."""

import dataclasses
from dataclasses import dataclass

from bluejay.plan.workload import Workload
from bluejay.train.loss import COMPILED_LOGITS, LOGIT_ROWS


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


def memory(load: Workload) -> Memory:
    """Memory of the first stage, which has the most micro-batches in flight."""
    share, stored = load.trainable / load.mesh["shard"], activations(load)
    single = load.micro_batches == load.mesh["pipeline"] == 1
    frozen = load.frozen_bytes * load.layers / load.config.n_layer
    return Memory(
        weights=4 * share + (frozen or gathered(load)),
        gradients=max(0.0, 4 * share - stored) if single else 4 * share,
        optimizer=load.moments / load.mesh["shard"],
        activations=stored,
        reserved=1e9 * load.hardware.reserved,
    )


def gathered(load: Workload) -> float:
    """Bytes of weights in addition to the masters: without sharding, all in the data type of matrix products; with
    sharding, two blocks in that type, the unreduced gradient of one, and embedding and head with gradients."""
    w, t = load.width, load.mesh["tensor"]
    if load.mesh["shard"] == 1:
        return w * load.weights if w < 4 else 0.0
    return ((3 * w + 4) * load.config.n_block + 8 * load.embedding_weights) / t


def activations(load: Workload) -> float:
    """Bytes that the forward pass stores for the backward pass, and bytes of the head."""
    config, t = load.config, load.mesh["tensor"]
    in_flight = min(load.mesh["pipeline"], load.micro_batches)
    kind = load.recipe.train.recompute
    working = (1 if kind == "none" else 2) * kept(load, "none")  # gradients and recomputed activations
    blocks = in_flight * load.layers * kept(load, kind) + working
    logits = 3 * 4 * min(LOGIT_ROWS, load.micro) * config.vocab_size / t  # at most three copies in float32
    if load.compiled_head:
        logits = 2 * load.width * min(COMPILED_LOGITS, load.micro * config.vocab_size)  # they and their gradient
    gradient = 0.0 if load.frozen_bytes else 4 * config.vocab_size * config.d_model / t
    head = 4 * load.micro * config.d_model + gradient
    return blocks * load.micro + logits + head


def kept(load: Workload, kind: str) -> float:
    """Bytes that a block stores for each token with a kind of recomputation.

    "none": the input of each norm in float32; the norm's output, in bfloat16 once for each matrix that reads it;
    queries, keys, values; the output of attention twice, before and after its heads are concatenated; the hidden
    units before and after the activation, and with a gate before and after its product. Bluejay's native kernels
    store nothing twice, and the inputs of the norms of queries and keys as they are. "selective": the outputs of the
    matrix products. "full": the input.
    """
    config, w, t = load.config, load.width, load.mesh["tensor"]
    heads, keys, up = config.n_head * config.d_head, config.kv_heads * config.d_head, 2 if config.gated else 1
    single = w == 4 or load.own_kernels
    if kind == "full":
        return 4 * config.d_model / t
    if kind == "selective":
        return (4 + 2 * w) * config.d_model / t + w * (2 * heads + 2 * keys + up * config.d_hidden) / t
    normed = w * config.d_model * (config.n_norm if single else 3 + up)
    split = w * ((2 if load.own_kernels else 3) * heads + 2 * keys + 2 * up * config.d_hidden) / t
    if config.qk_norm:
        split += (w if single else 4) * (heads + keys) / t
    return 4 * config.d_model * config.n_norm / t + normed + split
