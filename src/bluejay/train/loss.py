"""Cross-entropy computed from hidden states, without holding the logits of a whole batch.

The head's logits are the largest tensor of a small model's step. They are computed for `LOGIT_ROWS` tokens at a time
and overwritten by their gradient, so the forward pass keeps only that gradient's products with the hidden states and
the weights (the idea of Cut Your Losses, Wijmans et al. 2024, section 4, with rows as the only blocks). In bfloat16 on
a CPU, one native kernel does everything between the matrix products. On a GPU, torch can compile the head, which then
takes `COMPILED_LOGITS` numbers at a time.

The vocabulary may be divided among the processes of a group (`VocabularyShard`). Each then passes the same hidden
states and targets, and its own rows of the weight and the bias. All get the same loss; the gradient of the hidden
states is left as partial sums (Megatron-LM, Shoeybi et al. 2019, section 3).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bluejay.gpt.kernels import add_weight_gradient, has_native_gradient, is_native
from bluejay.native import native

LOGIT_ROWS = 1024
"""Tokens whose logits are in memory at once."""
COMPILED_LOGITS = 2**29
"""Logits that are in memory at once in a compiled head. Each piece reads and writes the gradient of all weights, so
that fewer pieces are faster."""


@dataclass(frozen=True)
class VocabularyShard:
    """The part of the vocabulary whose rows of the head this process holds."""

    group: dist.ProcessGroup
    """The processes that together hold all rows."""
    first: int
    """Token id of the first row."""
    rows: int
    """How many rows this process holds."""

    def index_of(self, targets: Int[Tensor, " M"]) -> Int[Tensor, " M"]:
        """The row of each target in this process's part of the weight; -1 where another process holds it."""
        index = targets - self.first
        return torch.where((index >= 0) & (index < self.rows), index, -1)


def head_loss(
    hidden: Float[Tensor, "B T D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, "B T"],
    scale: float,
    weights: Float[Tensor, "B T"] | None = None,
    shard: VocabularyShard | None = None,
    z_loss: float = 0.0,
    compiled: bool = False,
) -> Float[Tensor, ""]:
    """`scale` times the sum over all tokens of weight times negative log-likelihood in nats. Without `weights`, every
    token has weight 1; a scale of `1 / tokens` then gives the mean. With `compiled`, torch compiles the head of an
    undivided vocabulary.

    The gradient also includes that of `z_loss` times the squared log-partition function (PaLM, section 5), which keeps
    logits from drifting. The returned value excludes it, so that the losses of runs are comparable.
    """
    learning = torch.is_grad_enabled()  # always off inside an autograd function, so it is read here
    importance = None if weights is None else weights.flatten()
    index = targets.flatten() if shard is None else shard.index_of(targets.flatten())
    if compiled and shard is None:
        return CompiledHeadLoss.apply(hidden.flatten(0, 1), weight, bias, index, scale, importance, z_loss, learning)
    return HeadLoss.apply(hidden.flatten(0, 1), weight, bias, index, scale, importance, shard, z_loss, learning)


@torch.no_grad()
def token_nll(
    hidden: Float[Tensor, "B T D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, "B T"],
    shard: VocabularyShard | None = None,
) -> Float[Tensor, "B T"]:
    """The negative log-likelihood of each target in nats, without gradient."""
    nats = torch.zeros(targets.shape, device=hidden.device)
    index = targets.flatten() if shard is None else shard.index_of(targets.flatten())
    states, matrix = hidden.flatten(0, 1), to_matmul_dtype(weight)
    for rows in logit_rows(len(states)):
        log_probability, _ = log_softmax((states[rows].to(matrix.dtype) @ matrix.T).float(), bias, shard)
        nats.view(-1)[rows] = -gather(log_probability, index[rows])
    if shard is not None:
        dist.all_reduce(nats, group=shard.group)
    return nats


class HeadLoss(torch.autograd.Function):
    """Computes the gradient together with the loss; the backward pass only scales it."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "M D"],
        weight: Float[Tensor, "V D"],
        bias: Float[Tensor, " V"] | None,
        index: Int[Tensor, " M"],
        scale: float,
        weights: Float[Tensor, " M"] | None,
        shard: VocabularyShard | None,
        z_loss: float,
        learning: bool,
    ) -> Float[Tensor, ""]:
        wanted = [learning and need for need in ctx.needs_input_grad[:3]]
        matrix = to_matmul_dtype(weight)
        fused = shard is None and is_native(hidden, matrix.dtype)
        loss_and_gradient = native_gradient if fused else partial(torch_gradient, shard)
        loss = torch.zeros((), device=hidden.device)
        d_hidden = torch.empty_like(hidden) if wanted[0] else None
        d_weight, d_bias = (
            torch.zeros_like(part, dtype=torch.float32) if want and part is not None else None
            for part, want in zip((weight, bias), wanted[1:], strict=True)
        )
        for rows in logit_rows(len(index)):
            states, importance = hidden[rows].to(matrix.dtype), None if weights is None else weights[rows]
            logits = states @ matrix.T
            nats, gradient = loss_and_gradient(logits, bias, index[rows], importance, scale, z_loss, d_bias)
            loss += nats
            if d_hidden is not None:
                d_hidden[rows] = gradient @ matrix
            if d_weight is not None:
                if fused and has_native_gradient(weight):
                    add_weight_gradient(gradient, states, d_weight)
                else:
                    d_weight += gradient.T @ states
        if shard is not None:
            dist.all_reduce(loss, group=shard.group)
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        return loss * scale

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        (upstream,) = upstreams
        gradients = (None if part is None else part * upstream for part in ctx.saved_tensors)
        return *gradients, None, None, None, None, None, None


class CompiledHeadLoss(torch.autograd.Function):
    """`HeadLoss` of an undivided vocabulary, by compiled code for the products and all that is between them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "M D"],
        weight: Float[Tensor, "V D"],
        bias: Float[Tensor, " V"] | None,
        index: Int[Tensor, " M"],
        scale: float,
        weights: Float[Tensor, " M"] | None,
        z_loss: float,
        learning: bool,
    ) -> Float[Tensor, ""]:
        matrix = to_matmul_dtype(weight)
        wanted = [learning and need for need in ctx.needs_input_grad[:3]]
        loss = torch.zeros((), device=hidden.device)
        gradients = [
            torch.zeros_like(x, dtype=kept) if want and x is not None else None
            for x, kept, want in zip(
                (hidden, weight, bias), (hidden.dtype, torch.float32, torch.float32), wanted, strict=True
            )
        ]
        for rows in compiled_rows(len(index), len(weight)):
            inputs = (hidden[rows].to(matrix.dtype), matrix, bias)
            leaves = [
                None if x is None else x.detach().requires_grad_(want) for x, want in zip(inputs, wanted, strict=True)
            ]
            with torch.enable_grad():
                importance = None if weights is None else weights[rows]
                nats, minimised = compiled_objective()(*leaves, index[rows], importance, z_loss)
                minimised = minimised * scale
            loss += nats
            pairs = zip(gradients, leaves, strict=True)
            learned = [(into, leaf) for into, leaf in pairs if into is not None and leaf is not None]
            if learned:
                found = torch.autograd.grad(minimised, [leaf for _, leaf in learned])
                for (into, _), gradient in zip(learned, found, strict=True):
                    part = into[rows] if into is gradients[0] else into
                    part += gradient
        ctx.save_for_backward(*gradients)
        return loss * scale

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        (upstream,) = upstreams
        gradients = (None if part is None else part * upstream for part in ctx.saved_tensors)
        return *gradients, None, None, None, None, None


@cache
def compiled_objective() -> Callable[..., tuple[Tensor, Tensor]]:
    """`objective`, compiled for each number of rows."""
    return torch.compile(objective, dynamic=False)


def objective(
    states: Float[Tensor, "rows D"],
    matrix: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    index: Int[Tensor, " rows"],
    weights: Float[Tensor, " rows"] | None,
    z_loss: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The loss of some rows, and what is minimised: the loss with the penalty of `z_loss`."""
    logits = F.linear(states, matrix, None if bias is None else bias.to(matrix.dtype)).float()
    nats = F.cross_entropy(logits, index, reduction="none")
    loss = nats.sum() if weights is None else nats @ weights
    if not z_loss:
        return loss.detach(), loss
    penalty = logits.logsumexp(-1).square()
    return loss.detach(), loss + z_loss * (penalty.sum() if weights is None else penalty @ weights)


def compiled_rows(n: int, vocabulary: int) -> Iterator[slice]:
    """Consecutive slices of `n` rows, as few as `COMPILED_LOGITS` allows and equal, for each size is compiled anew."""
    pieces = -(-n // max(1, COMPILED_LOGITS // vocabulary))
    size = -(-n // pieces)
    return (slice(start, start + size) for start in range(0, n, size))


def torch_gradient(
    shard: VocabularyShard | None,
    logits: Float[Tensor, "rows V"],
    bias: Float[Tensor, " V"] | None,
    index: Int[Tensor, " rows"],
    weights: Float[Tensor, " rows"] | None,
    scale: float,
    z_loss: float,
    d_bias: Float[Tensor, " V"] | None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "rows V"]]:
    """The loss of some rows, and the gradient of their logits in the same data type; its sum is added to `d_bias`."""
    log_probability, log_partition = log_softmax(logits.float(), bias, shard)
    nats = -gather(log_probability, index)
    gradient = log_probability.exp_()
    if z_loss:
        gradient *= 1 + 2 * z_loss * log_partition
    is_local = index >= 0
    gradient.scatter_add_(1, index.clamp(min=0)[:, None], -is_local[:, None].to(gradient.dtype))
    gradient.mul_(scale if weights is None else scale * weights[:, None])
    if d_bias is not None:
        d_bias += gradient.sum(0)
    return nats.sum() if weights is None else nats @ weights, gradient.to(logits.dtype)


def native_gradient(
    logits: Float[Tensor, "rows V"],
    bias: Float[Tensor, " V"] | None,
    index: Int[Tensor, " rows"],
    weights: Float[Tensor, " rows"] | None,
    scale: float,
    z_loss: float,
    d_bias: Float[Tensor, " V"] | None,
) -> tuple[float, Float[Tensor, "rows V"]]:
    """Native equivalent of `torch_gradient` for an undivided vocabulary; overwrites the logits with their gradient."""
    bias = None if bias is None else bias.detach().float()
    weights = None if weights is None else weights.float().contiguous()
    index = index.contiguous()
    nats = native.loss(logits, bias, index, weights, scale, z_loss, d_bias, torch.get_num_threads())
    return nats, logits


def logit_rows(n: int) -> Iterator[slice]:
    """Consecutive slices of `n` rows, each of at most LOGIT_ROWS."""
    return (slice(start, start + LOGIT_ROWS) for start in range(0, n, LOGIT_ROWS))


def log_softmax(
    logits: Float[Tensor, "rows V"], bias: Float[Tensor, " V"] | None, shard: VocabularyShard | None
) -> tuple[Float[Tensor, "rows V"], Float[Tensor, "rows 1"]]:
    """Log-probabilities, which overwrite the logits, and the log-partition function of each row."""
    if bias is not None:
        logits += bias
    before = logits[:, :1].clone()
    if shard is None:
        torch.log_softmax(logits, -1, out=logits)
    else:
        largest = logits.amax(-1, keepdim=True)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=shard.group)
        logits -= largest
        total = logits.exp().sum(-1, keepdim=True)
        dist.all_reduce(total, group=shard.group)
        logits -= total.log_()
    return logits, before - logits[:, :1]


def to_matmul_dtype(weight: Float[Tensor, "V D"]) -> Float[Tensor, "V D"]:
    """The weight in the data type of matrix products. Autocast does not act inside an autograd function."""
    device = weight.device.type
    return weight.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else weight


def gather(log_probability: Float[Tensor, "rows V"], index: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """The entry of each row at its index; 0 where the index is -1."""
    found = log_probability.gather(1, index.clamp(min=0)[:, None])[:, 0]
    return torch.where(index >= 0, found, 0.0)
