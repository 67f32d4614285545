"""The decoder: GPT-J as mesh-transformer-jax trained it; the fields of `GPTConfig` turn it into its relatives.

Shapes:  B batch · T tokens (queries) · S tokens (keys) · D model · N query heads · K key/value heads · H head width ·
         F hidden · V vocabulary · R rotated half-dimensions · L layers

A block of GPT-J adds attention and MLP to the residual stream in parallel; both read the same norm:

    x = x + attention(norm(x)) + mlp(norm(x))

In GPT-2 and most other families the MLP follows the attention, and each has its own norm.

Numerics: parameters are float32 in training and keep their stored type in inference. Matrix products are in bfloat16
where the caller opened `torch.autocast`. Norms, rotary angles, and the logits given to a loss or a sampler are float32.
The softmax inside `scaled_dot_product_attention` accumulates in float32.
"""

import math
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bluejay.gpt.attention import VisibleRange, document_bounds, has_varlen, whole_sequences
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.kernels import Rotation, activate, attention, linear, norm, rotate
from bluejay.gpt.recompute import recomputed


@runtime_checkable
class Cache(Protocol):
    """Stores the keys and values of earlier tokens (implemented in `bluejay.infer.backends.torch`)."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store a layer's new (B K T H) keys and values; return the attention of its (B N T H) queries."""
        ...


class GPT(nn.Module):
    """The model, from token ids to logits. A model with learned positions takes at most `n_ctx` tokens; rotary
    positions have no such limit. `recompute` is the kind of recomputation in the backward pass
    (`bluejay.gpt.recompute`)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute: Literal["none", "selective", "full"] = "none"
        self._frequencies: dict[torch.device, Tensor] = {}
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
        document_start: Int[Tensor, "B T"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Logits of the token that follows each position. A token attends to itself and to earlier tokens. Where
        several documents are packed into one sequence, `document_start` is the index at which each token's document
        begins: tokens before it are masked, and positions count from it. `positions` are 0..T-1 unless given. A cache
        does its own masking and takes no `document_start`."""
        return self.logits(self.hidden(tokens, positions=positions, document_start=document_start, cache=cache))

    def hidden(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        positions: Int[Tensor, "B T"] | None = None,
        document_start: Int[Tensor, "B T"] | None = None,
        bounds: Int[Tensor, " bounds"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The hidden states after the final norm, which are the head's input. `bounds` are the `document_bounds` of
        `document_start`, if they are known."""
        order = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        if positions is None:
            positions = order if document_start is None else order - document_start
        x = self.embed(tokens)
        if self.position is not None:
            x = x + self.position(positions)
        if positions.device not in self._frequencies:  # made on the CPU; a copy in each pass would wait for the device
            self._frequencies[positions.device] = rotary_frequencies(self.config).to(positions.device)
        rotation = rotary_angles(positions, self.config, self._frequencies[positions.device])
        if bounds is None and cache is None and has_varlen(tokens.device):
            bounds = whole_sequences(tokens) if document_start is None else document_bounds(document_start)
        visible = None if document_start is None else VisibleRange(document_start, bounds)
        local = visible
        if self.config.local_layers and (self.config.window or 0) < tokens.shape[1]:  # else it holds the whole sequence
            local = VisibleRange(self._window(order, document_start), bounds, self.config.window)
        for layer, block in enumerate(self.blocks):
            layer_visible = local if layer in self.config.local_layers else visible
            x = block(x, rotation, layer_visible, cache, self.recompute)
        return self.norm(x)

    def logits(self, hidden: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch V"]:
        """The head's logits for hidden states."""
        weight, bias = self.unembedding
        return F.linear(hidden, weight, bias)

    @property
    def unembedding(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, "V"] | None]:
        """The head's matrix, which is the embedding's where the two are tied, and its bias if it has one."""
        return (self.embed.weight if self.head.weight is None else self.head.weight), self.head.bias

    def _window(self, order: Int[Tensor, "B T"], document_start: Int[Tensor, "B T"] | None) -> Int[Tensor, "B T"]:
        """The first token that each token of a local layer attends to."""
        first_visible = (order - (self.config.window or 0) + 1).clamp(min=0)
        return first_visible if document_start is None else first_visible.maximum(document_start)


class Block(nn.Module):
    """Attention and MLP, in parallel (GPT-J, GPT-NeoX) or in sequence. Recomputation is inside the block, so that a
    compiled block contains it and stores what it is meant to store."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.parallel = config.parallel
        self.norm = Norm(config)
        self.mlp_norm = Norm(config) if config.n_norm == 2 else None
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        rotation: Rotation | None,
        visible: VisibleRange | None,
        cache: Cache | None,
        recompute: Literal["none", "selective", "full"] = "none",
    ) -> Float[Tensor, "B T D"]:
        return recomputed(self._forward, recompute)(x, rotation, visible, cache)

    def _forward(
        self, x: Float[Tensor, "B T D"], rotation: Rotation | None, visible: VisibleRange | None, cache: Cache | None
    ) -> Float[Tensor, "B T D"]:
        h = self.norm(x)
        attended = self.attention(h, rotation, visible, cache)
        if not self.parallel:
            x, attended = x + attended, 0
        return x + (attended + self.mlp(h if self.mlp_norm is None else self.mlp_norm(x)))


class Attention(nn.Module):
    """Causal attention with N query heads and K key and value heads."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.d_head = config.d_head
        self.scale = config.scale
        self.rotate_half = config.rotary == "rotate_half"
        q, kv = config.n_head * config.d_head, config.kv_heads * config.d_head
        self.q = Linear(config.d_model, q, bias=config.qkv_bias)
        self.k = Linear(config.d_model, kv, bias=config.qkv_bias)
        self.v = Linear(config.d_model, kv, bias=config.qkv_bias)
        self.q_norm = Norm(config, config.d_head) if config.qk_norm else None
        self.k_norm = Norm(config, config.d_head) if config.qk_norm else None
        self.out = Linear(q, config.d_model, bias=config.out_bias)

    def forward(
        self, x: Float[Tensor, "B T D"], rotation: Rotation | None, visible: VisibleRange | None, cache: Cache | None
    ) -> Float[Tensor, "B T D"]:
        q, k, v = (matrix(x).unflatten(-1, (-1, self.d_head)) for matrix in (self.q, self.k, self.v))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if cache is None:
            y = attention(q, k, v, rotation, self.rotate_half, visible, self.scale)
        else:
            if rotation is not None:
                both = rotate(torch.cat((q, k), -2), rotation, self.rotate_half)  # one pass over both
                q, k = both.split((q.shape[-2], k.shape[-2]), -2)
            y = cache.attend(self.layer, *(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
        return self.out(y.flatten(-2))


class MLP(nn.Module):
    """Two matrices with an activation between them; a gated MLP has a third, the gate."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.gate = Linear(config.d_model, config.d_hidden, bias=config.mlp_bias) if config.gated else None
        self.up = Linear(config.d_model, config.d_hidden, bias=config.mlp_bias)
        self.down = Linear(config.d_hidden, config.d_model, bias=config.mlp_bias)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        if self.gate is None:
            return self.down(activate(self.up(x), self.activation))
        return self.down(activate(self.gate(x), self.activation) * self.up(x))


class Linear(nn.Linear):
    """`nn.Linear` without random initialisation; `bluejay.gpt.init` or a file provides the weights."""

    def reset_parameters(self) -> None: ...

    def forward(self, input: Float[Tensor, "*batch I"]) -> Float[Tensor, "*batch O"]:
        return linear(input, self.weight, self.bias)


class Embedding(nn.Embedding):
    """`nn.Embedding` without random initialisation."""

    def reset_parameters(self) -> None: ...


class Head(nn.Module):
    """The parameters that the output head does not share; `GPT.unembedding` gives the matrix it multiplies by."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        matrix = None if config.tied else nn.Parameter(torch.empty(config.vocab_size, config.d_model))
        self.register_parameter("weight", matrix)
        self.register_parameter("bias", nn.Parameter(torch.empty(config.vocab_size)) if config.head_bias else None)


class Norm(nn.Module):
    """Layer norm or root-mean-square norm of rows of a width, the model's unless given. It computes in float32 and
    returns the type of its input, or under autocast that of matrix products (`kernels.norm`)."""

    def __init__(self, config: GPTConfig, width: int | None = None) -> None:
        super().__init__()
        width = width or config.d_model
        self.eps = config.norm_eps
        self.weight = nn.Parameter(torch.empty(width))
        layernorm = config.norm == "layernorm"
        self.register_parameter("bias", nn.Parameter(torch.empty(width)) if layernorm else None)

    def forward(self, x: Float[Tensor, "*batch W"]) -> Float[Tensor, "*batch W"]:
        return norm(x, self.weight, self.bias, self.eps)


def rotary_angles(
    positions: Int[Tensor, "B T"], config: GPTConfig, frequencies: Float[Tensor, " R"] | None = None
) -> Rotation | None:
    """Cosine and sine of the angle of each rotated pair at each position (RoFormer, equation 15), times the
    `rotary_factor` of the configuration. None for a model without rotary positions. `frequencies` are
    `rotary_frequencies(config)`, if they are on the device already."""
    if config.rotary == "none":
        return None
    if frequencies is None:
        frequencies = rotary_frequencies(config).to(positions.device)
    angle = positions.float()[:, :, None, None] * frequencies
    if config.rotary_factor == 1:
        return angle.cos(), angle.sin()
    return config.rotary_factor * angle.cos(), config.rotary_factor * angle.sin()


def rotary_frequencies(config: GPTConfig) -> Float[Tensor, " R"]:
    """The rotation of each pair, in radians per token."""
    pair = torch.arange(0, config.n_rotary, 2, dtype=torch.float32)
    frequency = config.rotary_base ** (-pair / config.n_rotary)
    scaling = config.rotary_scaling
    if scaling is None:
        return frequency
    if scaling.ramp == "turns":
        turns = scaling.n_ctx * frequency / (2 * math.pi)
        kept = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    else:
        first, last = (pair_of_turns(config, scaling.n_ctx, turns) for turns in (scaling.high, scaling.low))
        if scaling.ramp == "whole_pairs":
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, config.n_rotary - 1)
        kept = 1 - ((pair / 2 - first) / (last - first or 0.001)).clamp(0, 1)
    return frequency * (kept + (1 - kept) / scaling.factor)


def pair_of_turns(config: GPTConfig, n_ctx: int, turns: float) -> float:
    """The number of the rotated pair, with a fraction, that makes so many turns within `n_ctx` tokens (YaRN, section
    3.2)."""
    return config.n_rotary * math.log(n_ctx / (turns * 2 * math.pi)) / (2 * math.log(config.rotary_base))


def weight_shapes(config: GPTConfig) -> dict[str, torch.Size]:
    """The name and shape of every weight of a model."""
    with torch.device("meta"):
        return {name: weight.shape for name, weight in GPT(config).state_dict().items()}


def matrices_by_input(config: GPTConfig) -> dict[str, list[str]]:
    """Activation -> the matrices that multiply it, in model order. An activation is named after the norm that produces
    it, or else after the only matrix that reads it. The tables that are only looked up (positions and an embedding that
    is not tied) are not included."""
    matrices = {}
    for layer in range(config.n_layer):
        block = f"blocks.{layer}."
        qkv = [f"{block}attention.{name}.weight" for name in "qkv"]
        mlp = [f"{block}mlp.{name}.weight" for name in (("gate", "up") if config.gated else ("up",))]
        if config.n_norm == 1:
            matrices[block + "norm"] = qkv + mlp
        else:
            matrices |= {block + "norm": qkv, block + "mlp_norm": mlp}
        matrices |= {block + name: [f"{block}{name}.weight"] for name in ("attention.out", "mlp.down")}
    return matrices | {"norm": ["embed.weight" if config.tied else "head.weight"]}


def input_of(config: GPTConfig) -> dict[str, str]:
    """Matrix -> the activation that it multiplies, named as in `matrices_by_input`."""
    return {name: activation for activation, names in matrices_by_input(config).items() for name in names}
