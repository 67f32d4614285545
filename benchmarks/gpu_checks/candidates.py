"""Changes that the package does not have, so that a run on a GPU can say what each would be worth.

`apply` replaces methods of the package's classes, so a process that applied a change cannot measure the package without
it. The changes:

- "stacked qkv": one matrix product computes queries, keys and values;
- "bf16 residual": the residual stream is bfloat16.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import bluejay.gpt.model as package
from bluejay.gpt.kernels import attention


def stacked(self: Any, x: Tensor, rotation: Any, visible: Any, cache: None) -> Tensor:
    """`Attention.forward` with the three matrices joined in each pass."""
    matrices = (self.q, self.k, self.v)
    bias = None if self.q.bias is None else torch.cat([matrix.bias for matrix in matrices])
    rows = F.linear(x, torch.cat([matrix.weight for matrix in matrices]), bias)
    parts = rows.split([matrix.weight.shape[0] for matrix in matrices], dim=-1)
    q, k, v = (part.unflatten(-1, (-1, self.d_head)) for part in parts)
    return self.out(attention(q, k, v, rotation, self.rotate_half, visible, self.scale).flatten(-2))


def narrow(self: Any, tokens: Tensor) -> Tensor:
    """`Embedding.forward` that begins a residual stream in bfloat16."""
    return F.embedding(tokens, self.weight).bfloat16()


def apply(changes: Sequence[str]) -> None:
    """Change the package's classes."""
    classes: Any = package
    if "stacked qkv" in changes:
        classes.Attention.forward = stacked
    if "bf16 residual" in changes:
        classes.Embedding.forward = narrow
