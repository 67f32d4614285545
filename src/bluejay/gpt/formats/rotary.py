"""Rotary settings in `config.json`, whose place and names have changed several times over the years."""

import dataclasses
import math
from typing import Any

from bluejay.gpt.config import GPTConfig, RotaryScaling
from bluejay.gpt.formats.values import Values, flag, positive, whole, wrong
from bluejay.progress import say

ALL_SLOW = 1e30
"""A number of turns that no pair makes. With it as the lower limit, Llama 3.1's formula slows all pairs alike, which is
the linear scaling of positions (Chen et al., 2023, section 2.3)."""
FIRST_CONTEXT = "original_max_position_embeddings"
"""The length of contexts before positions were scaled."""
ROPE_KEYS = ("rope_parameters", "rope_scaling", "rope_theta", "rotary_pct", "rotary_emb_base", "partial_rotary_factor")
ROPE_KEYS += (FIRST_CONTEXT,)
"""Keys of `config.json` that hold rotary settings."""
UNUSED = (FIRST_CONTEXT, "finetuned")
"""Rotary settings that the kinds `default` and `linear` do not compute with."""
USED = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor", "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate"),
}
"""Kind of scaling -> its settings, of which YaRN has all but the first by default."""
FAST_TURNS, SLOW_TURNS = 32.0, 1.0
"""YaRN's `beta_fast` and `beta_slow` (Peng et al. 2023, section 3.2)."""


def is_llama3(scaling: RotaryScaling) -> bool:
    """Whether a scaling of positions is Llama 3.1's, neither linear nor YaRN."""
    return scaling.ramp == "turns" and scaling.low != ALL_SLOW


def linear_scaling(factor: float) -> RotaryScaling | None:
    """The setting under which all positions are divided by a factor; None for the factor 1, which changes nothing."""
    return None if factor == 1 else RotaryScaling(factor, low=ALL_SLOW, high=2 * ALL_SLOW, n_ctx=1)


def rope_entries(values: Values) -> Values:
    """The entries of `rope_scaling`, or else of `rope_parameters`, that are not null. Raises ValueError."""
    key = next((key for key in ("rope_scaling", "rope_parameters") if values.get(key)), None)
    given = values[key] if key else {}
    if not isinstance(given, dict):
        raise ValueError(wrong(values, str(key), "an object"))
    return {name: value for name, value in given.items() if value is not None}


def rope(values: Values) -> Values:
    """The base and the scaling. Raises ValueError for a kind of scaling that is not implemented."""
    given = rope_entries(values)
    old_kind = given.pop("type", "default")
    kind = given.pop("rope_type", old_kind)
    theta = positive(values, "rope_theta", positive(values, "rotary_emb_base", 10000.0))
    base = positive({"rope_theta": theta} | given, "rope_theta")
    if not isinstance(kind, str) or kind not in USED:
        raise ValueError(f"rope_type is {kind!r}; bluejay reads {', '.join(map(repr, USED))}")
    unknown = given.keys() - {"rope_theta", "partial_rotary_factor", *UNUSED, *USED[kind]}
    if kind == "default" and given.get("factor") in (1, None):
        unknown.discard("factor")
    if unknown:
        raise ValueError(f"the rope_type {kind!r} has {min(unknown)}, which bluejay does not compute")
    scaling = None
    if kind == "llama3":
        low, high = positive(given, "low_freq_factor"), positive(given, "high_freq_factor")
        scaling = RotaryScaling(positive(given, "factor"), low, high, first_context(values, given))
    elif kind == "linear":
        scaling = linear_scaling(positive(given, "factor"))
    elif kind == "yarn":
        scaling = yarn(values, given)
    return {"rotary_base": base, "rotary_scaling": scaling and dataclasses.asdict(scaling)}


def first_context(values: Values, given: Values) -> int:
    """The length of contexts before positions were scaled. Raises ValueError."""
    stated = (values.get(FIRST_CONTEXT), given.get(FIRST_CONTEXT), values.get("max_position_embeddings"))
    return whole({FIRST_CONTEXT: next((one for one in stated if one is not None), None)}, FIRST_CONTEXT)


def yarn(values: Values, given: Values) -> RotaryScaling | None:
    """YaRN's scaling, from the entries `given`; None if it changes nothing. Raises ValueError, naming the entry."""
    n_ctx, longest = first_context(values, given), whole(values, "max_position_embeddings")
    factor = positive(given, "factor", longest / n_ctx if longest > n_ctx else None)
    fast, slow = positive(given, "beta_fast", FAST_TURNS), positive(given, "beta_slow", SLOW_TURNS)
    attention_factor = yarn_attention(factor)
    if given.get("mscale") and given.get("mscale_all_dim"):
        attention_factor = yarn_attention(factor, positive(given, "mscale"))
        attention_factor /= yarn_attention(factor, positive(given, "mscale_all_dim"))
    ramp = "whole_pairs" if flag({"truncate": True} | given, "truncate") else "pairs"
    attention_factor = positive(given, "attention_factor", attention_factor)
    same = factor == attention_factor == 1
    return None if same else RotaryScaling(factor, slow, fast, n_ctx, ramp, attention_factor)


def yarn_attention(factor: float, weight: float = 1.0) -> float:
    """The factor on rotated queries and keys at which contexts that are `factor` times as long have the least
    perplexity (Peng et al. 2023, equation 22)."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def yarn_context(config: GPTConfig) -> int:
    """The length of contexts, in tokens, that YaRN was set up for; 0 for a model without it."""
    scaling = config.rotary_scaling
    return int(scaling.n_ctx * scaling.factor) if scaling is not None and scaling.ramp != "turns" else 0


def rotated_share(values: Values, old_key: str, default: float) -> float:
    """The share of each head that is rotated, by its present name or an old one. Raises ValueError."""
    share = positive(rope_entries(values), "partial_rotary_factor", positive(values, old_key, default))
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
    share = rotated_share(values, "rotary_pct", 0.25)
    if (other := positive(values, "partial_rotary_factor", share)) != share:
        say(f"partial_rotary_factor is {other:g}; GPT-NeoX's is rotary_pct, so {share:g} of a head is rotated")
    return fields | {"rotary_dim": int(head * share)}


def scaling_keys(config: GPTConfig) -> Values:
    """The entries of `rope_parameters` that describe the scaling of positions."""
    scaling = config.rotary_scaling
    if scaling is None:
        return {"rope_type": "default"}
    if scaling.low == ALL_SLOW:
        return {"rope_type": "linear", "factor": scaling.factor}
    if scaling.ramp != "turns":
        own = {"beta_fast": scaling.high, "beta_slow": scaling.low, FIRST_CONTEXT: scaling.n_ctx}
        if scaling.ramp == "pairs":
            own["truncate"] = False
        if scaling.attention_factor != yarn_attention(scaling.factor):
            own["attention_factor"] = scaling.attention_factor
        return {"rope_type": "yarn", "factor": scaling.factor, **own}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low,
        "high_freq_factor": scaling.high,
        FIRST_CONTEXT: scaling.n_ctx,
    }


def neox_keys(config: GPTConfig) -> dict[str, Any]:
    """The inverse of `neox_rope`, with the keys of current and of earlier versions of `transformers`."""
    share, kind = config.n_rotary / config.d_head, scaling_keys(config)
    if int(config.d_head * share) != config.n_rotary:  # readers round down: 30 / 88 of 88 would be 29
        share = math.nextafter(share, 1.0)
    new = kind | {"rope_theta": config.rotary_base, "partial_rotary_factor": share}
    old = {"rope_scaling": new} if config.rotary_scaling else {}
    return {"rope_parameters": new, "rotary_pct": share, "rotary_emb_base": config.rotary_base, **old}


def llama_keys(config: GPTConfig) -> dict[str, Any]:
    """The inverse of `llama_rope`, with the keys of current and of earlier versions of `transformers`."""
    kind = scaling_keys(config)
    old = {"rope_theta": config.rotary_base, "rope_scaling": kind if config.rotary_scaling else None}
    return {"rope_parameters": kind | {"rope_theta": config.rotary_base}, **old}
