"""The model: GPT-J as mesh-transformer-jax trained it, and by the fields of `GPTConfig` its relatives.

Shapes:  B batch · T tokens (queries) · S tokens (keys) · D model · N query heads · K key/value heads · H head width ·
         F hidden · V vocabulary · R rotated half-dimensions · L layers

In GPT-J each block adds attention and MLP to the residual stream at once, both reading one norm:

    x = x + attention(norm(x)) + mlp(norm(x))

In GPT-2 and most others they follow each other, each with a norm of its own.

Numerics: parameters float32 in training, as stored in inference; matrix products in bfloat16 where the caller opened
`torch.autocast`; norms, rotary angles and logits that reach a loss or a sampler in float32. The softmax inside
`scaled_dot_product_attention` accumulates in float32.
"""

import math
from functools import partial
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bluejay.gpt.config import GPTConfig

ACTIVATIONS = {"gelu_tanh": partial(F.gelu, approximate="tanh"), "gelu": F.gelu, "relu": F.relu, "silu": F.silu}
Rotation = tuple[Float[Tensor, "B 1 T R"], Float[Tensor, "B 1 T R"]]
"""Cosine and sine of every rotated pair's angle."""


@runtime_checkable
class Cache(Protocol):
    """Where attention keeps the keys and values of the tokens it has seen (see `bluejay.infer.backends.torch`)."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store a layer's new (B K T H) keys and values; attention of the (B N T H) queries to all they may see."""
        ...


class GPT(nn.Module):
    """Token ids in, logits out. `n_ctx` positions are trained; without learned ones the arithmetic has no limit."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = Embedding(config.vocab_size, config.d_model)
        self.position = Embedding(config.n_ctx, config.d_model) if config.learned_positions else None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = Norm(config)
        self.head = Head(config)

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
        causal. A cache knows itself what each query may see, and takes no mask.
        """
        return self.logits(self.hidden(tokens, positions=positions, mask=mask, cache=cache))

    def hidden(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        positions: Int[Tensor, "B T"] | None = None,
        mask: Bool[Tensor, "B 1 T S"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The last hidden states, normed: what the head multiplies."""
        order = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        positions = order if positions is None else positions
        x = self.embed(tokens)
        if self.position is not None:
            x = x + self.position(positions)
        rotation = rotary_angles(positions, self.config)
        local = self._local(order, mask)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, local if layer in self.config.local_layers else mask, cache)
        return self.norm(x)

    def logits(self, hidden: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch V"]:
        """What the head makes of hidden states."""
        weight, bias = self.unembedding
        return F.linear(hidden, weight, bias)

    @property
    def unembedding(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, "V"] | None]:
        """The head's matrix, its own or the embedding's, and its bias if it has one."""
        return (self.embed.weight if self.head.weight is None else self.head.weight), self.head.bias

    def _local(self, slots: Int[Tensor, "B T"], mask: Tensor | None) -> Tensor | None:
        """The mask of the local layers: of the keys that `mask` shows, those in the window before each query's slot."""
        if not self.config.local_layers:
            return None
        S = slots.shape[1] if mask is None else mask.shape[-1]
        behind = slots[:, None, :, None] - torch.arange(S, device=slots.device)
        inside = behind < (self.config.window or S)
        return inside & (behind >= 0 if mask is None else mask)


class Block(nn.Module):
    """Attention and MLP, side by side (GPT-J, GPT-NeoX) or one after the other."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.parallel = config.parallel
        self.norm = Norm(config)
        self.mlp_norm = Norm(config) if config.n_norm == 2 else None
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(
        self, x: Float[Tensor, "B T D"], rotation: Rotation | None, mask: Tensor | None, cache: Cache | None
    ) -> Float[Tensor, "B T D"]:
        h = self.norm(x)
        attended = self.attention(h, rotation, mask, cache)
        if not self.parallel:
            x, attended = x + attended, 0
        return x + attended + self.mlp(h if self.mlp_norm is None else self.mlp_norm(x))


class Attention(nn.Module):
    """Causal attention of N query heads over K key and value heads."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.d_head = config.d_head
        self.scale = config.scale
        self.grouped = config.kv_heads != config.n_head
        self.halves = config.rotary == "half"
        q, kv = config.n_head * config.d_head, config.kv_heads * config.d_head
        self.q = Linear(config.d_model, q, bias=config.qkv_bias)
        self.k = Linear(config.d_model, kv, bias=config.qkv_bias)
        self.v = Linear(config.d_model, kv, bias=config.qkv_bias)
        self.out = Linear(q, config.d_model, bias=config.out_bias)

    def forward(
        self, x: Float[Tensor, "B T D"], rotation: Rotation | None, mask: Tensor | None, cache: Cache | None
    ) -> Float[Tensor, "B T D"]:
        q, k, v = (matrix(x).unflatten(-1, (-1, self.d_head)).transpose(1, 2) for matrix in (self.q, self.k, self.v))
        if rotation is not None:
            q, k = rotate(q, rotation, self.halves), rotate(k, rotation, self.halves)
        if cache is not None:
            y = cache.attend(self.layer, q, k, v)
        else:
            y = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=self.scale, enable_gqa=self.grouped
            )
        return self.out(y.transpose(1, 2).flatten(-2))


class MLP(nn.Module):
    """Two matrices with an activation between them, or three where it is gated."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.gate = Linear(config.d_model, config.d_hidden, bias=config.mlp_bias) if config.gated else None
        self.up = Linear(config.d_model, config.d_hidden, bias=config.mlp_bias)
        self.down = Linear(config.d_hidden, config.d_model, bias=config.mlp_bias)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        if self.gate is None:
            return self.down(self.activation(self.up(x)))
        return self.down(self.activation(self.gate(x)) * self.up(x))


class Linear(nn.Linear):
    """A matrix that is not drawn when it is made: `bluejay.gpt.init` or a file gives its weights."""

    def reset_parameters(self) -> None: ...


class Embedding(nn.Embedding):
    """A table that is not drawn when it is made."""

    def reset_parameters(self) -> None: ...


class Head(nn.Module):
    """The parameters of the head that are its own; `GPT.unembedding` says what it multiplies by."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        matrix = None if config.tied else nn.Parameter(torch.empty(config.vocab_size, config.d_model))
        self.register_parameter("weight", matrix)
        self.register_parameter("bias", nn.Parameter(torch.empty(config.vocab_size)) if config.head_bias else None)


class Norm(nn.Module):
    """Layer norm or root-mean-square norm in float32 whatever comes in, given back in the type of its input."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.weight = nn.Parameter(torch.empty(config.d_model))
        layernorm = config.norm == "layernorm"
        self.register_parameter("bias", nn.Parameter(torch.empty(config.d_model)) if layernorm else None)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        shape, weight = self.weight.shape, self.weight.float()
        if self.bias is None:
            return F.rms_norm(x.float(), shape, weight, self.eps).to(x.dtype)
        return F.layer_norm(x.float(), shape, weight, self.bias.float(), self.eps).to(x.dtype)


def rotary_angles(positions: Int[Tensor, "B T"], config: GPTConfig) -> Rotation | None:
    """Cosine and sine of each position's angle for each rotated pair (RoFormer, equation 15); None without rotary."""
    if config.rotary == "none":
        return None
    angle = positions.float()[:, None, :, None] * rotary_frequencies(config).to(positions.device)
    return angle.cos(), angle.sin()


def rotary_frequencies(config: GPTConfig) -> Float[Tensor, " R"]:
    """Radians a token by which each rotated pair turns."""
    pair = torch.arange(0, config.n_rotary, 2, dtype=torch.float32)
    frequency = config.rotary_base ** (-pair / config.n_rotary)
    scaling = config.rotary_scaling
    if scaling is not None:
        turns = scaling.n_ctx * frequency / (2 * math.pi)
        kept = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
        frequency = frequency * (kept + (1 - kept) / scaling.factor)
    return frequency


def rotate(x: Float[Tensor, "B N T H"], rotation: Rotation, halves: bool) -> Float[Tensor, "B N T H"]:
    """Turn the first 2 R dimensions of each head and leave the rest; pairs are interleaved, (0, 1), (2, 3), ..., or by
    `halves`, (0, R), (1, R + 1), ..."""
    cos, sin = rotation
    turned, rest = x.split((2 * cos.shape[-1], x.shape[-1] - 2 * cos.shape[-1]), dim=-1)
    shape, axis = ((2, -1), -2) if halves else ((-1, 2), -1)
    first, second = turned.float().unflatten(-1, shape).unbind(axis)
    pairs = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=axis)
    return torch.cat((pairs.flatten(-2).to(x.dtype), rest), dim=-1)
