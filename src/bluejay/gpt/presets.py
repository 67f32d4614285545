"""The configurations of published models and of a few small ones of our own, by name."""

import dataclasses
from typing import Any

from bluejay.gpt.config import GPTConfig
from bluejay.recipe import check

GPT_J = GPTConfig()
GPT_NEO = GPTConfig(
    family="gpt_neo",
    n_layer=12,
    d_model=768,
    n_head=12,
    vocab_size=50257,
    parallel=False,
    n_norm=2,
    rotary="none",
    learned_positions=True,
    attention_scale=1.0,
    window=256,
    local_layers=tuple(range(1, 12, 2)),
    out_bias=True,
    head_bias=False,
    tied=True,
)
GPT_NEOX = GPTConfig(
    family="gpt_neox",
    n_layer=44,
    d_model=6144,
    n_head=64,
    vocab_size=50432,
    n_norm=2,
    rotary="rotate_half",
    qkv_bias=True,
    out_bias=True,
    head_bias=False,
)
PYTHIA = dataclasses.replace(GPT_NEOX, activation="gelu", vocab_size=50304)
GPT2 = GPTConfig(
    family="gpt2",
    n_layer=12,
    d_model=768,
    n_head=12,
    vocab_size=50257,
    n_ctx=1024,
    parallel=False,
    n_norm=2,
    rotary="none",
    learned_positions=True,
    qkv_bias=True,
    out_bias=True,
    head_bias=False,
    tied=True,
)
GPT3 = dataclasses.replace(GPT2, n_ctx=2048)
LLAMA = GPTConfig(
    family="llama",
    n_layer=32,
    n_head=32,
    d_ff=11008,
    vocab_size=32000,
    n_ctx=4096,
    parallel=False,
    n_norm=2,
    norm="rmsnorm",
    rotary="rotate_half",
    rotary_dim=128,
    activation="silu",
    gated=True,
    mlp_bias=False,
    head_bias=False,
)
MISTRAL = dataclasses.replace(
    LLAMA, family="mistral", n_kv_head=8, d_ff=14336, vocab_size=32768, n_ctx=32768, rotary_base=1000000.0
)
QWEN2 = dataclasses.replace(
    LLAMA,
    family="qwen2",
    vocab_size=151936,
    n_ctx=32768,
    norm_eps=1e-6,
    rotary_base=1000000.0,
    qkv_bias=True,
    tied=True,
)
QWEN3 = dataclasses.replace(QWEN2, family="qwen3", n_kv_head=8, head_dim=128, n_ctx=40960, qkv_bias=False, qk_norm=True)
SMOLLM2 = dataclasses.replace(LLAMA, vocab_size=49152, n_ctx=8192, rotary_dim=64, rotary_base=100000.0, tied=True)


def sized(base: GPTConfig, n_layer: int, d_model: int, n_head: int, **fields: Any) -> GPTConfig:
    """A configuration of the same kind at another size."""
    return dataclasses.replace(base, n_layer=n_layer, d_model=d_model, n_head=n_head, **fields)


def neo(n_layer: int, d_model: int, n_head: int) -> GPTConfig:
    """GPT-Neo's configuration at another size, in which every second layer is local."""
    config = dataclasses.replace(GPT_NEO, local_layers=tuple(range(1, n_layer, 2)))
    return sized(config, n_layer, d_model, n_head)


PRESETS = {
    "gpt-j": GPT_J,
    "gpt-j-6b": GPT_J,
    # Our own: GPT-J at sizes for a laptop, with heads of 64.
    "bluejay-1m": sized(GPT_J, 4, 128, 2, vocab_size=2048, n_ctx=512),
    "bluejay-13m": sized(GPT_J, 6, 320, 5, vocab_size=8192, n_ctx=512),
    "bluejay-34m": sized(GPT_J, 8, 512, 8, vocab_size=8192, n_ctx=1024),
    "bluejay-162m": sized(GPT_J, 12, 768, 12, vocab_size=50304, n_ctx=1024),
    # From the configurations published with the weights.
    "gpt-neo-125m": GPT_NEO,
    "gpt-neo-1.3b": neo(24, 2048, 16),
    "gpt-neo-2.7b": neo(32, 2560, 20),
    "gpt-neox-20b": GPT_NEOX,
    # From Pythia, table 1, and the configurations published with the weights.
    "pythia-14m": sized(PYTHIA, 6, 128, 4),
    "pythia-31m": sized(PYTHIA, 6, 256, 8),
    "pythia-70m": sized(PYTHIA, 6, 512, 8),
    "pythia-160m": sized(PYTHIA, 12, 768, 12),
    "pythia-410m": sized(PYTHIA, 24, 1024, 16),
    "pythia-1b": sized(PYTHIA, 16, 2048, 8),
    "pythia-1.4b": sized(PYTHIA, 24, 2048, 16),
    "pythia-2.8b": sized(PYTHIA, 32, 2560, 32),
    "pythia-6.9b": sized(PYTHIA, 32, 4096, 32, vocab_size=50432),
    "pythia-12b": sized(PYTHIA, 36, 5120, 40, vocab_size=50688),
    "gpt2": GPT2,
    "gpt2-medium": sized(GPT2, 24, 1024, 16),
    "gpt2-large": sized(GPT2, 36, 1280, 20),
    "gpt2-xl": sized(GPT2, 48, 1600, 25),
    # From GPT-3, table 2.1, without its sparse layers. Two rows of the table are impossible (24 heads of 128 in a width
    # of 2,048; a width of 5,140); here they have 16 heads and a width of 5,120.
    "gpt-3-125m": sized(GPT3, 12, 768, 12),
    "gpt-3-350m": sized(GPT3, 24, 1024, 16),
    "gpt-3-760m": sized(GPT3, 24, 1536, 16),
    "gpt-3-1.3b": sized(GPT3, 24, 2048, 16),
    "gpt-3-2.7b": sized(GPT3, 32, 2560, 32),
    "gpt-3-6.7b": sized(GPT3, 32, 4096, 32),
    "gpt-3-13b": sized(GPT3, 40, 5120, 40),
    "gpt-3-175b": sized(GPT3, 96, 12288, 96),
    "llama-2-7b": LLAMA,
    "mistral-7b-v0.3": MISTRAL,
    "qwen2.5-0.5b": sized(QWEN2, 24, 896, 14, n_kv_head=2, d_ff=4864, rotary_dim=64),
    "qwen2.5-1.5b": sized(QWEN2, 28, 1536, 12, n_kv_head=2, d_ff=8960, n_ctx=131072),
    "qwen2.5-7b": sized(QWEN2, 28, 3584, 28, n_kv_head=4, d_ff=18944, vocab_size=152064, n_ctx=131072, tied=False),
    "qwen3-0.6b": sized(QWEN3, 28, 1024, 16, d_ff=3072),
    "qwen3-1.7b": sized(QWEN3, 28, 2048, 16, d_ff=6144),
    "qwen3-4b": sized(QWEN3, 36, 2560, 32, d_ff=9728),
    "qwen3-8b": sized(QWEN3, 36, 4096, 32, d_ff=12288, tied=False),
    "smollm2-135m": sized(SMOLLM2, 30, 576, 9, n_kv_head=3, d_ff=1536),
    "smollm2-360m": sized(SMOLLM2, 32, 960, 15, n_kv_head=5, d_ff=2560),
    "smollm2-1.7b": sized(SMOLLM2, 24, 2048, 32, d_ff=8192, rotary_base=130000.0),
}


def adapted(name: str, fields: dict[str, Any], origin: str) -> GPTConfig:
    """A preset with other values for some fields. Fields that depend on a size keep their proportion: the rotated part
    of a head, the width of the MLP, and the local layers of GPT-Neo. Raises ValueError for an unknown preset and,
    beginning with `origin`, for an unknown field or a value that does not fit."""
    if name not in PRESETS:
        raise ValueError(f"model.preset is {name!r}; it must be one of {', '.join(PRESETS)}")
    base = PRESETS[name]
    loose = dataclasses.asdict(base) | {"rotary_dim": None, "local_layers": ()}
    config = check(GPTConfig, loose | fields, origin)
    derived: dict[str, Any] = {"local_layers": tuple(range(1, config.n_layer, 2)) if base.local_layers else ()}
    if base.rotary_dim is not None:
        derived["rotary_dim"] = max(2, base.rotary_dim * config.d_head // base.d_head // 2 * 2)
    if base.d_ff is not None:
        derived["d_ff"] = base.d_ff * config.d_model // base.d_model
    return dataclasses.replace(config, **{key: value for key, value in derived.items() if key not in fields})
