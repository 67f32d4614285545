"""The weights of a stored model, in the form that computes: the native engine's, or a module of torch on a device."""

import os

import torch
from torch import nn

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.layouts import read_model
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.gpt.model import GPT, Linear
from bluejay.gpt.quantization.linear import PackedLinear
from bluejay.infer.backends.native import NativeModel, chosen, native_model
from bluejay.machine import free_memory
from bluejay.progress import progress

IMPORTED_IN = os.getpid()
"""The process that imported this module; those that are forked from it have other numbers."""
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""Types that weights may be converted to."""
CACHE_SHARE = 0.9
"""Share of the free memory that the cache of a server takes at most."""
SHORT_SHARE = 0.5
"""The same on a CPU where that share does not hold all samples: other programs need memory, too."""
LEAST_CACHE = 256
"""Tokens that a cache is made for where there is memory for none: the error then says how much they need."""


def device_named(name: str | torch.device) -> torch.device:
    """The torch device of a name; "auto" is a GPU of CUDA or ROCm if there is one, else the CPU.

    Raises ValueError if it does not exist.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError, TypeError):  # the second two if torch was built without it
        raise ValueError(f"device is {name}, and torch has none of that name here; cpu is always there") from None
    return device


def dtype_named(name: str | torch.dtype | None) -> torch.dtype | None:
    """The torch type of a name, such as "bfloat16"; None, for the type in which weights are stored, for "auto".

    Raises ValueError if weights cannot be of that type.
    """
    if name is None or name == "auto":
        return None
    dtype = getattr(torch, name.removeprefix("torch."), None) if isinstance(name, str) else name
    if dtype not in FLOATS:
        raise ValueError(f"dtype is {name}; it must be one of {', '.join(map(str, FLOATS))}, or auto, as stored")
    return dtype


def native_takes(stored: StoredModel, device: torch.device) -> bool:
    """Whether the native engine runs a model whose weights have several types."""
    exact = stored.read("embed.weight").dtype in (torch.float32, torch.bfloat16)
    return device.type == "cpu" and exact and chosen() is not None


def read_weights(stored: StoredModel, device: torch.device, dtype: torch.dtype | None) -> GPT | NativeModel:
    """The weights in their stored type unless `dtype` is given. In torch quantised weights become bfloat16 on a CPU and
    stay packed on other devices; those of several types become float32. Raises ValueError if they do not fit into the
    device's memory."""
    if os.getpid() != IMPORTED_IN:
        torch.set_num_threads(1)  # torch would wait for ever for OpenMP's other threads, which a fork does not have
    if stored.packed is not None and dtype is None and device.type == "cpu" and chosen():
        return native_model(stored)
    packs = stored.packed is not None and dtype is None and device.type != "cpu"
    if stored.packed is not None and dtype is None:
        dtype = torch.bfloat16
    elif stored.dtype is None and dtype is None and not native_takes(stored, device):
        dtype = torch.float32  # torch multiplies no matrices of different types
    try:
        return read_packed_model(stored, device) if packs else read_model(stored, device, dtype)
    except torch.OutOfMemoryError:
        raise ValueError(f"the model does not fit into the memory of {device}; the device cpu may have more") from None


def read_packed_model(stored: StoredModel, device: torch.device) -> GPT:
    """A quantised model whose matrices stay packed, as `bluejay.gpt.quantization.linear` multiplies by them; all other
    weights, the embedding and the head are in bfloat16."""
    assert stored.packed is not None
    with torch.device("meta"):
        model = GPT(stored.config)
    with progress("load", stored.config.n_parameters, "weights") as bar:
        for name, module in list(model.named_modules()):
            for kind, parameter in list(module.named_parameters(recurse=False)):
                if not isinstance(module, Linear) or kind != "weight":
                    weight = stored.read(f"{name}.{kind}").to(device, torch.bfloat16)
                    setattr(module, kind, nn.Parameter(weight, requires_grad=False))
                bar.advance(parameter.numel())
            if isinstance(module, Linear):
                packed = stored.packed(f"{name}.weight")
                assert packed is not None
                model.set_submodule(name, PackedLinear(packed, module.bias).to(device))
    return model.requires_grad_(False)


def cache_lengths(weights: GPT | NativeModel, lengths: list[int]) -> list[int]:
    """The lengths of the sequences that a server's cache holds: those given, or if the free memory does not hold them,
    one of as many tokens as a share of it holds. Requests that find no room then wait for it."""
    free, embed = free_bytes(weights), weights.embed.weight if isinstance(weights, GPT) else None
    each = token_bytes(weights.config, torch.bfloat16 if embed is None else embed.dtype)
    is_short = sum(lengths) * each > CACHE_SHARE * free
    on_cpu = embed is None or embed.device.type == "cpu"
    return within(int((SHORT_SHARE if is_short and on_cpu else CACHE_SHARE) * free), lengths, each)


def within(n_bytes: int, lengths: list[int], bytes_per_token: int) -> list[int]:
    """The lengths of sequences if `n_bytes` hold all their tokens; else the length of one sequence of as many tokens as
    they hold, but no less than LEAST_CACHE."""
    most = n_bytes // bytes_per_token
    return lengths if sum(lengths) <= most else [max(most, min(LEAST_CACHE, sum(lengths)))]


def token_bytes(config: GPTConfig, dtype: torch.dtype) -> int:
    """Bytes of the keys and values of one token."""
    return 2 * config.n_layer * config.kv_heads * config.d_head * dtype.itemsize


def free_bytes(weights: GPT | NativeModel) -> int:
    """Bytes of free memory on the device that computes with the weights."""
    device = weights.embed.weight.device if isinstance(weights, GPT) else torch.device("cpu")
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
