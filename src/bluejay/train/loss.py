"""Cross-entropy straight from hidden states, without ever holding the logits of a whole batch.

The head's logits are the largest tensor of a small model's step. They are made for some rows at a time and turned into
their own gradient in place, so the forward pass leaves only that gradient's products with the hidden states and the
weights (the idea of Cut Your Losses, Wijmans et al. 2024, section 4, with rows as the only blocks). In bfloat16 on a
CPU one native kernel does all that is between the products.

The vocabulary may be shared out over a group of processes: each then passes the same hidden states and targets, and
its own rows of the weight and the bias, those from `first` on. All get the same loss; the gradient of the hidden states
is left as partial sums (Megatron-LM, Shoeybi et al. 2019, section 3).
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from bluejay.gpt.kernels import is_native
from bluejay.native import native

ROWS = 1024


def head_loss(
    hidden: Float[Tensor, "B T D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, "B T"],
    scale: float,
    weights: Float[Tensor, "B T"] | None = None,
    group: dist.ProcessGroup | None = None,
    first: int = 0,
    z_loss: float = 0.0,
) -> Float[Tensor, ""]:
    """Sum over all tokens of the negative log-likelihood in nats, each times its weight if there are any, times
    `scale`; `1 / tokens` makes it the mean.

    The gradient is that of the likelihood and of `z_loss` times the squared log of the softmax's sum (PaLM, section 5),
    which keeps logits from drifting; what is given back stays the likelihood, so that runs compare.
    """
    learning = torch.is_grad_enabled()  # which the function itself cannot see: it always runs without gradients
    rows = None if weights is None else weights.flatten()
    index = own(targets.flatten(), weight, group, first)
    return HeadLoss.apply(hidden.flatten(0, 1), weight, bias, index, scale, rows, group, z_loss, learning)


@torch.no_grad()
def token_nll(
    hidden: Float[Tensor, "B T D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, "B T"],
    group: dist.ProcessGroup | None = None,
    first: int = 0,
) -> Float[Tensor, "B T"]:
    """The negative log-likelihood of each target in nats, without gradient."""
    nats = torch.zeros(targets.shape, device=hidden.device)
    index = own(targets.flatten(), weight, group, first)
    states, matrix = hidden.flatten(0, 1), matrix_of(weight)
    for rows in chunks(len(states)):
        logits, _ = log_softmax((states[rows].to(matrix.dtype) @ matrix.T).float(), bias, group)
        nats.view(-1)[rows] = -picked(logits, index[rows])
    if group is not None:
        dist.all_reduce(nats, group=group)
    return nats


class HeadLoss(torch.autograd.Function):
    """The gradient is computed with the loss; backward only hands it out."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "M D"],
        weight: Float[Tensor, "V D"],
        bias: Float[Tensor, " V"] | None,
        index: Int[Tensor, " M"],
        scale: float,
        weights: Float[Tensor, " M"] | None,
        group: dist.ProcessGroup | None,
        z_loss: float,
        learning: bool,
    ) -> Float[Tensor, ""]:
        wanted = [learning and need for need in ctx.needs_input_grad[:3]]
        matrix = matrix_of(weight)
        fused = group is None and is_native(hidden, matrix.dtype)
        turn = native_gradient if fused else torch_gradient
        loss = torch.zeros((), device=hidden.device)
        d_hidden = torch.empty_like(hidden) if wanted[0] else None
        d_weight, d_bias = (
            torch.zeros_like(part, dtype=torch.float32) if want and part is not None else None
            for part, want in zip((weight, bias), wanted[1:], strict=True)
        )
        for rows in chunks(len(index)):
            states, importance = hidden[rows].to(matrix.dtype), None if weights is None else weights[rows]
            nats, gradient = turn(states @ matrix.T, bias, index[rows], importance, scale, z_loss, group, d_bias)
            loss += nats
            if d_hidden is not None:
                d_hidden[rows] = gradient @ matrix
            if d_weight is not None:
                d_weight += gradient.T @ states
        if group is not None:
            dist.all_reduce(loss, group=group)
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        return loss * scale

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        (upstream,) = upstreams
        gradients = (None if part is None else part * upstream for part in ctx.saved_tensors)
        return *gradients, None, None, None, None, None, None


def torch_gradient(
    logits: Float[Tensor, "rows V"],
    bias: Float[Tensor, " V"] | None,
    index: Int[Tensor, " rows"],
    weights: Float[Tensor, " rows"] | None,
    scale: float,
    z_loss: float,
    group: dist.ProcessGroup | None,
    d_bias: Float[Tensor, " V"] | None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "rows V"]]:
    """The loss of some rows and its gradient, in the type of the logits, whose columns are added to `d_bias`."""
    log_probability, log_total = log_softmax(logits.float(), bias, group)
    nats = -picked(log_probability, index)
    gradient = log_probability.exp_()
    if z_loss:
        gradient *= 1 + 2 * z_loss * log_total
    held = index >= 0
    gradient.scatter_add_(1, index.clamp(min=0)[:, None], -held[:, None].to(gradient.dtype))
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
    _group: dist.ProcessGroup | None,
    d_bias: Float[Tensor, " V"] | None,
) -> tuple[float, Float[Tensor, "rows V"]]:
    """The same by the native kernel; the logits become their gradient in place."""
    bias = None if bias is None else bias.detach().float()
    weights = None if weights is None else weights.float().contiguous()
    index = index.contiguous()
    nats = native.loss(logits, bias, index, weights, scale, z_loss, d_bias, torch.get_num_threads())
    return nats, logits


def chunks(rows: int) -> Iterator[slice]:
    """Rows whose logits are held at once."""
    return (slice(start, start + ROWS) for start in range(0, rows, ROWS))


def log_softmax(
    logits: Float[Tensor, "rows V"], bias: Float[Tensor, " V"] | None, group: dist.ProcessGroup | None
) -> tuple[Float[Tensor, "rows V"], Float[Tensor, "rows 1"]]:
    """The log-probabilities of the vocabulary, in place of the logits, and the log of each softmax's sum."""
    if bias is not None:
        logits += bias
    before = logits[:, :1].clone()
    if group is None:
        torch.log_softmax(logits, -1, out=logits)
    else:
        largest = logits.amax(-1, keepdim=True)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
        logits -= largest
        total = logits.exp().sum(-1, keepdim=True)
        dist.all_reduce(total, group=group)
        logits -= total.log_()
    return logits, before - logits[:, :1]


def matrix_of(weight: Float[Tensor, "V D"]) -> Float[Tensor, "V D"]:
    """The weight in the type of the matrix products. Autocast is off inside a custom function, so it is asked here."""
    device = weight.device.type
    return weight.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else weight


def own(
    targets: Int[Tensor, " M"], weight: Float[Tensor, "V D"], group: dist.ProcessGroup | None, first: int
) -> Int[Tensor, " M"]:
    """Which row of this process's part of the weight each target is; -1 where another process has it."""
    if group is None:
        return targets
    row = targets - first
    return torch.where((row >= 0) & (row < len(weight)), row, -1)


def picked(log_probability: Float[Tensor, "rows V"], index: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """The entry of each row at its index; 0 where the index is -1."""
    found = log_probability.gather(1, index.clamp(min=0)[:, None])[:, 0]
    return torch.where(index >= 0, found, 0.0)
