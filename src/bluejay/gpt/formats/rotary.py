"""Rotary settings in `config.json`, whose place and names have changed several times over the years."""

import dataclasses
from typing import Any

from bluejay.gpt.config import GPTConfig, RotaryScaling
from bluejay.gpt.formats.values import Values, positive, whole, wrong

ALL_SLOW = 1e30
"""A number of turns that no pair makes. With it as the lower limit, Llama 3.1's formula slows all pairs alike, which is
the linear scaling of positions (Chen et al., 2023, section 2.3)."""
ROPE_KEYS = ("rope_parameters", "rope_scaling", "rope_theta", "rotary_pct", "rotary_emb_base", "partial_rotary_factor")
"""Keys of `config.json` that hold rotary settings."""
UNUSED = ("original_max_position_embeddings", "finetuned")
"""Rotary settings that do not matter for the kinds `default` and `linear`."""


def linear_scaling(factor: float) -> RotaryScaling | None:
    """The setting under which all positions are divided by a factor; None for the factor 1, which changes nothing."""
    return None if factor == 1 else RotaryScaling(factor, low=ALL_SLOW, high=2 * ALL_SLOW, n_ctx=1)


def rope(values: Values) -> Values:
    """The base and the scaling. Raises ValueError for a kind of scaling that is not implemented."""
    given: Values = {}
    for key in ("rope_parameters", "rope_scaling"):  # if a file has both, the second counts, as in transformers
        one = values.get(key) or {}
        if not isinstance(one, dict):
            raise ValueError(wrong(values, key, "an object"))
        given |= {"rope_type" if name == "type" else name: value for name, value in one.items() if value is not None}
    kind = given.pop("rope_type", "default")
    theta = positive(values, "rope_theta", positive(values, "rotary_emb_base", 10000.0))
    base = positive({"rope_theta": theta} | given, "rope_theta")
    scaling = None
    if kind == "llama3":
        low, high = positive(given, "low_freq_factor"), positive(given, "high_freq_factor")
        n_ctx = whole(given, "original_max_position_embeddings")
        scaling = RotaryScaling(positive(given, "factor"), low, high, n_ctx)
    elif kind == "linear":
        scaling = linear_scaling(positive(given, "factor"))
    elif kind != "default":
        raise ValueError(f"rope_type is {kind!r}; bluejay reads 'default', 'linear' and 'llama3'")
    used = {"default": (), "linear": ("factor",), "llama3": ("factor", "low_freq_factor", "high_freq_factor")}[kind]
    unknown = given.keys() - {"rope_theta", "partial_rotary_factor", *UNUSED, *used}
    if kind == "default" and given.get("factor") in (1, None):
        unknown.discard("factor")
    if unknown:
        raise ValueError(f"the rope_type {kind!r} has {min(unknown)}, which bluejay does not compute")
    return {"rotary_base": base, "rotary_scaling": scaling and dataclasses.asdict(scaling)}


def rotated_share(values: Values, old_key: str, default: float) -> float:
    """The share of each head that is rotated, by its present name or an old one. Raises ValueError."""
    nested = values.get("rope_parameters") or values.get("rope_scaling") or {}
    old = positive(values, old_key, positive(values, "partial_rotary_factor", default))
    share = positive(nested, "partial_rotary_factor", old)
    if share > 1:
        raise ValueError(f"partial_rotary_factor is {share}; it must be at most 1")
    return share


def llama_rope(values: Values) -> Values:
    """Llama's rotary settings: whole heads are rotated."""
    fields = rope(values)
    if rotated_share(values, "partial_rotary_factor", 1.0) != 1:
        raise ValueError("partial_rotary_factor is not 1; bluejay reads Llamas that rotate whole heads")
    whole_head = whole(values, "hidden_size") // whole(values, "num_attention_heads")
    return fields | {"rotary_dim": whole(values, "head_dim", whole_head)}


def neox_rope(values: Values) -> Values:
    """GPT-NeoX's rotary settings: a part of each head is rotated."""
    fields, head = rope(values), whole(values, "hidden_size") // whole(values, "num_attention_heads")
    return fields | {"rotary_dim": int(head * rotated_share(values, "rotary_pct", 0.25))}


def scaling_keys(config: GPTConfig) -> Values:
    """The entries of `rope_parameters` that describe the scaling of positions."""
    scaling = config.rotary_scaling
    if scaling is None:
        return {"rope_type": "default"}
    if scaling.low == ALL_SLOW:
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low,
        "high_freq_factor": scaling.high,
        "original_max_position_embeddings": scaling.n_ctx,
    }


def neox_keys(config: GPTConfig) -> dict[str, Any]:
    """The inverse of `neox_rope`, with the keys of current and of earlier versions of `transformers`."""
    share, kind = config.n_rotary / config.d_head, scaling_keys(config)
    new = kind | {"rope_theta": config.rotary_base, "partial_rotary_factor": share}
    old = {"rope_scaling": new} if config.rotary_scaling else {}
    return {"rope_parameters": new, "rotary_pct": share, "rotary_emb_base": config.rotary_base, **old}


def llama_keys(config: GPTConfig) -> dict[str, Any]:
    """The inverse of `llama_rope`, with the keys of current and of earlier versions of `transformers`."""
    kind = scaling_keys(config)
    old = {"rope_theta": config.rotary_base, "rope_scaling": kind if config.rotary_scaling else None}
    return {"rope_parameters": kind | {"rope_theta": config.rotary_base}, **old}
