"""Configuration keys and weight names of each family in the Hugging Face layout, one table per family.

Only this file and the readers of other file formats depend on the family of a model.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.rotary import ROPE_KEYS, llama_keys, llama_rope, neox_keys, neox_rope
from bluejay.gpt.formats.values import REFUSED, Values, flag, positive, refuse, whole, wrong
from bluejay.gpt.formats.windows import (
    QWEN_WINDOW_KEYS,
    mistral_keys,
    mistral_window,
    neo_locals,
    neo_types,
    qwen_keys,
    qwen_window,
)
from bluejay.recipe import check

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "gelu_python": "gelu",
    "gelu_accurate": "gelu_tanh",
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
    """Fields of GPTConfig that do not correspond to a single key, from `config.json` with the `defaults`."""
    write: Callable[[GPTConfig], Values] = lambda config: {}
    """Keys of `config.json` that do not correspond to a single field."""
    own_keys: tuple[str, ...] = ()
    """Further keys of `config.json` that `read` understands."""


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
    whole_head = whole(values, "n_embd") // whole(values, "n_head")
    return {"rotary_dim": whole({"rotary_dim": 64} | values, "rotary_dim", whole_head)}


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
ATTENTION_BIAS = {"qkv_bias": "attention_bias", "out_bias": "attention_bias"}
NEOX_KEYS = GPT2_KEYS | {
    "n_layer": "num_hidden_layers",
    "d_model": "hidden_size",
    "n_head": "num_attention_heads",
    "d_ff": "intermediate_size",
    "n_ctx": "max_position_embeddings",
    "norm_eps": "layer_norm_eps",
    "activation": "hidden_act",
    "parallel": "use_parallel_residual",
    **ATTENTION_BIAS,
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
}
LLAMA_DEFAULTS = {"num_key_value_heads": None, "head_dim": None, "rms_norm_eps": 1e-6, "hidden_act": "silu"}
LLAMA_DEFAULTS |= {"tie_word_embeddings": False}
GPT2_DEFAULTS = {"n_inner": None, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"}
FLAGS = ("tied", "qkv_bias", "out_bias", "mlp_bias", "parallel")
"""Fields of GPTConfig that are true or false."""
OPTIONAL = ("d_ff", "n_kv_head", "head_dim")
"""Fields of GPTConfig that follow from others if they are null."""
QKV = "blocks.{}.attention.q blocks.{}.attention.k blocks.{}.attention.v"
LEARNED_POSITIONS = {
    "parallel": False,
    "n_norm": 2,
    "rotary": "none",
    "learned_positions": True,
    "out_bias": True,
    "head_bias": False,
}

LLAMA = Family(
    architecture="LlamaForCausalLM",
    common={
        "parallel": False,
        "n_norm": 2,
        "norm": "rmsnorm",
        "rotary": "rotate_half",
        "gated": True,
        "head_bias": False,
    },
    keys=LLAMA_KEYS | ATTENTION_BIAS | {"mlp_bias": "mlp_bias"},
    defaults=LLAMA_DEFAULTS | {"attention_bias": False, "mlp_bias": False},
    read=llama_rope,
    own_keys=ROPE_KEYS,
    write=llama_keys,
    prefix="model.",
    modules={
        "embed_tokens": "embed",
        "layers.{}.input_layernorm": "blocks.{}.norm",
        "layers.{}.self_attn.q_proj": "blocks.{}.attention.q",
        "layers.{}.self_attn.k_proj": "blocks.{}.attention.k",
        "layers.{}.self_attn.v_proj": "blocks.{}.attention.v",
        "layers.{}.self_attn.q_norm": "blocks.{}.attention.q_norm",
        "layers.{}.self_attn.k_norm": "blocks.{}.attention.k_norm",
        "layers.{}.self_attn.o_proj": "blocks.{}.attention.out",
        "layers.{}.post_attention_layernorm": "blocks.{}.mlp_norm",
        "layers.{}.mlp.gate_proj": "blocks.{}.mlp.gate",
        "layers.{}.mlp.up_proj": "blocks.{}.mlp.up",
        "layers.{}.mlp.down_proj": "blocks.{}.mlp.down",
        "norm": "norm",
    },
)
"""Llama's layout, of which Mistral's, Qwen2's and Qwen3's are variants in which no key states some biases."""

QWEN2 = replace(
    LLAMA,
    architecture="Qwen2ForCausalLM",
    common=LLAMA.common | {"mlp_bias": False, "qkv_bias": True},
    keys=LLAMA_KEYS,
    defaults=LLAMA_DEFAULTS,
    read=lambda values: llama_rope(values) | qwen_window(values),
    own_keys=(*ROPE_KEYS, *QWEN_WINDOW_KEYS),
    write=lambda config: llama_keys(config) | qwen_keys(config),
)

FAMILIES = {
    "gptj": Family(
        architecture="GPTJForCausalLM",
        common={},
        keys=GPT2_KEYS,
        defaults=GPT2_DEFAULTS | {"tie_word_embeddings": False},
        read=gptj_rotary,
        own_keys=("rotary_dim",),
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
        own_keys=("attention_types", "attention_layers"),
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
        own_keys=ROPE_KEYS,
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
    "llama": LLAMA,
    "mistral": replace(
        LLAMA,
        architecture="MistralForCausalLM",
        common=LLAMA.common | {"mlp_bias": False},
        keys=LLAMA_KEYS,
        defaults=LLAMA_DEFAULTS,
        read=lambda values: llama_rope(values) | mistral_window(values),
        own_keys=(*ROPE_KEYS, "sliding_window", "layer_types"),
        write=lambda config: llama_keys(config) | mistral_keys(config),
    ),
    "qwen2": QWEN2,
    "qwen3": replace(
        QWEN2,
        architecture="Qwen3ForCausalLM",
        common=LLAMA.common | {"mlp_bias": False, "qk_norm": True},
        keys=LLAMA_KEYS | ATTENTION_BIAS,
        defaults=LLAMA_DEFAULTS | {"attention_bias": False, "head_dim": 128},
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


def family_of(values: Values) -> str:
    """The family that `config.json` names by `model_type`, or in the oldest files only by `architectures`. Raises
    ValueError for another one."""
    kind, classes = values.get("model_type"), values.get("architectures")
    if kind is None and isinstance(classes, list):
        kind = next((name for name, family in FAMILIES.items() if family.architecture in classes), None)
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"model_type is {kind!r}; bluejay reads {', '.join(map(repr, FAMILIES))}")
    return kind


def known_keys(values: Values) -> set[str]:
    """The keys of `config.json` that are understood in the family that it names."""
    family = FAMILIES[family_of(values)]
    return {*family.keys.values(), *family.own_keys, *REFUSED}


def from_hugging_face(values: Values) -> GPTConfig:
    """The configuration that `config.json` describes. Raises ValueError, naming the key, for an unknown family, a
    missing or wrong value, or a setting that the model does not implement."""
    kind = family_of(values)
    family = FAMILIES[kind]
    refuse(values, {key: only for key, only in REFUSED.items() if key not in family.own_keys}, kind)
    given = values | {key: value for key, value in family.defaults.items() if values.get(key) is None}
    fields = {ours: field_value(given, ours, key) for ours, key in family.keys.items()}
    return check(GPTConfig, family.common | {"family": kind} | fields | family.read(given), "config")


def field_value(values: Values, ours: str, key: str) -> Any:
    """The value of a field of GPTConfig, from its key. Raises ValueError, naming the key, if it is of a wrong kind."""
    if ours == "activation":
        if not isinstance(values.get(key), str) or values[key] not in ACTIVATIONS:
            raise ValueError(wrong(values, key, f"one of {', '.join(ACTIVATIONS)}"))
        return ACTIVATIONS[values[key]]
    if ours == "norm_eps":
        return positive(values, key)
    if ours in FLAGS:
        return flag(values, key)
    return None if ours in OPTIONAL and values.get(key) is None else whole(values, key)


def to_hugging_face(config: GPTConfig, bos: int, eos: int | list[int], dtype: str) -> Values:
    """The contents of `config.json`. `bos` and `eos` are the tokens at the beginning and the ends of a text. Raises
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
        "torch_dtype": dtype,  # its name before transformers 4.56
    }
    read_back = vars(from_hugging_face(values).resolved)
    for name, value in fields.items():
        if read_back[name] != value:
            raise ValueError(f"model.{name} is {value}; a {config.family} directory can only store {read_back[name]}")
    return values
