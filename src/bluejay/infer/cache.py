"""The keys and values of the tokens already seen, one row per running sequence."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bluejay.gpt.config import GPTConfig


class KVCache:
    """Keys and values, each (L rows K S H), that grow as sequences do, up to `rows` by `n_ctx`."""

    def __init__(self, config: GPTConfig, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        self.n_ctx = config.n_ctx
        shape = (2, config.n_layer, rows, config.kv_heads, 0, config.d_head)
        self.keys_values = torch.empty(shape, dtype=dtype, device=device)

    def reserve(self, length: int) -> None:
        """Make room for sequences of `length` tokens; doubling, so that growing costs little in all."""
        capacity = self.keys_values.shape[4]
        if length > capacity:
            grown = min(self.n_ctx, max(length, 2 * capacity, 64))
            shape = (*self.keys_values.shape[:4], grown, self.keys_values.shape[5])
            new = torch.zeros(shape, dtype=self.keys_values.dtype, device=self.keys_values.device)
            new[:, :, :, :, :capacity] = self.keys_values
            self.keys_values = new

    def copy_row(self, source: int, target: int) -> None:
        """Give row `target` all that row `source` holds."""
        self.keys_values[:, :, target] = self.keys_values[:, :, source]

    def view(self, first: int, positions: Int[Tensor, "B T"]) -> "CacheView":
        """The cache for one forward pass: the rows from `first` on, whose new tokens stand at `positions`."""
        self.reserve(int(positions.max()) + 1)
        return CacheView(self.keys_values, first, positions)


class CacheView:
    """What one forward pass writes to and reads from; satisfies `bluejay.gpt.model.Cache`."""

    def __init__(self, keys_values: Tensor, first: int, positions: Int[Tensor, "B T"]) -> None:
        self.rows = slice(first, first + positions.shape[0])
        self.keys_values = keys_values[:, :, self.rows]
        self.positions = positions
        self.length = int(positions.max()) + 1
        self.index = torch.arange(positions.shape[0], device=positions.device)[:, None]

    def extend(
        self, layer: int, k: Float[Tensor, "B K T H"], v: Float[Tensor, "B K T H"]
    ) -> tuple[Float[Tensor, "B K S H"], Float[Tensor, "B K S H"]]:
        """Store new keys and values at their positions; all of each row up to the longest come back."""
        keys, values = self.keys_values[:, layer]
        keys[self.index, :, self.positions] = k.transpose(1, 2)
        values[self.index, :, self.positions] = v.transpose(1, 2)
        return keys[:, :, : self.length], values[:, :, : self.length]

    @property
    def mask(self) -> Tensor:
        """True (B 1 T S) where a new token may see a stored one: itself and all before it."""
        return (torch.arange(self.length, device=self.positions.device) <= self.positions[..., None])[:, None]
