"""Activation recomputation in the backward pass (Chen et al. 2016; Korthikanti et al. 2022, section 5).

"full" stores only the residual stream between blocks and runs each block a second time, which needs the least memory
and a third more arithmetic. "selective" also stores the results of matrix products and of torch's attention. It
recomputes only cheap operations: norms, rotary angles, activations and the native kernel of attention. Where blocks are
compiled, both are part of what is compiled.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

STORED_OPERATIONS = {
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "torch_attn::_varlen_attn",
    "bluejay::attend_ranges",
}
"""The operations whose results "selective" stores."""


def recomputed(block: Callable[..., Tensor], kind: Literal["none", "selective", "full"]) -> Callable[..., Tensor]:
    """The block with recomputation of the given kind; the block itself if no gradient is needed."""
    if kind == "none" or not torch.is_grad_enabled():
        return block
    context = (
        {"context_fn": partial(create_selective_checkpoint_contexts, selective_policy)} if kind == "selective" else {}
    )
    return partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False, **context)


def selective_policy(_context: object, operation: Any, *_args: object, **_kwargs: object) -> CheckpointPolicy:
    """Store the results of `STORED_OPERATIONS` and recompute all others."""
    stored = operation.name() in STORED_OPERATIONS
    return CheckpointPolicy.MUST_SAVE if stored else CheckpointPolicy.PREFER_RECOMPUTE
