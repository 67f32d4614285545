"""What a GPT-J is, as numbers."""

from dataclasses import dataclass

from bluejay.recipe import STRICT


@dataclass(frozen=True)
class GPTConfig:
    """The shape of one decoder. The defaults are GPT-J-6B (mesh-transformer-jax, `configs/6B_roto_256.json`)."""

    __pydantic_config__ = STRICT
    n_layer: int = 28
    """L: decoder blocks."""
    d_model: int = 4096
    """D: width of the residual stream."""
    n_head: int = 16
    """N: attention heads; each is D / N wide."""
    d_ff: int | None = None
    """F: hidden width of the MLP; 4 D when not given."""
    vocab_size: int = 50400
    """V: rows of the embedding. GPT-J pads its 50,257 tokens to 50,400, a multiple of its 8 shards."""
    n_ctx: int = 2048
    """The longest sequence, in tokens, that the model is trained for."""
    rotary_dim: int | None = None
    """Leading dimensions of each head that are rotated; a quarter of them when not given (GPT-J: 64 of 256)."""
    norm_eps: float = 1e-5
    """Added to the variance in every layer norm."""

    def __post_init__(self) -> None:
        for name in ("n_layer", "d_model", "n_head", "vocab_size", "n_ctx"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be at least 1")
        if self.d_model % self.n_head:
            raise ValueError(f"model.d_model {self.d_model} is not a multiple of model.n_head {self.n_head}")
        if not 2 <= self.n_rotary <= self.d_head or self.n_rotary % 2:
            raise ValueError(
                f"model.rotary_dim is {self.n_rotary}; it must be even, from 2 to {self.d_head}, a head's width"
            )

    @property
    def d_head(self) -> int:
        """H: the width of one head."""
        return self.d_model // self.n_head

    @property
    def d_hidden(self) -> int:
        """F: the hidden width of the MLP, resolved."""
        return self.d_ff or 4 * self.d_model

    @property
    def n_rotary(self) -> int:
        """The rotated dimensions of each head, resolved."""
        return max(2, self.d_head // 8 * 2) if self.rotary_dim is None else self.rotary_dim

    @property
    def n_parameters(self) -> int:
        """Parameters of the model: embedding, blocks (one norm, q k v o, MLP), final norm, head with bias."""
        d, f = self.d_model, self.d_hidden
        block = 2 * d + 4 * d * d + (d * f + f) + (f * d + d)
        return self.vocab_size * d + self.n_layer * block + 2 * d + (self.vocab_size * d + self.vocab_size)

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations to train on one token, forward and backward, attention at full context included
        (PaLM, appendix B: 6 per weight that multiplies, 12 L D T for attention)."""
        weights = self.n_parameters - self.vocab_size * self.d_model
        return 6 * weights + 12 * self.n_layer * self.d_model * self.n_ctx
