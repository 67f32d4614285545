"""The shape of a GPT: one description for GPT-J and its relatives."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from bluejay.recipe import STRICT

Family = Literal["gptj", "gpt_neo", "gpt_neox", "gpt2", "llama", "mistral", "qwen2", "qwen3"]
MOST_PARAMETERS = 2**60
"""Weights of the largest model that is described; torch counts bytes in 64 bits."""


@dataclass(frozen=True)
class RotaryScaling:
    """Slower rotation for long contexts: Llama 3.1's (Llama 3, section 3.2; `rope_type` "llama3") or YaRN (Peng et al.
    2023, sections 3.2 to 3.4). The number of turns that a rotated pair makes within the original context decides how
    far it is slowed down."""

    __pydantic_config__ = STRICT
    factor: float
    """Factor by which the slowest pairs are slowed down."""
    low: float
    """Pairs with fewer turns than this are slowed by the whole factor; from `low` to `high` the effect fades out."""
    high: float
    """Pairs with more turns than this keep their speed."""
    n_ctx: int
    """Length of the original context, in tokens."""
    ramp: Literal["turns", "pairs", "whole_pairs"] = "turns"
    """What the effect fades out in proportion to: the turns of a pair (Llama 3.1) or its number (YaRN), counted from
    the pair of `high` to that of `low` turns; with whole_pairs, both are rounded outwards to pairs that exist."""
    attention_factor: float = 1.0
    """Factor on what was rotated, of queries and of keys (YaRN, section 3.4: the square root of 1 / t)."""


@dataclass(frozen=True)
class GPTConfig:
    """The shape of one decoder. The defaults are GPT-J-6B (mesh-transformer-jax, `configs/6B_roto_256.json`)."""

    __pydantic_config__ = STRICT
    family: Family = "gptj"
    """Selects the `config.json` mapping and the weight names (`bluejay.gpt.formats.families`), not the arithmetic."""
    n_layer: int = 28
    """L: decoder blocks."""
    d_model: int = 4096
    """D: width of the residual stream."""
    n_head: int = 16
    """N: query heads."""
    n_kv_head: int | None = None
    """K: key and value heads, each shared by N / K query heads (GQA, section 2.2); N when not given."""
    head_dim: int | None = None
    """H: width of a head; D / N when not given."""
    d_ff: int | None = None
    """F: hidden width of the MLP; 4 D when not given."""
    vocab_size: int = 50400
    """V: rows of the embedding. GPT-J pads its 50,257 tokens to 50,400, a multiple of its 8 shards."""
    n_ctx: int = 2048
    """Longest sequence, in tokens, that the model is trained for."""
    parallel: bool = True
    """Whether attention and MLP read the same residual stream; otherwise the MLP reads attention's result."""
    n_norm: Literal[1, 2] = 1
    """Norms in a block: 1, shared by parallel attention and MLP, or 2, one for each."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Kind of norm; rmsnorm subtracts no mean and has no bias (Zhang & Sennrich, section 3)."""
    norm_eps: float = 1e-5
    """Added to the variance in every norm."""
    learned_positions: bool = False
    """Whether a learned vector for each position up to `n_ctx` is added to the embedding."""
    rotary: Literal["interleaved", "rotate_half", "none"] = "interleaved"
    """Layout of the R rotated pairs of a head: (0, 1), (2, 3), ... or (0, R), (1, R + 1), ...; none: no rotation."""
    rotary_dim: int | None = None
    """Number of leading dimensions of each head that are rotated; a quarter when not given (GPT-J: 64 of 256)."""
    rotary_base: float = 10000.0
    """Longest wavelength of the rotary angles, in units of 2 pi tokens (RoFormer, section 3.4.3)."""
    rotary_scaling: RotaryScaling | None = None
    """Slower rotation for a context longer than the original one."""
    attention_scale: float | None = None
    """Factor applied to query-key products; 1 / sqrt(H) when not given (GPT-Neo: 1)."""
    window: int | None = None
    """Number of tokens, including itself, that a query of a local layer attends to (GPT-Neo: 256)."""
    local_layers: tuple[int, ...] = ()
    """Layers that attend only to the window, counted from 0."""
    activation: Literal["gelu_tanh", "gelu", "relu", "silu"] = "gelu_tanh"
    """Activation of the MLP; gelu_tanh is the tanh approximation of GELU (Hendrycks & Gimpel, section 2)."""
    gated: bool = False
    """Whether the MLP multiplies its activation by a second projection (GLU Variants, section 2)."""
    qkv_bias: bool = False
    """Whether the query, key and value projections have biases."""
    out_bias: bool = False
    """Whether the output projection of attention has a bias."""
    qk_norm: bool = False
    """Whether each head's query and key pass a norm before they are rotated (Qwen3, section 2)."""
    mlp_bias: bool = True
    """Whether the matrices of the MLP have biases."""
    head_bias: bool = True
    """Whether the output head has a bias."""
    tied: bool = False
    """Whether the output head and the embedding share one matrix."""

    def __post_init__(self) -> None:
        for name in ("n_layer", "d_model", "n_head", "kv_heads", "d_head", "d_hidden", "vocab_size", "n_ctx"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be at least 1")
        if self.head_dim is None and self.d_model % self.n_head:
            raise ValueError(f"model.d_model {self.d_model} is not a multiple of model.n_head {self.n_head}")
        if self.n_head % self.kv_heads:
            raise ValueError(f"model.n_head {self.n_head} is not a multiple of model.n_kv_head {self.kv_heads}")
        if self.rotary != "none" and (not 2 <= self.n_rotary <= self.d_head or self.n_rotary % 2):
            raise ValueError(
                f"model.rotary_dim is {self.n_rotary}; it must be even, from 2 to {self.d_head}, a head's width"
            )
        if (scaling := self.rotary_scaling) is not None:
            for name in ("factor", "low", "high", "n_ctx", "attention_factor"):
                if not getattr(scaling, name) > 0:
                    raise ValueError(f"model.rotary_scaling.{name} is {getattr(scaling, name)}; it must be positive")
            if not scaling.high > scaling.low:
                raise ValueError(
                    f"model.rotary_scaling.high is {scaling.high}; it must be above low, which is {scaling.low}"
                )
            if scaling.ramp != "turns" and not self.rotary_base > 1:
                raise ValueError(f"model.rotary_base is {self.rotary_base}; YaRN needs one above 1")
        if self.n_norm == 1 and not self.parallel:
            raise ValueError("model.n_norm is 1; a block that is not parallel has 2 norms")
        if self.local_layers and (self.window is None or self.window < 1):
            raise ValueError(f"model.local_layers requires a model.window of at least 1; it is {self.window}")
        if self.n_parameters > MOST_PARAMETERS:
            raise ValueError("the sizes of the model are absurd; they give more than 2^60 weights")

    @property
    def d_head(self) -> int:
        """H: width of one head, with the default applied."""
        return self.d_model // self.n_head if self.head_dim is None else self.head_dim

    @property
    def kv_heads(self) -> int:
        """K: number of key and value heads, with the default applied."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def d_hidden(self) -> int:
        """F: hidden width of the MLP, with the default applied."""
        return 4 * self.d_model if self.d_ff is None else self.d_ff

    @property
    def n_rotary(self) -> int:
        """Number of rotated dimensions of each head, with the default applied; 0 without rotary positions."""
        if self.rotary == "none":
            return 0
        return max(2, self.d_head // 8 * 2) if self.rotary_dim is None else self.rotary_dim

    @property
    def scale(self) -> float:
        """Factor applied to query-key products, with the default applied."""
        return self.d_head**-0.5 if self.attention_scale is None else self.attention_scale

    @property
    def rotary_factor(self) -> float:
        """Factor on rotated queries and keys; 1 without a scaling of positions."""
        return 1.0 if self.rotary_scaling is None else self.rotary_scaling.attention_factor

    @property
    def resolved(self) -> "GPTConfig":
        """The same model with every default written out."""
        derived = {
            "n_kv_head": self.kv_heads,
            "head_dim": self.d_head,
            "d_ff": self.d_hidden,
            "rotary_dim": self.n_rotary,
        }
        return dataclasses.replace(self, **derived, attention_scale=self.scale)

    @property
    def n_parameters(self) -> int:
        """Number of weights; a tied matrix counts once."""
        embeddings = self.vocab_size + (self.n_ctx if self.learned_positions else 0)
        head = self.vocab_size * ((not self.tied) * self.d_model + self.head_bias)
        return embeddings * self.d_model + self.n_layer * self.n_block + self._n_norm(self.d_model) + head

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations to train on one token, forward and backward, with attention at full context (PaLM,
        appendix B: 6 per weight used in a product, 12 L N H T for attention)."""
        head = self.vocab_size * (self.d_model + self.head_bias)
        weights = self.n_layer * self.n_block + self._n_norm(self.d_model) + head
        return 6 * weights + 12 * self.n_layer * self.n_head * self.d_head * self.n_ctx

    def forward_flops(self, length: int) -> int:
        """Floating-point operations of the matrix products of a forward pass for one token of a sequence of `length`
        tokens: those of the blocks and the head, and of causal attention, in which an average token looks at half of
        the sequence. Documents that are masked from each other get no credit. Training takes three times as many."""
        q, kv = self.n_head * self.d_head, self.kv_heads * self.d_head
        block = self.d_model * (2 * q + 2 * kv + (3 if self.gated else 2) * self.d_hidden)
        return 2 * (self.n_layer * (block + q * length) + self.vocab_size * self.d_model)

    def _n_norm(self, width: int) -> int:
        return width if self.norm == "rmsnorm" else 2 * width

    @property
    def n_block(self) -> int:
        """Number of weights of one block."""
        d, f, q, kv = self.d_model, self.d_hidden, self.n_head * self.d_head, self.kv_heads * self.d_head
        attention = 2 * d * q + 2 * d * kv + self.qkv_bias * (q + 2 * kv) + self.out_bias * d
        up = (2 if self.gated else 1) * (d * f + self.mlp_bias * f)
        norms = self.n_norm * self._n_norm(d) + 2 * self.qk_norm * self._n_norm(self.d_head)
        return attention + up + f * d + self.mlp_bias * d + norms
