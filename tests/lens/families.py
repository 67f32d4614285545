"""A small model of each family, with the same weights everywhere and no bias or norm at its neutral start."""

import dataclasses

import numpy as np
import torch

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.model import GPT
from bluejay.gpt.presets import GPT2, GPT_J, GPT_NEO, GPT_NEOX, LLAMA, QWEN3

SIZE = {"n_layer": 2, "d_model": 16, "n_head": 2, "vocab_size": 259, "n_ctx": 24}
FAMILIES: dict[str, GPTConfig] = {
    "gptj": dataclasses.replace(GPT_J, **SIZE, rotary_dim=4),
    "gpt_neo": dataclasses.replace(GPT_NEO, **SIZE, window=3, local_layers=(1,)),
    "gpt_neox": dataclasses.replace(GPT_NEOX, **SIZE, rotary_dim=2),
    "gpt_neox_serial": dataclasses.replace(GPT_NEOX, **SIZE, rotary_dim=4, parallel=False, activation="gelu"),
    "gpt2": dataclasses.replace(GPT2, **SIZE),
    "llama": dataclasses.replace(LLAMA, **SIZE | {"n_head": 4, "d_ff": 24}, n_kv_head=2, head_dim=8, rotary_dim=8),
    "qwen3": dataclasses.replace(QWEN3, **SIZE | {"n_head": 4, "d_ff": 24}, n_kv_head=2, head_dim=8, rotary_dim=8),
}
TOKENS = [258, 104, 101, 257, 104, 101, 99]


def random_gpt(name: str) -> GPT:
    """The model of a family; numpy's generator keeps its numbers from version to version."""
    gpt, generator = GPT(FAMILIES[name]), np.random.default_rng(7)
    with torch.no_grad():
        for weight_name, weight in sorted(gpt.named_parameters()):
            value = generator.standard_normal(weight.shape) * (0.3 if weight.dim() == 2 else 0.2)
            value += weight_name.endswith("norm.weight")
            weight.copy_(torch.from_numpy(value))
    return gpt.requires_grad_(False).eval()
