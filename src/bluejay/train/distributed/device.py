"""The device of a process: which one it is, what it is good at, and whether its memory is enough."""

import os
from collections.abc import Generator
from contextlib import contextmanager

import torch
import torch.distributed as dist

OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED")
"""Words by which errors of torch and of the libraries beneath it can be recognised as a lack of memory."""


def own_device() -> torch.device:
    """The GPU of this process, or the CPU. A scheduler may let each process see its own GPU alone; torchrun lets all
    of a host's processes see the same ones. Raises ValueError if there are more processes than GPUs."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if count == 1 and not dist.is_torchelastic_launched():
        local = 0
    if local >= count:
        raise ValueError(
            f"process {local} of this host has no GPU of its own: at most as many processes as there are visible GPUs, "
            f"{count}, can train here"
        )
    return torch.device("cuda", local)


def reads_late(device: torch.device) -> bool:
    """Whether the figures of a step are read only after the next step is launched, so that the device never idles."""
    return device.type != "cpu"


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32.

    On x86 processors without bfloat16 instructions it is up to a hundred times slower; GPUs without them emulate it.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return device.type != "cpu" or any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@contextmanager
def within_memory() -> Generator[None]:
    """Turn an error about a lack of memory into a ValueError that says what helps."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        kinds = (MemoryError, torch.OutOfMemoryError)
        if not isinstance(error, kinds) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise ValueError(
            "the device has too little memory; lower train.micro_batch_tokens, set train.recompute or take a "
            "smaller model; `bluejay plan RECIPE` says what fits"
        ) from error
