"""What a GPT is, as numbers: one description for GPT-J and its relatives."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from bluejay.recipe import STRICT

Family = Literal["gptj", "gpt_neo", "gpt_neox", "gpt2", "llama"]


@dataclass(frozen=True)
class RotaryScaling:
    """Slower rotation for long contexts, as Llama 3.1 has it (Llama 3, section 3.2; `rope_type` "llama3")."""

    __pydantic_config__ = STRICT
    factor: float
    """How much slower the slowest pairs turn."""
    low: float
    """Pairs that turn less often than this within `n_ctx` are slowed by the whole factor,"""
    high: float
    """those that turn more often than this are left alone, and between the two it goes smoothly."""
    n_ctx: int
    """The context, in tokens, before it was lengthened."""


@dataclass(frozen=True)
class GPTConfig:
    """The shape of one decoder. The defaults are GPT-J-6B (mesh-transformer-jax, `configs/6B_roto_256.json`)."""

    __pydantic_config__ = STRICT
    family: Family = "gptj"
    """Selects the `config.json` mapping and the weight names (`bluejay.gpt.formats.families`), never the arithmetic."""
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
    """The longest sequence, in tokens, that the model is trained for."""
    parallel: bool = True
    """Whether attention and MLP read the same residual stream; else the MLP reads what attention wrote."""
    n_norm: Literal[1, 2] = 1
    """Norms in a block: one that attention and MLP share (only where they are parallel), or one each."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """rmsnorm has no mean and no bias (Zhang & Sennrich, section 3)."""
    norm_eps: float = 1e-5
    """Added to the variance in every norm."""
    learned_positions: bool = False
    """Whether each position up to `n_ctx` has a vector that is added to the embedding."""
    rotary: Literal["interleaved", "half", "none"] = "interleaved"
    """Which dimensions of a head turn together: (0, 1), (2, 3), ..., or each of the first half with the second's."""
    rotary_dim: int | None = None
    """Leading dimensions of each head that are rotated; a quarter of them when not given (GPT-J: 64 of 256)."""
    rotary_base: float = 10000.0
    """Longest wavelength of the rotary angles, in units of 2 pi tokens (RoFormer, section 3.4.3)."""
    rotary_scaling: RotaryScaling | None = None
    """Longer wavelengths for a lengthened context."""
    attention_scale: float | None = None
    """What query-key products are multiplied by; 1 / sqrt(H) when not given (GPT-Neo: 1)."""
    window: int | None = None
    """Tokens, itself included, that a query of a local layer sees (GPT-Neo: 256)."""
    local_layers: tuple[int, ...] = ()
    """The layers that see only the window, counted from 0."""
    activation: Literal["gelu_tanh", "gelu", "relu", "silu"] = "gelu_tanh"
    """Of the MLP; gelu_tanh is GELU by its tanh approximation (Hendrycks & Gimpel, section 2)."""
    gated: bool = False
    """Whether the MLP multiplies its activation by a second projection (GLU Variants, section 2)."""
    qkv_bias: bool = False
    """Whether query, key and value projections have biases,"""
    out_bias: bool = False
    """the attention's output projection,"""
    mlp_bias: bool = True
    """the MLP's matrices,"""
    head_bias: bool = True
    """and the head."""
    tied: bool = False
    """Whether the head's matrix is the embedding's."""

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
        if self.n_norm == 1 and not self.parallel:
            raise ValueError("model.n_norm is 1; a block whose MLP comes after its attention has 2")
        if self.local_layers and (self.window is None or self.window < 1):
            raise ValueError(f"model.local_layers need a model.window of at least 1; it is {self.window}")

    @property
    def d_head(self) -> int:
        """H: the width of one head, resolved."""
        return self.d_model // self.n_head if self.head_dim is None else self.head_dim

    @property
    def kv_heads(self) -> int:
        """K: key and value heads, resolved."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def d_hidden(self) -> int:
        """F: the hidden width of the MLP, resolved."""
        return 4 * self.d_model if self.d_ff is None else self.d_ff

    @property
    def n_rotary(self) -> int:
        """The rotated dimensions of each head, resolved; 0 without rotary positions."""
        if self.rotary == "none":
            return 0
        return max(2, self.d_head // 8 * 2) if self.rotary_dim is None else self.rotary_dim

    @property
    def scale(self) -> float:
        """What query-key products are multiplied by, resolved."""
        return self.d_head**-0.5 if self.attention_scale is None else self.attention_scale

    @property
    def resolved(self) -> "GPTConfig":
        """The same model with nothing left to a default."""
        derived = {
            "n_kv_head": self.kv_heads,
            "head_dim": self.d_head,
            "d_ff": self.d_hidden,
            "rotary_dim": self.n_rotary,
        }
        return dataclasses.replace(self, **derived, attention_scale=self.scale)

    @property
    def n_parameters(self) -> int:
        """Weights of the model; a tied matrix counts once."""
        embeddings = self.vocab_size + (self.n_ctx if self.learned_positions else 0)
        head = self.vocab_size * ((not self.tied) * self.d_model + self.head_bias)
        return embeddings * self.d_model + self.n_layer * self.n_block + self._n_norm + head

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations to train on one token, forward and backward, attention at full context included
        (PaLM, appendix B: 6 per weight that multiplies, 12 L N H T for attention)."""
        weights = self.n_layer * self.n_block + self._n_norm + self.vocab_size * (self.d_model + self.head_bias)
        return 6 * weights + 12 * self.n_layer * self.n_head * self.d_head * self.n_ctx

    @property
    def _n_norm(self) -> int:
        return self.d_model if self.norm == "rmsnorm" else 2 * self.d_model

    @property
    def n_block(self) -> int:
        """Weights of one block."""
        d, f, q, kv = self.d_model, self.d_hidden, self.n_head * self.d_head, self.kv_heads * self.d_head
        attention = 2 * d * q + 2 * d * kv + self.qkv_bias * (q + 2 * kv) + self.out_bias * d
        up = (2 if self.gated else 1) * (d * f + self.mlp_bias * f)
        return attention + up + f * d + self.mlp_bias * d + self.n_norm * self._n_norm
