"""Cross-entropy straight from hidden states, without ever holding the logits of a whole batch.

The head's logits are the largest tensor of a small model's step. They are made for a few rows at a time and turned into
their own gradient in place, so the forward pass leaves only that gradient's products with the hidden states and the
weights (the idea of Cut Your Losses, Wijmans et al. 2024, section 4, with rows as the only blocks).
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROWS = 256


def head_loss(
    hidden: Float[Tensor, "B T D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, "B T"],
    scale: float,
) -> Float[Tensor, ""]:
    """Sum over all tokens of the negative log-likelihood in nats, times `scale`; `1 / tokens` makes it the mean."""
    learning = torch.is_grad_enabled()  # which the function itself cannot see: it always runs without gradients
    return HeadLoss.apply(hidden.flatten(0, 1), weight, bias, targets.flatten(), scale, learning)


class HeadLoss(torch.autograd.Function):
    """The gradient is computed with the loss; backward only hands it out."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "M D"],
        weight: Float[Tensor, "V D"],
        bias: Float[Tensor, " V"] | None,
        targets: Int[Tensor, " M"],
        scale: float,
        learning: bool,
    ) -> Float[Tensor, ""]:
        # Autocast is off inside a custom function, so the matrix products' type is chosen here.
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        matrix = weight.to(dtype)
        loss = torch.zeros((), device=hidden.device)
        d_hidden = torch.empty_like(hidden)
        d_weight, d_bias = torch.zeros_like(weight), None if bias is None else torch.zeros_like(bias)
        for start in range(0, len(targets), ROWS):
            rows = hidden[start : start + ROWS].to(dtype)
            index = targets[start : start + ROWS, None]
            logits = (rows @ matrix.T).float()
            if bias is not None:
                logits += bias
            torch.log_softmax(logits, -1, out=logits)
            loss -= logits.gather(1, index).sum()
            if not learning:
                continue
            gradient = logits.exp_().scatter_add_(1, index, torch.full_like(index, -1.0, dtype=logits.dtype))
            gradient.mul_(scale)
            if d_bias is not None:
                d_bias += gradient.sum(0)
            gradient = gradient.to(dtype)
            d_hidden[start : start + ROWS] = gradient @ matrix
            d_weight += gradient.T @ rows
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        return loss * scale

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None, None]:
        (upstream,) = upstreams
        d_hidden, d_weight, d_bias = ctx.saved_tensors
        bias = None if d_bias is None else d_bias * upstream
        return d_hidden * upstream, d_weight * upstream, bias, None, None, None
