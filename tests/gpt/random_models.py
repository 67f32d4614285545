"""Random models of every family, made by transformers."""

import torch
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

CONFIGS = {
    "gptj": GPTJConfig,
    "gpt_neo": GPTNeoConfig,
    "gpt_neox": GPTNeoXConfig,
    "gpt2": GPT2Config,
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
}
GELUS = st.sampled_from(["gelu_new", "gelu", "relu"])
LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA_3 |= {"original_max_position_embeddings": 32}
YARN = st.fixed_dictionaries(
    {"rope_type": st.just("yarn"), "factor": st.just(4.0), "original_max_position_embeddings": st.just(20)},
    optional={"truncate": st.booleans(), "beta_fast": st.just(4.0), "attention_factor": st.just(1.5)}
    | {"mscale": st.just(0.7), "mscale_all_dim": st.just(1.2)},
)
"""The scalings of positions that are computed, for contexts of a few tokens."""
NO_TOKENS = {"bos_token_id": 0, "eos_token_id": 0}
N_CTX = 96


@st.composite
def family_fields(draw, family: str) -> dict:
    """What a small model of a family may be, in the words of its `config.json`."""
    heads, layers = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    width = draw(st.sampled_from([4, 8, 16, 24]))
    sizes = {"vocab_size": draw(st.integers(260, 300)), "tie_word_embeddings": draw(st.booleans()), **NO_TOKENS}
    context, hidden = draw(st.integers(80, N_CTX)), draw(st.sampled_from([40, 64]))
    match family:
        case "gptj" | "gpt2":
            sizes |= {"n_layer": layers, "n_head": heads, "n_embd": heads * width, "n_positions": context}
            sizes |= {"n_inner": draw(st.sampled_from([None, hidden])), "activation_function": draw(GELUS)}
            if family == "gptj":
                sizes |= {"rotary_dim": draw(st.sampled_from([2, 4, width]))}
        case "gpt_neo":
            kinds = draw(st.lists(st.sampled_from(["global", "local"]), min_size=1, max_size=2))
            sizes |= {"num_layers": layers * len(kinds), "attention_types": [[kinds, layers]], "num_heads": heads}
            sizes |= {"hidden_size": heads * width, "max_position_embeddings": context, "intermediate_size": hidden}
            sizes |= {"window_size": draw(st.integers(1, 20)), "activation_function": draw(GELUS)}
        case "gpt_neox":
            sizes |= {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": heads * width}
            sizes |= {"max_position_embeddings": context, "intermediate_size": hidden, "hidden_act": draw(GELUS)}
            sizes |= {"use_parallel_residual": draw(st.booleans()), "attention_bias": draw(st.booleans())}
            share = {"partial_rotary_factor": draw(st.sampled_from([0.5, 1.0])), "rope_type": "default"}
            sizes |= {"rope_parameters": share | {"rope_theta": draw(st.sampled_from([10000.0, 500.0]))}}
            if draw(st.booleans()):
                sizes["rope_parameters"] |= draw(YARN)
        case "llama" | "mistral" | "qwen2" | "qwen3":
            groups = draw(st.integers(1, 3))
            sizes |= {"num_hidden_layers": layers, "num_attention_heads": heads * groups, "num_key_value_heads": heads}
            sizes |= {
                "hidden_size": heads * groups * draw(st.sampled_from([8, 12])),
                "head_dim": width,
                "intermediate_size": hidden,
            }
            sizes |= {
                "max_position_embeddings": context,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
            }
            if family in ("llama", "qwen3"):
                sizes |= {"attention_bias": draw(st.booleans())}
            if family == "llama":
                sizes |= {"mlp_bias": draw(st.booleans())}
            else:
                sizes |= {"sliding_window": draw(st.none() | st.integers(1, 100))}
            if family in ("qwen2", "qwen3"):
                sizes |= {"use_sliding_window": draw(st.booleans()), "max_window_layers": draw(st.integers(0, layers))}
            sizes["rope_parameters"] |= draw(st.just({}) | st.just(LLAMA_3) | YARN)
    return sizes


def random_model(family: str, fields: dict, seed: int, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model of transformers with weights all over the place, so that no bias or norm is at its neutral start."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[family](**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return model.to(dtype)
