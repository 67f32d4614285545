"""The reference backend: `bluejay.gpt.model` with a cache whose pages lie side by side in one tensor, on any device.

On a CPU the logits of a token depend, to the bit, only on the text before it, whatever else is in the batch and however
the text was divided into steps. A matrix product gives a row the same bits among any number of rows that is a multiple
of ROW_MULTIPLE (in bfloat16 among any number), so rows are padded to that. Attention is computed for each sequence
separately: its queries are cut at multiples of ATTENTION_BLOCK, and each block of queries attends to all keys up to the
next multiple, the later ones masked, so that the number of keys is a function of the position as well.
tests/infer/backends/test_torch.py checks this with the installed torch, on one thread. On other devices the bits depend
on the rest of the batch, and equal seeds almost always give equal text.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.model import GPT
from bluejay.infer import sampling
from bluejay.infer.backends import StepBatch
from bluejay.infer.backends.decoding import DecodeCache, has_attention_in_place, with_compiled_blocks
from bluejay.infer.backends.replay import Replayed
from bluejay.infer.cache import pages_of, pages_of_all
from bluejay.infer.exceptions import CacheError

ROW_MULTIPLE = 16
"""Rows in a matrix product are a multiple of this: 4 suffices on AMD processors, Intel's need 16 (docs/log.md)."""
ATTENTION_BLOCK = 64
"""Queries at positions of the same block of this many positions attend together on a CPU."""
GPU_BLOCK, GPU_PROMPT_FACTOR = 1024, 32
"""The same on other devices, where bits depend on the batch anyway, and how many more tokens of prompts a step has."""
PAGE_SIZE = 32
"""Default number of tokens in a page of the cache."""
KEY_MULTIPLE = 256
"""Compiled steps that copy keys together give each query a multiple of this many."""


def attention_block(device: torch.device) -> int:
    """Positions of a block of attention, by which a cache is longer than its pages."""
    return ATTENTION_BLOCK if device.type == "cpu" else GPU_BLOCK


@dataclass(frozen=True)
class QueryBlock:
    """Queries of one sequence whose positions are in the same block."""

    rows: list[int]
    """Indices of the new tokens, the last one repeated up to a multiple of ROW_MULTIPLE."""
    positions: list[int]
    n_keys: int
    """Number of keys, including masked ones."""
    first: int
    """The slot of the first key if the pages are adjacent, else 0."""
    slots: list[int] | None
    """The slots of all keys if the pages are not adjacent, else None."""


@dataclass(frozen=True)
class BlockGroup:
    """G blocks of Q rows that attend at once to S keys each; the first keys of the blocks are at equal distances."""

    rows: Int[Tensor, " rows"]
    size: tuple[int, int]
    """G and S."""
    first: int
    """The slot of the first key of the first block."""
    distance: int
    """The number of slots from the first key of a block to that of the next block."""
    slots: Int[Tensor, " S"] | None
    """The slots of all keys if they are not adjacent, else None."""
    mask: Bool[Tensor, "G 1 Q S"]
    """True where a query sees a key."""
    local: Bool[Tensor, "G 1 Q S"]
    """True where a query of a layer with local attention sees a key."""


class TorchBackend:
    """A GPT with a cache of `n_pages` pages of `page_size` tokens. Satisfies `bluejay.infer.backends.Backend`.

    With `compiled`, torch compiles the blocks of steps of one token per sequence; their bits then depend on the batch.
    On CUDA these steps are also recorded as graphs (`bluejay.infer.backends.replay`).
    Raises CacheError when there is no memory for the cache.
    """

    def __init__(
        self, gpt: GPT, n_pages: int, page_size: int = PAGE_SIZE, compiled: bool = False, block: int | None = None
    ) -> None:
        self.gpt = gpt
        self.config = gpt.config
        self.page_size = page_size
        self.n_pages = n_pages
        weight = gpt.embed.weight
        self.device = weight.device
        on_cpu = self.device.type == "cpu"
        self.block = block or attention_block(self.device)
        self.prompt_factor = 1 if on_cpu else GPU_PROMPT_FACTOR
        # A slice of whole blocks may reach past the last page.
        shape = (gpt.config.n_layer, 2, gpt.config.kv_heads, n_pages * page_size + self.block, gpt.config.d_head)
        self.keys_values = allocate(shape, weight.dtype, weight.device)
        self.in_place = has_attention_in_place(self.device)
        self.decoder = with_compiled_blocks(gpt) if compiled else gpt
        self.replayed = Replayed(self._decoded, self.device) if compiled else None

    @classmethod
    def for_tokens(cls, gpt: GPT, lengths: Iterable[int], compiled: bool = False) -> "TorchBackend":
        """A backend whose cache holds sequences of these lengths, in tokens."""
        return cls(gpt, pages_of_all(lengths, PAGE_SIZE), PAGE_SIZE, compiled)

    @property
    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The weights with our names."""
        return iter(self.gpt.state_dict().items())

    @torch.inference_mode()
    def step(self, batch: StepBatch) -> Float[Tensor, "R V"]:
        """Store the keys and values of the new tokens, and return the float32 logits of the wanted ones, in order."""
        if self.replayed is not None and len(batch.tokens) == len(batch.lengths):
            return self._decode(batch, *self._places(batch))[: len(batch.tokens)][self._tensor(batch.wanted)]
        hidden = self._hidden(batch)
        return self.gpt.logits(hidden)[: len(batch.wanted)].float()

    def draw(
        self, logits: Float[Tensor, "R V"], filters: Float[np.ndarray, "R 5"], uniforms: Float[np.ndarray, " R"]
    ) -> list[int]:
        """A token for each row of logits, as `bluejay.infer.sampling.draw` draws it."""
        return sampling.draw(logits, filters, uniforms)

    @torch.inference_mode()
    def hidden(self, batch: StepBatch) -> Float[Tensor, "R D"]:
        """As `step`, but return the float32 hidden states of the wanted tokens, which are the input of the head."""
        return self._hidden(batch)[: len(batch.wanted)].float()

    @torch.inference_mode()
    def score(self, batch: StepBatch, targets: Int[np.ndarray, " R"]) -> Float[Tensor, "R 2"]:
        """As `step`, but return for each wanted token the log-probability that the token in `targets` follows, and by
        how much its logit falls short of the largest one. Here a token may be wanted several times in succession, with
        a target each."""
        wanted, rows = np.unique(batch.wanted, return_inverse=True)
        logits = self.step(replace(batch, wanted=wanted))
        at, of = (torch.from_numpy(found.astype(np.int64)).to(logits.device) for found in (rows, targets))
        of_target = logits[at, of]
        return torch.stack((of_target - logits.logsumexp(-1)[at], logits.amax(-1)[at] - of_target), 1)

    def _hidden(self, batch: StepBatch) -> Float[Tensor, "rows D"]:
        """The hidden states of the wanted tokens, the last one repeated up to a multiple of ROW_MULTIPLE."""
        n_new = len(batch.tokens)
        positions, slots = self._places(batch)
        groups = list(group_blocks(self._blocks(batch)))
        place = {row: at for at, row in enumerate(row for blocks in groups for block in blocks for row in block.rows)}
        # The padding repeats the last row, whose keys and values are stored again with equal values.
        rows = padded_rows(n_new)
        order = self._tensor(np.array([place[row] for row in rows]))
        tokens, at, to = self._tensor(np.stack((batch.tokens, positions, slots))[:, rows])
        cache = PagedCache(self.keys_values, self.config, to, [self._group(blocks) for blocks in groups], order)
        hidden = self.gpt.hidden(tokens[None], positions=at[None], cache=cache)[0]
        n_wanted = len(batch.wanted)
        if np.array_equal(batch.wanted, np.arange(n_new)):
            return hidden
        return hidden[self._tensor(batch.wanted[padded_rows(n_wanted)])]

    def _places(self, batch: StepBatch) -> tuple[np.ndarray, np.ndarray]:
        """The position of each new token in its sequence, and its slot in the cache."""
        sequence = np.repeat(np.arange(len(batch.lengths)), batch.starts[1:] - batch.starts[:-1])
        positions = (batch.lengths - batch.starts[:-1])[sequence] + np.arange(len(batch.tokens))
        pages = batch.pages[sequence, positions // self.page_size]
        return positions, pages * self.page_size + positions % self.page_size

    def _decode(self, batch: StepBatch, positions: np.ndarray, slots: np.ndarray) -> Float[Tensor, "B V"]:
        """A step of one token per sequence, with rows and keys padded so that most steps have the same shape."""
        assert self.replayed is not None
        n_rows = 1 << (len(positions) - 1).bit_length()
        n_keys = self.config.n_ctx  # attention in place reads those up to a position, and so needs one shape
        if not self.in_place:
            n_keys = -(-int(positions.max() + 1) // KEY_MULTIPLE) * KEY_MULTIPLE
        rows = np.arange(n_rows).clip(max=len(positions) - 1)
        columns = np.arange(pages_of(n_keys, self.page_size)).clip(max=batch.pages.shape[1] - 1)
        pages = self._tensor(batch.pages.astype(np.int64)[rows][:, columns].clip(min=0))
        return self.replayed(self._tensor(np.stack((batch.tokens, positions, slots))[:, rows]), pages)

    def _decoded(self, new: Int[Tensor, "3 B"], pages: Int[Tensor, "B P"]) -> Float[Tensor, "B V"]:
        """The logits after one token of each sequence; `new` has the tokens, their positions and their slots."""
        tokens, at, to = new
        cache = DecodeCache(self.keys_values, self.config, to, pages, at, self.page_size, self.in_place)
        return self.decoder(tokens[None], positions=at[None], cache=cache)[0].float()

    @torch.inference_mode()
    def copy_page(self, source: int, target: int) -> None:
        """Copy the keys and values in page `source` to page `target`."""
        pages = self.keys_values[:, :, :, : self.n_pages * self.page_size].unflatten(3, (self.n_pages, self.page_size))
        pages[:, :, :, target] = pages[:, :, :, source]

    @torch.inference_mode()
    def clear(self) -> None:
        """Set all keys and values to 0. Attention multiplies masked ones by 0, which gives no number if they are not
        finite."""
        if self.device.type == "cpu":
            self.keys_values = allocate(self.keys_values.shape, self.keys_values.dtype, self.device)
        else:  # recorded graphs hold its address
            self.keys_values.zero_()

    def _tensor(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers)).to(self.device)

    def _blocks(self, batch: StepBatch) -> Iterator[QueryBlock]:
        """The new tokens of each sequence, cut at multiples of the block's length."""
        for i, position in enumerate(batch.lengths.tolist()):
            at, stop = batch.starts[i : i + 2].tolist()
            while at < stop:
                n_keys = (position // self.block + 1) * self.block
                n_rows = min(stop - at, n_keys - position)
                rows = padded_rows(n_rows)
                first, slots = self._slots(batch.pages[i], n_keys)
                yield QueryBlock([at + row for row in rows], [position + row for row in rows], n_keys, first, slots)
                at, position = at + n_rows, position + n_rows

    def _slots(self, pages: np.ndarray, n_keys: int) -> tuple[int, list[int] | None]:
        """The slot of the first key if the pages are adjacent, else all slots; past the last page keys are masked."""
        used = pages[: pages_of(n_keys, self.page_size)]
        used = used[used >= 0]
        if len(used) == 1 or (used[1:] - used[:-1] == 1).all():
            return int(used[0]) * self.page_size, None
        return 0, np.resize(used[:, None] * self.page_size + np.arange(self.page_size), n_keys).tolist()

    def _group(self, blocks: list[QueryBlock]) -> BlockGroup:
        """The tensors of blocks that `group_blocks` put together."""
        one, n_keys = blocks[0], blocks[0].n_keys
        distance = np.array([block.positions for block in blocks])[:, None, :, None] - np.arange(n_keys)
        mask = distance >= 0
        local = mask & (distance < self.config.window) if self.config.window else mask
        return BlockGroup(
            rows=self._tensor(np.array([row for block in blocks for row in block.rows])),
            size=(len(blocks), n_keys),
            first=one.first,
            distance=blocks[1].first - one.first if len(blocks) > 1 else 0,
            slots=None if one.slots is None else self._tensor(np.array(one.slots)),
            mask=self._tensor(mask),
            local=self._tensor(local),
        )


@dataclass(frozen=True)
class PagedCache:
    """The view of the cache in one step; satisfies `bluejay.gpt.model.Cache`."""

    keys_values: Float[Tensor, "L 2 K slots H"]
    config: GPTConfig
    slots: Int[Tensor, " T"]
    """The slots of the new tokens."""
    groups: list[BlockGroup]
    order: Int[Tensor, " T"]
    """The index of each new token among the rows of all groups."""

    def attend(
        self, layer: int, q: Float[Tensor, "1 N T H"], k: Float[Tensor, "1 K T H"], v: Float[Tensor, "1 K T H"]
    ) -> Float[Tensor, "1 N T H"]:
        """Store a layer's new keys and values, then let every query attend to the visible keys of its sequence."""
        self.keys_values[layer].index_copy_(2, self.slots, torch.cat((k, v)))
        local = layer in self.config.local_layers
        attended = []
        for group in self.groups:
            keys, values = self._keys_values(layer, group)
            y = F.scaled_dot_product_attention(
                q[0].index_select(1, group.rows).unflatten(1, (group.size[0], -1)).transpose(0, 1),
                keys,
                values,
                attn_mask=group.local if local else group.mask,
                scale=self.config.scale,
                enable_gqa=self.config.kv_heads != self.config.n_head,
            )
            attended.append(y.transpose(0, 1).flatten(1, 2))
        return torch.cat(attended, dim=1).index_select(1, self.order)[None]

    def _keys_values(self, layer: int, group: BlockGroup) -> Float[Tensor, "2 G K S H"]:
        """The keys and values that a group attends to: a view of the cache where each block's are adjacent."""
        if group.slots is not None:
            return self.keys_values[layer].index_select(2, group.slots)[:, None]
        both, head, slot, _ = self.keys_values.stride()[1:]
        _, _, n_heads, _, width = self.keys_values.shape
        n_blocks, n_keys = group.size
        return self.keys_values.as_strided(
            (2, n_blocks, n_heads, n_keys, width),
            (both, group.distance * slot, head, slot, 1),
            layer * self.keys_values.stride(0) + group.first * slot,
        )


def group_blocks(blocks: Iterable[QueryBlock]) -> Iterator[list[QueryBlock]]:
    """Groups of blocks that can attend at once: equal numbers of rows and keys, and first keys at equal distances."""
    by_size: dict[tuple[int, int], list[QueryBlock]] = {}
    for block in blocks:
        if block.slots is not None:
            yield [block]
        else:
            by_size.setdefault((len(block.rows), block.n_keys), []).append(block)
    for candidates in by_size.values():
        candidates.sort(key=lambda block: block.first)
        group = candidates[:2]
        for block in candidates[2:]:
            if len(group) > 1 and block.first - group[-1].first != group[1].first - group[0].first:
                yield group
                group = []
            group.append(block)
        yield group


def padded_rows(count: int) -> list[int]:
    """The first `count` numbers, the last one repeated up to a multiple of ROW_MULTIPLE."""
    return [*range(count), *[count - 1] * (-count % ROW_MULTIPLE)]


def allocate(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of zeros; on a CPU it takes memory only where it is written.

    Raises CacheError if there is not enough memory, or on a CPU not enough address space.
    """
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    try:
        if device.type != "cpu":
            return torch.zeros(shape, dtype=dtype, device=device)
        return torch.from_numpy(np.zeros(n_bytes, np.uint8)).view(dtype).view(shape)
    except (MemoryError, torch.OutOfMemoryError):
        raise CacheError(
            f"the key-value cache needs {n_bytes / 1e9:.1f} GB, which is more than is available; ask for fewer tokens"
        ) from None
