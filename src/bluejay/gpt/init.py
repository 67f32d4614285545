"""Random initialisation of a new model.

| weight                      | distribution                              | source                              |
| --------------------------- | ----------------------------------------- | ----------------------------------- |
| q, k, v, MLP up, gate, head | normal, 1 / sqrt(D), cut at two sigma     | mesh-transformer-jax, `layers.py`   |
| attention out, MLP down     | normal, 2 / (L sqrt(D)), cut at two sigma | `layers.py` ("wang init", GPT-NeoX) |
| embedding, positions        | normal, 0.02, cut at four sigma           | GPT-2, uncut; GPT-J used 1/ sqrt(V) |
| biases 0, norm weights 1    |                                           |                                     |

A weight is a function of the seed, the name of its tensor and its place in it, so each process draws only the part that
it holds, and the model is the same on any mesh and device. The bits are those of SplitMix64 (Steele, Lea and Flood
2014, "Fast splittable pseudorandom number generators", figure 17), whose n-th number needs no other; a table of
quantiles makes them normal. Every operation on them is exact or rounded as IEEE 754 says, so no bit depends on the
device.
"""

import hashlib
import math
from functools import lru_cache
from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.model import GPT

INDEX_BITS = 14
"""The table of quantiles has 2 to the power of this many intervals, of equal probability."""
FRACTION_BITS = 24
"""Bits of the place within an interval: those of a float32."""
DRAWN_AT_ONCE = {"cpu": 1 << 15, "cuda": 1 << 24}
"""Weights drawn in one go: on a CPU, as many as stay in its cache."""


def new_model(config: GPTConfig, seed: int, device: str | torch.device = "cpu") -> GPT:
    """A GPT with random float32 weights, which depend only on the configuration and the seed, not on the device."""
    with torch.device("meta"):
        model = GPT(config)
    model.to_empty(device=device)
    for name, parameter in model.named_parameters():
        region = tuple(slice(0, size) for size in parameter.shape)
        parameter.data.copy_(draw(config, seed, name, parameter.shape, region, device))
    return model


def draw(
    config: GPTConfig,
    seed: int,
    name: str,
    shape: tuple[int, ...],
    region: tuple[slice, ...],
    device: str | torch.device = "cpu",
) -> Tensor:
    """A region of the float32 weight `name` of a new model, of which `shape` is the whole shape. Each slice of `region`
    has a start and an end, and there is one for each dimension."""
    sizes = [part.stop - part.start for part in region]
    if name.endswith("bias"):
        return torch.zeros(sizes, device=device)
    if "norm" in name:
        return torch.ones(sizes, device=device)
    std, cut = 0.02, 4
    if name not in ("embed.weight", "position.weight"):
        residual = name.endswith(("out.weight", "down.weight"))
        std, cut = (2 / config.n_layer if residual else 1.0) / math.sqrt(config.d_model), 2
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    key = int.from_bytes(digest, "little", signed=True)
    rows, columns = region
    result = torch.empty(sizes, device=device)
    at_once = max(1, DRAWN_AT_ONCE[result.device.type] // max(1, sizes[1]))
    within = torch.arange(columns.start, columns.stop, device=device)
    for first in range(rows.start, rows.stop, at_once):
        some = result[first - rows.start : first - rows.start + at_once]
        before = torch.arange(first, first + len(some), device=device) * shape[1]
        some.copy_(cut_normal(split_mix(before[:, None] + within, key), cut)).mul_(std)
    return result


def split_mix(counters: Tensor, key: int) -> Tensor:
    """The 64 random bits of each counter, in an int64. Overwrites the counters. The constants are the paper's."""
    state = counters.add_(1).mul_(signed(0x9E3779B97F4A7C15)).add_(key)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state.bitwise_xor_(shifted(state, shift)).mul_(signed(factor))
    return state.bitwise_xor_(shifted(state, 31))


def signed(bits: int) -> int:
    """The int64 that has the same 64 bits as an unsigned number."""
    return bits - (1 << 64) if bits >> 63 else bits


def shifted(bits: Tensor, by: int) -> Tensor:
    """Bits shifted to the right, with zeros from the left; torch repeats the sign."""
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1)


def cut_normal(bits: Tensor, cut: int) -> Float[Tensor, "..."]:
    """Float32 values of the standard normal distribution within `cut` sigma, one for each int64 of random bits: the
    highest bits select an interval of equal probability, the lowest the place within it."""
    interval = shifted(bits, 64 - INDEX_BITS).flatten()  # `index_select` is faster than an index, and takes a list
    place = (bits & ((1 << FRACTION_BITS) - 1)).float().mul_(2**-FRACTION_BITS)
    ends = (part.to(bits.device) for part in quantiles(cut))
    low, width = (part.index_select(0, interval).view_as(place) for part in ends)
    return place.mul_(width).add_(low)


@lru_cache
def quantiles(cut: int) -> tuple[Float[Tensor, " intervals"], Float[Tensor, " intervals"]]:
    """The lower end and the width of the intervals that divide the normal distribution within `cut` sigma into equal
    probabilities."""
    normal, count = NormalDist(), 1 << INDEX_BITS
    least = normal.cdf(-cut)
    inner = [normal.inv_cdf(least + (1 - 2 * least) * number / count) for number in range(1, count)]
    ends = torch.tensor([-cut, *inner, cut], dtype=torch.float32)
    return ends[:-1], ends.diff()
