"""What the checks share: their settings, clocks, random models and random batches."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.model import GPT
from bluejay.train.data.batches import TrainBatch

H100_PEAK = 989e12
"""FLOP/s of dense bfloat16 products by the data sheet of the H100 SXM."""

Value = TypeVar("Value")
Row = dict[str, object]
Measure = Callable[[], Iterable[Row]]


@dataclass(frozen=True)
class Setting:
    """Where the checks run and how large they are."""

    device: torch.device
    tiny: bool
    """Whether sizes are those of a rehearsal on a CPU."""
    traced: bool = False
    """Whether a rehearsal traces what a real run compiles, in place of running it eagerly."""
    peak: float = H100_PEAK
    """FLOP/s of a large bfloat16 product, measured on this device."""

    def pick(self, full: Value, tiny: Value) -> Value:
        """The value for a real device, or the one for a rehearsal."""
        return tiny if self.tiny else full


@dataclass(frozen=True)
class Check:
    """One check. `prepare` builds and compiles; what it returns measures, while nothing else runs on the device."""

    number: str
    name: str
    prepare: Callable[[Setting], Measure]


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def milliseconds(call: Callable[[], object], setting: Setting, repeats: int = 10, warmups: int = 3) -> float:
    """Median time of a call."""
    repeats, warmups = setting.pick((repeats, warmups), (1, 1))
    for _ in range(warmups):
        call()
    synchronize(setting.device)
    if setting.device.type != "cuda":
        taken = []
        for _ in range(repeats):
            began = time.perf_counter()
            call()
            taken.append(1e3 * (time.perf_counter() - began))
        return statistics.median(taken)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    events[0].record()
    for event in events[1:]:
        call()
        event.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in itertools.pairwise(events))


def peak_memory(device: torch.device, restart: bool = False) -> float:
    """The most memory in GB that tensors have taken since the last restart; 0 on a CPU."""
    if device.type != "cuda":
        return 0.0
    if restart:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return torch.cuda.max_memory_allocated() / 1e9


def random_model(config: GPTConfig, setting: Setting, dtype: torch.dtype = torch.float32) -> GPT:
    """A model whose weights are drawn on the device; they are the same for the same configuration and device."""
    with torch.device("meta"):
        model = GPT(config).to(dtype)
    model.to_empty(device=setting.device)
    generator = torch.Generator(setting.device).manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 0.02, generator=generator)
            else:
                weight.fill_(float("norm" in name and name.endswith("weight")))
    return model


def random_batch(rows: int, length: int, end: int, document: int, seed: int = 0) -> TrainBatch:
    """Sequences of random tokens below `end`, which itself ends documents of `document` tokens on average."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, end, (rows, length + 1), generator=generator)
    tokens[torch.rand(tokens.shape, generator=generator) < 1 / document] = end
    return TrainBatch(tokens[:, :-1], tokens[:, 1:])


KINDS = {
    "attention": ("flash", "fmha", "attention", "sdpa", "flex", "softmax_warp"),
    "products": ("gemm", "nvjet", "cutlass", "xmma", "sm90", "splitk"),
    "optimizer": ("multi_tensor", "adam"),
    "fused": ("triton_",),
    "copies": ("memcpy", "memset", "copy", "cat"),
    "softmax": ("softmax",),
}
"""Parts of a kernel's name, by what it does; the first that fits counts."""


def profiled(call: Callable[[], object], setting: Setting) -> Iterator[Row]:
    """Where the device's time goes in a call: milliseconds and launches by kind of kernel, and the longest kernels."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (setting.device.type == "cuda")
    began = time.perf_counter()
    with profile(activities=activities) as trace:
        call()
        synchronize(setting.device)
    wall = 1e3 * (time.perf_counter() - began)
    kernels = [e for e in trace.key_averages() if e.device_type != torch.autograd.DeviceType.CPU]
    host = [e for e in trace.key_averages() if e.device_type == torch.autograd.DeviceType.CPU]
    kernels.sort(key=lambda e: -e.self_device_time_total)
    spent: dict[str, float] = {}
    launches: dict[str, int] = {}
    for event in kernels:
        name = event.key.lower()
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "elementwise")
        spent[kind] = spent.get(kind, 0.0) + event.self_device_time_total / 1e3
        launches[kind] = launches.get(kind, 0) + event.count
    yield {
        "profile": {kind: round(ms, 3) for kind, ms in sorted(spent.items(), key=lambda item: -item[1])},
        "launches": launches,
        "waits": sum(e.count for e in host if e.key in ("cudaStreamSynchronize", "cudaDeviceSynchronize")),
        "device_ms": round(sum(spent.values()), 2),
        "wall_ms_profiled": round(wall, 2),
        "longest": [[e.key[:90], round(e.self_device_time_total / 1e3, 3), e.count] for e in kernels[:12]],
    }
