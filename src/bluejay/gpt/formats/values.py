"""Values of a model's JSON files, checked before anything is computed from them, and the keys that are known."""

import sys
from collections.abc import Collection
from typing import Any, TypeGuard

Values = dict[str, Any]

REFUSED: Values = {
    "quantization_config": None,
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "is_causal": True,
    "use_bidirectional_attention": False,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "sliding_window": None,
    "use_mrope": False,
    "rope_interleaved": False,
    "alibi": False,
    "clip_qkv": None,
    "use_qk_norm": False,
    "qk_layernorm": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "logit_scale": 1.0,
    "logits_scaling": 1.0,
    "embedding_multiplier": 1.0,
    "residual_multiplier": 1.0,
    "attention_multiplier": None,
    "num_experts": None,
    "num_local_experts": None,
}
"""Key of `config.json` that changes the arithmetic -> the only value that is accepted if the key is present."""
_HARMLESS = """
    _attn_implementation _attn_implementation_autoset _name_or_path _num_labels architectures attention_dropout
    attention_probs_dropout_prob custom_pipelines hidden_dropout_prob keys_to_ignore_at_inference max_sequence_length
    n_special predict_special_tokens
    attn_pdrop auto_map bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward classifier_dropout
    cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype early_stopping embd_pdrop
    embed_dropout encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task
    forced_bos_token_id forced_eos_token_id gradient_checkpointing hidden_dropout id2label initializer_range is_decoder
    is_llama_config label2id length_penalty max_length min_length model_type n_ctx no_repeat_ngram_size num_beam_groups
    num_beams num_return_sequences output_attentions output_hidden_states output_past output_scores pad_token_id prefix
    pretraining_tp problem_type pruned_heads remove_invalid_values reorder_and_upcast_attn repetition_penalty
    resid_dropout resid_pdrop return_dict return_dict_in_generate rotary sep_token_id summary_activation
    summary_first_dropout summary_proj_to_labels summary_type summary_use_proj suppress_tokens task_specific_params
    temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript
    transformers.js_config transformers_version typical_p unsloth_fixed unsloth_version use_bfloat16 use_cache
"""
HARMLESS = frozenset(_HARMLESS.split())
"""Keys of `config.json` that do not change the arithmetic of inference."""


def whole(values: Values, key: str, default: int | None = None) -> int:
    """A whole number of at least 1. A missing key or null gives the default. Raises ValueError, naming the key."""
    value = values.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not int or not 1 <= value < 2**63:
        raise ValueError(wrong(values, key, "a whole number of at least 1"))
    return value


def positive(values: Values, key: str, default: float | None = None) -> float:
    """A positive number. A missing key or null gives the default. Raises ValueError, naming the key."""
    value = values.get(key)
    if value is None and default is not None:
        return default
    if not is_number(value) or value <= 0:
        raise ValueError(wrong(values, key, "a positive number"))
    return float(value)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number that a float can be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def flag(values: Values, key: str) -> bool:
    """True or false. Raises ValueError, naming the key."""
    if not isinstance(values.get(key), bool):
        raise ValueError(wrong(values, key, "true or false"))
    return values[key]


def wrong(values: Values, key: str, expected: str) -> str:
    """A sentence about a key that does not hold what it should."""
    if key not in values:
        return f"{key} is missing"
    return f"{key} is {'null' if values[key] is None else repr(values[key])}; it must be {expected}"


def refuse(values: Values, refused: Values, kind: str) -> None:
    """Raise ValueError for a key that changes the arithmetic in a way that is not implemented."""
    for key, only in refused.items():
        value = values.get(key)
        if value is None or value == only or not (value or only):
            continue
        if key == "quantization_config":
            method = value.get("quant_method", "a method without a name") if isinstance(value, dict) else repr(value)
            raise ValueError(
                f"its weights are quantised ({method}); bluejay reads those that are not, such as those of the model "
                "that this one was made of, and its own"
            )
        raise ValueError(f"{key} is {value!r}; bluejay reads {kind} models where it is {only!r}")


def unknown_keys(values: Values, known: Collection[str]) -> list[str]:
    """The keys that are not known and that say something: more than null or an empty list."""
    told = (key for key, value in values.items() if value not in (None, [], {}, ""))
    return sorted(key for key in told if key not in known and key not in HARMLESS)
