"""What a model is and what it needs, without reading its weights."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import open_model
from bluejay.gpt.formats.locate import locate
from bluejay.gpt.formats.quantized import quantized_bytes
from bluejay.gpt.presets import PRESETS
from bluejay.native import native

BYTES = {"float32": 4, "bfloat16": 2}
"""Bytes per number of the types that weights are used in."""
QUANTISED: tuple[Literal["q8", "q4"], ...] = ("q8", "q4")
"""The formats that matrices are quantised to; their KV cache is bfloat16."""


@dataclass(frozen=True)
class Info:
    """Figures of one model."""

    name: str
    config: GPTConfig
    stored_as: str | None = None
    """Type of the weights on disk; None for a preset, which has none."""
    n_bytes: int | None = None
    """Size of the files that hold them."""
    tokenizer: str | None = None
    licence: str | None = None

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Memory for the weights, by the type they are used in."""
        n = self.config.n_parameters
        whole = {dtype: size * n for dtype, size in BYTES.items()}
        return whole | {format: quantized_bytes(self.config, format) for format in QUANTISED}

    @property
    def engine(self) -> str:
        """What runs models on this machine's processor."""
        if native is None:
            return "torch; the native engine needs a C++ compiler when the package is installed"
        return f"native, with kernels for {', '.join(native.isas())}"

    @property
    def cache_bytes(self) -> dict[str, int]:
        """Memory for the keys and values of one sequence that fills the context."""
        config = self.config
        numbers = 2 * config.n_layer * config.kv_heads * config.d_head * config.n_ctx
        return {dtype: size * numbers for dtype, size in BYTES.items()}

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON's types."""
        config = self.config
        return {
            "name": self.name,
            "config": asdict(config.resolved),
            "parameters": config.n_parameters,
            "flops_per_token": {"forward": config.flops_per_token // 3, "training": config.flops_per_token},
            "weight_bytes": self.weight_bytes,
            "cache_bytes": self.cache_bytes,
            "stored_as": self.stored_as,
            "n_bytes": self.n_bytes,
            "tokenizer": self.tokenizer,
            "licence": self.licence,
            "engine": self.engine,
        }

    def summary(self) -> str:
        """A few lines for people."""
        config = self.config
        positions = (
            "learned" if config.learned_positions else f"rotary, {config.n_rotary} of {config.d_head} dimensions"
        )
        heads = f"{config.n_head} heads of {config.d_head}"
        if config.kv_heads != config.n_head:
            heads += f" over {config.kv_heads} of keys and values"
        rows = [
            ("family", config.family),
            ("parameters", f"{config.n_parameters:,}"),
            ("layers", f"{config.n_layer} of width {config.d_model:,}, {heads}, MLP {config.d_hidden:,}"),
            ("positions", f"{positions}; context {config.n_ctx:,} tokens"),
            ("vocabulary", f"{config.vocab_size:,} rows, head {'tied' if config.tied else 'of its own'}"),
            (
                "forward",
                f"{config.flops_per_token / 3e9:,.3g} GFLOP per token at full context; training, three times that",
            ),
        ]
        for dtype, weights in self.weight_bytes.items():
            both = weights + self.cache_bytes.get(dtype, self.cache_bytes["bfloat16"])
            rows.append((dtype, f"{size(weights)} weights, {size(both)} with one full KV cache"))
        if self.n_bytes is not None:
            rows.append(("on disk", f"{size(self.n_bytes)} as {self.stored_as}"))
            rows.append(("tokenizer", self.tokenizer or "none"))
            rows.append(("licence", self.licence or "not stated"))
        rows.append(("engine", self.engine))
        return "\n".join([self.name, *(f"  {key:<11}{value}" for key, value in rows)])


def size(n_bytes: int) -> str:
    """Bytes for people, in powers of 1000 as file sizes are."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.3g} {unit}"
    return f"{n_bytes / 1e3:.3g} kB"


def info(name: str) -> Info:
    """What is known of a path, a hub name or a preset. Raises FileNotFoundError or ValueError, with what is wrong."""
    if name in PRESETS and not Path(name).exists():
        return Info(name, PRESETS[name])
    stored = open_model(locate(name))
    dtype = "several types" if stored.dtype is None else str(stored.dtype).removeprefix("torch.")
    try:
        tokenizer = f"{stored.tokenizer().vocab_size:,} tokens"
    except (FileNotFoundError, ValueError) as error:
        tokenizer = f"none that can be read: {error}"
    return Info(name, stored.config, dtype, stored.n_bytes, tokenizer, stored.licence)
