"""The weights of a stored model, in the form that computes: the native engine's, or a module of torch on a device."""

import torch

from bluejay.gpt.formats.layouts import read_model
from bluejay.gpt.formats.tensors import StoredModel
from bluejay.gpt.model import GPT
from bluejay.infer.backends.native import NativeModel, chosen, native_model
from bluejay.machine import free_memory


def device_named(name: str | torch.device) -> torch.device:
    """The torch device of a name; "auto" is a GPU of CUDA or ROCm if there is one, else the CPU.

    Raises ValueError if it does not exist.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError):  # the last two if torch was built without it
        raise ValueError(f"device is {name}, and torch has none of that name here; cpu is always there") from None
    return device


def native_takes(stored: StoredModel, device: torch.device) -> bool:
    """Whether the native engine runs a model whose weights have several types."""
    exact = stored.read("embed.weight").dtype in (torch.float32, torch.bfloat16)
    return device.type == "cpu" and exact and chosen() is not None


def read_weights(stored: StoredModel, device: torch.device, dtype: torch.dtype | None) -> GPT | NativeModel:
    """The weights in their stored type unless `dtype` is given; in torch quantised weights become bfloat16, and those
    of several types float32. Raises ValueError if they do not fit into the device's memory."""
    if stored.packed is not None and dtype is None and device.type == "cpu" and chosen():
        return native_model(stored)
    if stored.packed is not None and dtype is None:
        dtype = torch.bfloat16
    elif stored.dtype is None and dtype is None and not native_takes(stored, device):
        dtype = torch.float32  # torch multiplies no matrices of different types
    try:
        return read_model(stored, device, dtype)
    except torch.OutOfMemoryError:
        raise ValueError(f"the model does not fit into the memory of {device}; the device cpu may have more") from None


def free_bytes(weights: GPT | NativeModel) -> int:
    """Bytes of free memory on the device that computes with the weights."""
    device = weights.embed.weight.device if isinstance(weights, GPT) else torch.device("cpu")
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
