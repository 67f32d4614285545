"""Steps of one token for each sequence, whose blocks torch compiles.

Blocks are compiled by themselves, so all layers share the code of one; code for all layers together would copy the
whole cache in each. Storing keys and values and attending to them is one operation (`attend_new`), which the compiler
does not look into.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bluejay.gpt.attention import VisibleRange
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.kernels import Rotation
from bluejay.gpt.model import GPT, Block


@dataclass(frozen=True)
class LayerCache:
    """What one layer sees of the cache in a step of one token for each sequence; satisfies `bluejay.gpt.model.Cache`.
    All sequences have the same number of pages, which may hold keys that are masked."""

    keys_values: Float[Tensor, "2 K slots H"]
    slots: Int[Tensor, " B"]
    """The slot of each new token."""
    pages: Int[Tensor, "B P"]
    """The pages of each sequence; those past its last one stand for masked keys."""
    positions: Int[Tensor, " B"]
    page_size: int
    scale: float
    window: int | None
    """How many tokens a query attends to, itself included; None for all."""
    in_place: bool
    """Whether `attention_in_place` reads the pages, which are copied together otherwise."""

    def attend(
        self, layer: int, q: Float[Tensor, "1 N B H"], k: Float[Tensor, "1 K B H"], v: Float[Tensor, "1 K B H"]
    ) -> Float[Tensor, "1 N B H"]:
        """Store the new keys and values, then let every query attend to the visible keys of its sequence."""
        q, k, v = (x[0].transpose(0, 1) for x in (q, k, v))
        where = self.slots, self.pages, self.positions, self.page_size
        y = attend_new(q, k, v, self.keys_values, *where, self.scale, self.window, self.in_place)
        return y.transpose(0, 1)[None]


@dataclass(frozen=True)
class DecodeCache:
    """The view of the cache in a step of one token for each sequence, which gives each layer its part."""

    keys_values: Float[Tensor, "L 2 K slots H"]
    config: GPTConfig
    slots: Int[Tensor, " B"]
    pages: Int[Tensor, "B P"]
    positions: Int[Tensor, " B"]
    page_size: int
    in_place: bool
    """These five are as in `LayerCache`."""

    def of_layer(self, layer: int) -> LayerCache:
        """The part of a layer."""
        config = self.config
        window = config.window if layer in config.local_layers else None
        where = self.slots, self.pages, self.positions, self.page_size
        return LayerCache(self.keys_values[layer], *where, config.scale, window, self.in_place)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As `LayerCache.attend`."""
        return self.of_layer(layer).attend(layer, q, k, v)


@torch.library.custom_op("bluejay::attend_new", mutates_args={"keys_values"})
def attend_new(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys_values: Tensor,
    slots: Tensor,
    pages: Tensor,
    positions: Tensor,
    page_size: int,
    scale: float,
    window: int | None,
    in_place: bool,
) -> Tensor:
    """Store (B K H) keys and values of one token of each sequence, then attend with its (B N H) queries, as
    `LayerCache` says."""
    keys_values.index_copy_(2, slots, torch.stack((k.transpose(0, 1), v.transpose(0, 1))))
    attend = attention_in_place() if in_place else attend_copied
    return attend(q, keys_values, pages, positions, page_size, scale, window)


attend_new.register_fake(lambda q, *_: torch.empty_like(q, memory_format=torch.contiguous_format))


def attend_copied(
    q: Float[Tensor, "B N H"],
    keys_values: Float[Tensor, "2 K slots H"],
    pages: Int[Tensor, "B P"],
    positions: Int[Tensor, " B"],
    page_size: int,
    scale: float,
    window: int | None,
) -> Float[Tensor, "B N H"]:
    """What each sequence's token attends to, of keys that are copied from the pages first."""
    slots = pages[:, :, None] * page_size + torch.arange(page_size, device=q.device)
    keys, values = keys_values[:, :, slots.flatten(1)].transpose(1, 2)
    distance = positions[:, None] - torch.arange(keys.shape[2], device=q.device)
    mask = distance >= 0
    if window is not None:
        mask &= distance < window
    grouped, mask = q.shape[1] != keys.shape[1], mask[:, None, None]
    return F.scaled_dot_product_attention(
        q[:, :, None], keys, values, attn_mask=mask, scale=scale, enable_gqa=grouped
    ).flatten(1, 2)


def has_attention_in_place(device: torch.device) -> bool:
    """Whether there is `attention_in_place` for a device: on GPUs, with Triton, which comes with torch for them."""
    return device.type == "cuda" and find_spec("triton") is not None


def attention_in_place() -> Callable[..., Tensor]:
    """`attend_copied` that reads pages where they lie (`bluejay.infer.backends.paged`)."""
    from bluejay.infer.backends.paged import attend  # needs Triton

    return attend


def with_compiled_blocks(gpt: GPT) -> GPT:
    """The same model, with the same weights, for `DecodeCache`, whose blocks torch compiles."""
    run, other = torch.compile(run_block), copy.copy(gpt)
    other._modules = gpt._modules | {
        "blocks": nn.ModuleList(CompiledBlock(run, cast(Block, block)) for block in gpt.blocks)
    }
    return other


class CompiledBlock(nn.Module):
    """A block that is called through `run`, which is `run_block`, compiled."""

    def __init__(self, run: Callable[..., Tensor], block: Block) -> None:
        super().__init__()
        self.run, self.block = run, block

    def forward(
        self, x: Tensor, rotation: Rotation | None, _: VisibleRange | None, cache: DecodeCache, __: str
    ) -> Float[Tensor, "1 B D"]:
        own = cache.of_layer(self.block.attention.layer)
        torch._dynamo.maybe_mark_dynamic(own.keys_values, 2)  # compiled code is for a cache of any size
        torch._dynamo.maybe_mark_dynamic(own.pages, 1)
        return self.run(self.block, x, rotation, own)


def run_block(block: Block, x: Tensor, rotation: Rotation | None, cache: LayerCache) -> Tensor:
    """The output of a block for (1 B D) inputs. It is given the cache of its layer, not the number, because torch
    compiles a function anew for each number."""
    return block(x, rotation, None, cache)
