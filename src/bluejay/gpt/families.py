"""How a model family writes its configuration and names its weights in the Hugging Face layout."""

from typing import Any

from bluejay.gpt.config import GPTConfig
from bluejay.recipe import check

# Our name -> the name in `model.safetensors`; `{}` is the number of the layer.
GPTJ_WEIGHTS = {
    "embed.weight": "transformer.wte.weight",
    "blocks.{}.norm.weight": "transformer.h.{}.ln_1.weight",
    "blocks.{}.norm.bias": "transformer.h.{}.ln_1.bias",
    "blocks.{}.attention.q.weight": "transformer.h.{}.attn.q_proj.weight",
    "blocks.{}.attention.k.weight": "transformer.h.{}.attn.k_proj.weight",
    "blocks.{}.attention.v.weight": "transformer.h.{}.attn.v_proj.weight",
    "blocks.{}.attention.out.weight": "transformer.h.{}.attn.out_proj.weight",
    "blocks.{}.mlp.up.weight": "transformer.h.{}.mlp.fc_in.weight",
    "blocks.{}.mlp.up.bias": "transformer.h.{}.mlp.fc_in.bias",
    "blocks.{}.mlp.down.weight": "transformer.h.{}.mlp.fc_out.weight",
    "blocks.{}.mlp.down.bias": "transformer.h.{}.mlp.fc_out.bias",
    "norm.weight": "transformer.ln_f.weight",
    "norm.bias": "transformer.ln_f.bias",
    "head.weight": "lm_head.weight",
    "head.bias": "lm_head.bias",
}


def weight_names(config: GPTConfig) -> dict[str, str]:
    """Our name of every weight, and Hugging Face's."""
    return {
        ours.format(layer): theirs.format(layer)
        for ours, theirs in GPTJ_WEIGHTS.items()
        for layer in (range(config.n_layer) if "{}" in ours else [0])
    }


def to_hugging_face(config: GPTConfig, eot: int, dtype: str) -> dict[str, Any]:
    """The contents of `config.json`; `eot` is the end-of-text token, which GPT-J also begins with."""
    return {
        "model_type": "gptj",
        "architectures": ["GPTJForCausalLM"],
        "n_layer": config.n_layer,
        "n_embd": config.d_model,
        "n_head": config.n_head,
        "n_inner": config.d_ff,
        "vocab_size": config.vocab_size,
        "n_positions": config.n_ctx,
        "rotary_dim": config.n_rotary,
        "layer_norm_epsilon": config.norm_eps,
        "activation_function": "gelu_new",
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": False,
        "bos_token_id": eot,
        "eos_token_id": eot,
        "dtype": dtype,
    }


def from_hugging_face(values: dict[str, Any]) -> GPTConfig:
    """A configuration from `config.json`. Raises ValueError for what is not a GPT-J or misses a field."""
    kind = values.get("model_type")
    if kind != "gptj":
        raise ValueError(f"model_type is {kind!r}; bluejay reads 'gptj'")
    if values.get("activation_function", "gelu_new") not in ("gelu_new", "gelu_pytorch_tanh"):
        raise ValueError(f"activation_function is {values['activation_function']!r}; GPT-J's is 'gelu_new'")
    if values.get("tie_word_embeddings"):
        raise ValueError("tie_word_embeddings is true; GPT-J's head is a matrix of its own")
    try:
        # Hugging Face's default is 64; null means the whole head.
        rotary_dim = values.get("rotary_dim", 64)
        fields = {
            "n_layer": values["n_layer"],
            "d_model": values["n_embd"],
            "n_head": values["n_head"],
            "d_ff": values.get("n_inner"),
            "vocab_size": values["vocab_size"],
            "n_ctx": values["n_positions"],
            "rotary_dim": values["n_embd"] // values["n_head"] if rotary_dim is None else rotary_dim,
            "norm_eps": values.get("layer_norm_epsilon", 1e-5),
        }
    except KeyError as missing:
        raise ValueError(f"{missing.args[0]} is missing") from None
    return check(GPTConfig, fields, "config")
