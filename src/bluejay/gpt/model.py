"""GPT-J: one decoder, as mesh-transformer-jax trained it.

Shapes:  B batch · T tokens (queries) · S tokens (keys) · D model · N heads · H head width · F hidden · V vocabulary ·
         R rotated half-dimensions · L layers

Each block adds attention and MLP to the residual stream at once, both reading one layer norm:

    x = x + attention(norm(x)) + mlp(norm(x))

Numerics: parameters float32 in training, as stored in inference; matrix products in bfloat16 where the caller opened
`torch.autocast`; norms, rotary angles and logits that reach a loss or a sampler in float32. The softmax inside
`scaled_dot_product_attention` accumulates in float32.
"""

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bluejay.gpt.config import GPTConfig

ROTARY_BASE = 10000.0
"""Longest wavelength of the rotary angles, in units of 2 pi tokens (RoFormer, section 3.4.3)."""
Rotation = tuple[Float[Tensor, "B 1 T R"], Float[Tensor, "B 1 T R"]]
"""Cosine and sine of every rotated pair's angle."""


@runtime_checkable
class Cache(Protocol):
    """Where attention keeps the keys and values of the tokens it has seen (see `bluejay.infer.cache`)."""

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new (B N T H) keys and values of a layer; give back all of them, each (B N S H)."""
        ...


class GPT(nn.Module):
    """Token ids in, logits out. `n_ctx` positions are trained; the arithmetic itself has no limit."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = LayerNorm(config.d_model, config.norm_eps)
        self.head = nn.Linear(config.d_model, config.vocab_size)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        positions: Int[Tensor, "B T"] | None = None,
        mask: Bool[Tensor, "B 1 T S"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Logits for the token after each position.

        `positions` are 0..T-1 unless given. `mask` is True where a query may see a key; without one, attention is
        causal, which is right only when queries and keys are the same tokens (no cache, or an empty one).
        """
        return self.head(self.hidden(tokens, positions=positions, mask=mask, cache=cache))

    def hidden(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        positions: Int[Tensor, "B T"] | None = None,
        mask: Bool[Tensor, "B 1 T S"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The last hidden states, normed: what the head multiplies."""
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        rotation = rotary_angles(positions, self.config.n_rotary)
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, rotation, mask, cache)
        return self.norm(x)


class Block(nn.Module):
    """Parallel residual: one norm feeds attention and MLP, and both are added at once."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.norm = LayerNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(
        self, x: Float[Tensor, "B T D"], rotation: Rotation, mask: Tensor | None, cache: Cache | None
    ) -> Float[Tensor, "B T D"]:
        h = self.norm(x)
        return x + self.attention(h, rotation, mask, cache) + self.mlp(h)


class Attention(nn.Module):
    """Causal multi-head attention, rotary on the first dimensions of each head, no biases."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_head = config.n_head
        self.q = nn.Linear(config.d_model, config.d_model, bias=False)
        self.k = nn.Linear(config.d_model, config.d_model, bias=False)
        self.v = nn.Linear(config.d_model, config.d_model, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(
        self, x: Float[Tensor, "B T D"], rotation: Rotation, mask: Tensor | None, cache: Cache | None
    ) -> Float[Tensor, "B T D"]:
        B, T, D = x.shape
        q, k, v = (matrix(x).view(B, T, self.n_head, -1).transpose(1, 2) for matrix in (self.q, self.k, self.v))
        q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.out(y.transpose(1, 2).reshape(B, T, D))


class MLP(nn.Module):
    """Two matrices with biases and GELU by its tanh approximation between them (Hendrycks & Gimpel, section 2)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_hidden)
        self.down = nn.Linear(config.d_hidden, config.d_model)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class LayerNorm(nn.LayerNorm):
    """Layer norm in float32 whatever comes in, given back in the type of its input."""

    def forward(self, input: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(input.float(), self.normalized_shape, weight, bias, self.eps).to(input.dtype)


def rotary_angles(positions: Int[Tensor, "B T"], dim: int) -> Rotation:
    """Cosine and sine of each position's angle for each of the dim / 2 rotated pairs (RoFormer, equation 15)."""
    frequency = ROTARY_BASE ** (-torch.arange(0, dim, 2, device=positions.device, dtype=torch.float32) / dim)
    angle = positions.float()[:, None, :, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x: Float[Tensor, "B N T H"], rotation: Rotation) -> Float[Tensor, "B N T H"]:
    """Turn the first 2 R dimensions of each head, taken as interleaved pairs (0,1), (2,3), ...; leave the rest."""
    cos, sin = rotation
    turned, rest = x.split((2 * cos.shape[-1], x.shape[-1] - 2 * cos.shape[-1]), dim=-1)
    even, odd = turned.float().unflatten(-1, (-1, 2)).unbind(-1)
    pairs = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
    return torch.cat((pairs.flatten(-2).to(x.dtype), rest), dim=-1)
