"""Configuration keys and weight names of each family in the Hugging Face layout, one table per family.

Only this file and the readers of other file formats depend on the family of a model.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from bluejay.gpt.config import GPTConfig
from bluejay.recipe import check

Values = dict[str, Any]
ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Hugging Face's names of activations -> ours. Where several mean the same function, the first is written."""


@dataclass(frozen=True)
class Family:
    """The Hugging Face layout of one family."""

    architecture: str
    common: Values
    """Fields of GPTConfig that all models of the family share and that differ from GPT-J's."""
    keys: dict[str, str]
    """Field of GPTConfig -> key of `config.json`."""
    defaults: Values
    """Values of keys that may be missing in `config.json`; all other keys are required."""
    prefix: str
    """First part of the name of every module but the head; files of the bare decoder omit it."""
    modules: dict[str, str]
    """Module in the file -> our module, or several that are fused in it; `{}` is the layer."""
    head: str = "lm_head"
    by_head: bool = False
    """Whether fused modules alternate head by head instead of following each other."""
    transposed: bool = False
    """Whether matrices of the blocks are stored as (in, out), as in GPT-2's Conv1D."""
    read: Callable[[Values], Values] = lambda values: {}
    """Fields of GPTConfig that do not correspond to a single key, from `config.json`."""
    write: Callable[[GPTConfig], Values] = lambda config: {}
    """Keys of `config.json` that do not correspond to a single field."""
    refused: Values = field(default_factory=dict)
    """Key -> the only value that is accepted if the key is present."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file."""

    name: str
    weights: tuple[str, ...]
    """Our names of the weights that it holds; several are fused."""
    by_head: bool
    """Whether fused weights alternate head by head instead of following each other."""
    transposed: bool
    """Whether it is stored as (in, out)."""


def gptj_rotary(values: Values) -> Values:
    """GPT-J's rotary dimensions: 64 if the key is missing, the whole head if it is null."""
    dim = values.get("rotary_dim", 64)
    return {"rotary_dim": values["n_embd"] // values["n_head"] if dim is None else dim}


def neo_locals(values: Values) -> Values:
    """GPT-Neo's local layers. `attention_types` [[["global", "local"], 6]] means six repetitions of the pair."""
    kinds = [kind for pattern, times in values["attention_types"] for _ in range(times) for kind in pattern]
    if len(kinds) != values["num_layers"] or not set(kinds) <= {"global", "local"}:
        raise ValueError(f"attention_types must name global or local for each of {values['num_layers']} layers")
    return {"local_layers": tuple(layer for layer, kind in enumerate(kinds) if kind == "local")}


def neo_types(config: GPTConfig) -> Values:
    """The inverse of `neo_locals`."""
    kinds = ["local" if layer in config.local_layers else "global" for layer in range(config.n_layer)]
    pairs = config.n_layer // 2
    types = [[kinds[:2], pairs]] if kinds == kinds[:2] * pairs else [[[kind], 1] for kind in kinds]
    return {"attention_types": types, "attention_layers": kinds}


def rope(values: Values) -> Values:
    """The rotary settings, whose place in `config.json` has changed several times over the years."""
    given = values.get("rope_parameters") or values.get("rope_scaling") or {}
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise ValueError(f"rope_type is {kind!r}; bluejay reads 'default' and 'llama3'")
    theta = given.get("rope_theta", values.get("rope_theta", values.get("rotary_emb_base", 10000.0)))
    fields: Values = {"rotary_base": float(theta)}
    if kind == "llama3":
        fields["rotary_scaling"] = {
            "factor": float(given["factor"]),
            "low": float(given["low_freq_factor"]),
            "high": float(given["high_freq_factor"]),
            "n_ctx": given["original_max_position_embeddings"],
        }
    return fields


def llama_rope(values: Values) -> Values:
    """Llama's rotary settings: whole heads are rotated."""
    head_dim = values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]
    return rope(values) | {"rotary_dim": head_dim}


def neox_rope(values: Values) -> Values:
    """GPT-NeoX's rotary settings: a part of each head is rotated."""
    share = (values.get("rope_parameters") or {}).get("partial_rotary_factor", values.get("rotary_pct", 0.25))
    return rope(values) | {"rotary_dim": int(values["hidden_size"] // values["num_attention_heads"] * share)}


def neox_keys(config: GPTConfig) -> Values:
    """The inverse of `neox_rope`, with the keys of current and of earlier versions of `transformers`."""
    share = config.n_rotary / config.d_head
    new = {"rope_type": "default", "rope_theta": config.rotary_base, "partial_rotary_factor": share}
    return {"rope_parameters": new, "rotary_pct": share, "rotary_emb_base": config.rotary_base}


def llama_keys(config: GPTConfig) -> Values:
    """The inverse of `llama_rope`, with the keys of current and of earlier versions of `transformers`."""
    scaling, kind = config.rotary_scaling, {"rope_type": "default"}
    if scaling is not None:
        kind = {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low,
            "high_freq_factor": scaling.high,
            "original_max_position_embeddings": scaling.n_ctx,
        }
    old = {"rope_theta": config.rotary_base, "rope_scaling": kind if scaling else None}
    return {"rope_parameters": kind | {"rope_theta": config.rotary_base}, **old}


GPT2_KEYS = {
    "n_layer": "n_layer",
    "d_model": "n_embd",
    "n_head": "n_head",
    "d_ff": "n_inner",
    "vocab_size": "vocab_size",
    "n_ctx": "n_positions",
    "norm_eps": "layer_norm_epsilon",
    "activation": "activation_function",
    "tied": "tie_word_embeddings",
}
NEO_KEYS = GPT2_KEYS | {
    "n_layer": "num_layers",
    "d_model": "hidden_size",
    "n_head": "num_heads",
    "d_ff": "intermediate_size",
    "n_ctx": "max_position_embeddings",
    "window": "window_size",
}
NEOX_KEYS = GPT2_KEYS | {
    "n_layer": "num_hidden_layers",
    "d_model": "hidden_size",
    "n_head": "num_attention_heads",
    "d_ff": "intermediate_size",
    "n_ctx": "max_position_embeddings",
    "norm_eps": "layer_norm_eps",
    "activation": "hidden_act",
    "qkv_bias": "attention_bias",
    "out_bias": "attention_bias",
    "parallel": "use_parallel_residual",
}
LLAMA_KEYS = GPT2_KEYS | {
    "n_layer": "num_hidden_layers",
    "d_model": "hidden_size",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "head_dim": "head_dim",
    "d_ff": "intermediate_size",
    "n_ctx": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "activation": "hidden_act",
    "qkv_bias": "attention_bias",
    "out_bias": "attention_bias",
    "mlp_bias": "mlp_bias",
}
GPT2_DEFAULTS = {"n_inner": None, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"}
QKV = "blocks.{}.attention.q blocks.{}.attention.k blocks.{}.attention.v"
LEARNED_POSITIONS = {
    "parallel": False,
    "n_norm": 2,
    "rotary": "none",
    "learned_positions": True,
    "out_bias": True,
    "head_bias": False,
}

FAMILIES = {
    "gptj": Family(
        architecture="GPTJForCausalLM",
        common={},
        keys=GPT2_KEYS,
        defaults=GPT2_DEFAULTS | {"tie_word_embeddings": False},
        read=gptj_rotary,
        write=lambda config: {"rotary_dim": config.n_rotary, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
        prefix="transformer.",
        modules={
            "wte": "embed",
            "h.{}.ln_1": "blocks.{}.norm",
            "h.{}.attn.q_proj": "blocks.{}.attention.q",
            "h.{}.attn.k_proj": "blocks.{}.attention.k",
            "h.{}.attn.v_proj": "blocks.{}.attention.v",
            "h.{}.attn.out_proj": "blocks.{}.attention.out",
            "h.{}.mlp.fc_in": "blocks.{}.mlp.up",
            "h.{}.mlp.fc_out": "blocks.{}.mlp.down",
            "ln_f": "norm",
        },
    ),
    "gpt_neo": Family(
        architecture="GPTNeoForCausalLM",
        common=LEARNED_POSITIONS | {"attention_scale": 1.0},
        keys=NEO_KEYS,
        defaults={"intermediate_size": None, "window_size": 256, "layer_norm_epsilon": 1e-5}
        | {"activation_function": "gelu_new", "tie_word_embeddings": True},
        read=neo_locals,
        write=lambda config: neo_types(config) | dict.fromkeys(("attention_dropout", "embed_dropout"), 0.0),
        prefix="transformer.",
        modules={
            "wte": "embed",
            "wpe": "position",
            "h.{}.ln_1": "blocks.{}.norm",
            "h.{}.attn.attention.q_proj": "blocks.{}.attention.q",
            "h.{}.attn.attention.k_proj": "blocks.{}.attention.k",
            "h.{}.attn.attention.v_proj": "blocks.{}.attention.v",
            "h.{}.attn.attention.out_proj": "blocks.{}.attention.out",
            "h.{}.ln_2": "blocks.{}.mlp_norm",
            "h.{}.mlp.c_fc": "blocks.{}.mlp.up",
            "h.{}.mlp.c_proj": "blocks.{}.mlp.down",
            "ln_f": "norm",
        },
    ),
    "gpt_neox": Family(
        architecture="GPTNeoXForCausalLM",
        common={"n_norm": 2, "rotary": "rotate_half", "head_bias": False},
        keys=NEOX_KEYS,
        defaults={"layer_norm_eps": 1e-5, "hidden_act": "gelu", "attention_bias": True}
        | {"use_parallel_residual": True, "tie_word_embeddings": False},
        read=neox_rope,
        write=neox_keys,
        prefix="gpt_neox.",
        modules={
            "embed_in": "embed",
            "layers.{}.input_layernorm": "blocks.{}.norm",
            "layers.{}.attention.query_key_value": QKV,
            "layers.{}.attention.dense": "blocks.{}.attention.out",
            "layers.{}.post_attention_layernorm": "blocks.{}.mlp_norm",
            "layers.{}.mlp.dense_h_to_4h": "blocks.{}.mlp.up",
            "layers.{}.mlp.dense_4h_to_h": "blocks.{}.mlp.down",
            "final_layer_norm": "norm",
        },
        head="embed_out",
        by_head=True,
    ),
    "gpt2": Family(
        architecture="GPT2LMHeadModel",
        common=LEARNED_POSITIONS | {"qkv_bias": True},
        keys=GPT2_KEYS,
        defaults=GPT2_DEFAULTS | {"tie_word_embeddings": True},
        write=lambda config: {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
        refused={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
        prefix="transformer.",
        modules={
            "wte": "embed",
            "wpe": "position",
            "h.{}.ln_1": "blocks.{}.norm",
            "h.{}.attn.c_attn": QKV,
            "h.{}.attn.c_proj": "blocks.{}.attention.out",
            "h.{}.ln_2": "blocks.{}.mlp_norm",
            "h.{}.mlp.c_fc": "blocks.{}.mlp.up",
            "h.{}.mlp.c_proj": "blocks.{}.mlp.down",
            "ln_f": "norm",
        },
        transposed=True,
    ),
    "llama": Family(
        architecture="LlamaForCausalLM",
        common={
            "parallel": False,
            "n_norm": 2,
            "norm": "rmsnorm",
            "rotary": "rotate_half",
            "gated": True,
            "head_bias": False,
        },
        keys=LLAMA_KEYS,
        defaults={"num_key_value_heads": None, "head_dim": None, "rms_norm_eps": 1e-6, "hidden_act": "silu"}
        | {"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False},
        read=llama_rope,
        write=llama_keys,
        prefix="model.",
        modules={
            "embed_tokens": "embed",
            "layers.{}.input_layernorm": "blocks.{}.norm",
            "layers.{}.self_attn.q_proj": "blocks.{}.attention.q",
            "layers.{}.self_attn.k_proj": "blocks.{}.attention.k",
            "layers.{}.self_attn.v_proj": "blocks.{}.attention.v",
            "layers.{}.self_attn.o_proj": "blocks.{}.attention.out",
            "layers.{}.post_attention_layernorm": "blocks.{}.mlp_norm",
            "layers.{}.mlp.gate_proj": "blocks.{}.mlp.gate",
            "layers.{}.mlp.up_proj": "blocks.{}.mlp.up",
            "layers.{}.mlp.down_proj": "blocks.{}.mlp.down",
            "norm": "norm",
        },
    ),
}


def stored_tensors(config: GPTConfig, weights: Collection[str]) -> Iterator[StoredTensor]:
    """The tensors of a model's file, in the order in which they are written, given our names of all its weights."""
    family = FAMILIES[config.family]
    modules = {family.prefix + theirs: module for theirs, module in family.modules.items()} | {family.head: "head"}
    for theirs, module in modules.items():
        for layer in map(str, range(config.n_layer) if "{}" in theirs else [0]):
            for kind in ("weight", "bias"):
                parts = tuple(f"{part}.{kind}".replace("{}", layer) for part in module.split())
                if parts[0] in weights:
                    transposed = family.transposed and kind == "weight" and "norm" not in module and "{}" in module
                    name = f"{theirs}.{kind}".replace("{}", layer)
                    yield StoredTensor(name, parts, family.by_head and len(parts) > 1, transposed)


def from_hugging_face(values: Values) -> GPTConfig:
    """The configuration that `config.json` describes. Raises ValueError for an unknown family, a missing key or a
    setting that the model does not implement."""
    kind = values.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(f"model_type is {kind!r}; bluejay reads {', '.join(map(repr, FAMILIES))}")
    family = FAMILIES[kind]
    for key, only in family.refused.items():
        if values.get(key, only) != only:
            raise ValueError(f"{key} is {values[key]!r}; bluejay reads {kind} models where it is {only!r}")
    activation = values.get(family.keys["activation"], family.defaults[family.keys["activation"]])
    if activation not in ACTIVATIONS:
        raise ValueError(f"{family.keys['activation']} is {activation!r}; it must be one of {', '.join(ACTIVATIONS)}")
    given = family.defaults | values
    try:
        fields = {ours: given[key] for ours, key in family.keys.items()} | family.read(values)
    except KeyError as missing:
        raise ValueError(f"{missing.args[0]} is missing") from None
    fields |= {"family": kind, "activation": ACTIVATIONS[activation]}
    return check(GPTConfig, family.common | fields, "config")


def to_hugging_face(config: GPTConfig, bos: int, eos: int, dtype: str) -> Values:
    """The contents of `config.json`. `bos` and `eos` are the tokens at the beginning and the end of a text. Raises
    ValueError, naming the field, if `config.json` of the family cannot describe the model."""
    family, fields = FAMILIES[config.family], vars(config.resolved)
    activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == config.activation)
    values = {
        "model_type": config.family,
        "architectures": [family.architecture],
        **{key: fields[ours] for ours, key in family.keys.items()},
        **family.write(config),
        family.keys["activation"]: activation,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "dtype": dtype,
    }
    read_back = vars(from_hugging_face(values).resolved)
    for name, value in fields.items():
        if read_back[name] != value:
            raise ValueError(f"model.{name} is {value}; a {config.family} directory can only store {read_back[name]}")
    return values
