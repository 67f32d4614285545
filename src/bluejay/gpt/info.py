"""A model's figures, such as its size and memory needs, without reading its weights."""

import difflib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import open_model
from bluejay.gpt.formats.locate import locate
from bluejay.gpt.formats.quantized import quantized_bytes
from bluejay.gpt.presets import PRESETS
from bluejay.gpt.quantization.packing import QUANTISED
from bluejay.native import absent, native

BYTES = {"float32": 4, "bfloat16": 2}
"""Bytes of a number in the types in which unquantised weights are used."""


@dataclass(frozen=True)
class Info:
    """Figures of one model."""

    name: str
    config: GPTConfig
    stored_as: str | None = None
    """Type of the weights on disk, in words; None for a preset, which has no files."""
    n_bytes: int | None = None
    """Size of the files of weights; None for a preset."""
    tokenizer: str | None = None
    """Size of the tokenizer's vocabulary, or why it cannot be read, in words."""
    licence: str | None = None
    """The licence stated in the files, if any."""

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Bytes of memory for the weights, by the type or format in which they are used."""
        exact = {dtype: width * self.config.n_parameters for dtype, width in BYTES.items()}
        return exact | {name: quantized_bytes(self.config, format) for name, format in QUANTISED.items()}

    @property
    def engine(self) -> str:
        """The engine that runs models on this machine's processor, in words."""
        if native is None:
            return f"torch; the native engine {absent}"
        kernels, isa = f"kernels for {', '.join(native.isas())}", os.environ.get("BLUEJAY_ISA")
        if isa == "torch":
            return f"torch, as BLUEJAY_ISA says; the native engine has {kernels}"
        if isa and isa not in native.isas():
            return f"none: BLUEJAY_ISA is {isa}, and the native engine has {kernels} here; torch is the other choice"
        return f"native, with {kernels}{f'; BLUEJAY_ISA chooses {isa}' if isa else ''}"

    @property
    def cache_bytes(self) -> dict[str, int]:
        """Bytes of memory for the keys and values of one sequence that fills the context, by their type."""
        config = self.config
        numbers = 2 * config.n_layer * config.kv_heads * config.d_head * config.n_ctx
        return {dtype: width * numbers for dtype, width in BYTES.items()}

    def as_dict(self) -> dict[str, Any]:
        """All figures as JSON types."""
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
        """A table of a few lines."""
        config = self.config
        positions = (
            "learned" if config.learned_positions else f"rotary, {config.n_rotary} of {config.d_head} dimensions"
        )
        context = f"context {config.n_ctx:,} tokens"
        if config.local_layers:
            local = len(config.local_layers)
            context += f", of which {local} of {config.n_layer} layers see the last {config.window:,}"
        heads = f"{config.n_head} heads of {config.d_head}"
        if config.kv_heads != config.n_head:
            heads += f" over {config.kv_heads} of keys and values"
        rows = [
            ("family", config.family),
            ("parameters", f"{config.n_parameters:,}"),
            ("layers", f"{config.n_layer} of width {config.d_model:,}, {heads}, MLP {config.d_hidden:,}"),
            ("positions", f"{positions}; {context}"),
            ("vocabulary", f"{config.vocab_size:,} rows, head {'tied' if config.tied else 'of its own'}"),
            (
                "forward",
                f"{config.flops_per_token / 3e9:,.3g} GFLOP per token at full context; training, three times that",
            ),
        ]
        for dtype, weights in self.weight_bytes.items():
            total = weights + self.cache_bytes.get(dtype, self.cache_bytes["bfloat16"])  # quantised weights: bfloat16
            rows.append((dtype, f"{size(weights)} weights, {size(total)} with one full KV cache"))
        if self.n_bytes is not None:
            rows.append(("on disk", f"{size(self.n_bytes)} as {self.stored_as}"))
            rows.append(("tokenizer", self.tokenizer or "none"))
            rows.append(("licence", self.licence or "not stated"))
        rows.append(("engine", self.engine))
        return "\n".join([self.name, *(f"  {key:<11}{value}" for key, value in rows)])


def size(n_bytes: int) -> str:
    """A number of bytes in words, in powers of 1000 like the sizes of files."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.3g} {unit}"
    return f"{n_bytes / 1e3:.3g} kB"


def info(name: str) -> Info:
    """The figures of a path, a hub name or a preset. Raises FileNotFoundError or ValueError, each with one sentence."""
    if name in PRESETS and not Path(name).exists():
        return Info(name, PRESETS[name])
    try:
        path = locate(name)
    except FileNotFoundError as missing:
        preset = (difflib.get_close_matches(name, PRESETS, 1) or ["gpt-j"])[0]
        raise FileNotFoundError(f"{missing}; a preset, such as {preset}, can be described without files") from None
    stored = open_model(path)
    if stored.quantised:
        dtype = "quantised weights"
    else:
        dtype = "several types" if stored.dtype is None else str(stored.dtype).removeprefix("torch.")
    try:
        tokenizer = f"{stored.tokenizer().vocab_size:,} tokens"
    except (FileNotFoundError, ValueError) as error:
        tokenizer = f"none that can be read: {error}"
    return Info(name, stored.config, dtype, stored.n_bytes, tokenizer, stored.licence)
