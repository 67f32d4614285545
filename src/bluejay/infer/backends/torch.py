"""The reference: the model as `bluejay.gpt.model` has it, over pages side by side in one tensor, on any device.

On a CPU the logits of a token depend, to the bit, on the text before it alone, whatever else is in the batch and
however the text was cut into steps. Matrix products give a row the same bits among any number of rows that is a
multiple of ROWS (in bfloat16 among any number), so rows are padded to that. Attention is done for each sequence on its
own, its queries cut at multiples of BLOCK, each piece over all keys up to the next multiple with the later ones masked:
so the number of keys, too, is a function of the position. tests/infer/backends/test_torch.py holds this against the
torch in use, on one thread. On other devices the bits depend on the company, and equal seeds almost always give equal
text.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.model import GPT
from bluejay.infer.backends import StepBatch

ROWS = 16
"""Rows of a matrix product come in multiples of this: 4 would do on AMD's processors, Intel's need 16 (docs/log.md)."""
BLOCK = 64
"""Queries of one piece of attention stand in one block of so many positions."""
SPAN = 256
"""Compiled steps show their queries a multiple of so many keys."""


@dataclass(frozen=True)
class Piece:
    """Queries of one sequence that stand in one block."""

    rows: list[int]
    """Which of the new tokens they are, the last one repeated up to a multiple of ROWS."""
    positions: list[int]
    n_keys: int
    """Keys that they are shown, most of them or all."""
    first: int
    """The slot of the first key,"""
    slots: list[int] | None
    """and those of all, where their pages are not neighbours."""


@dataclass(frozen=True)
class Group:
    """G pieces of Q rows each that attend at once to S keys each; the keys of several lie at equal distances."""

    rows: Int[Tensor, " rows"]
    size: tuple[int, int]
    """G and S."""
    first: int
    """The slot of the first piece's first key,"""
    distance: int
    """and how far it is from there to the next piece's."""
    slots: Int[Tensor, " S"] | None
    """All slots, where they are not neighbours."""
    mask: Bool[Tensor, "G 1 Q S"]
    """True where a query sees a key,"""
    local: Bool[Tensor, "G 1 Q S"]
    """and where it does in local layers."""


class TorchBackend:
    """A GPT with a cache of `n_pages` pages of `page` tokens. Satisfies `bluejay.infer.backends.Backend`.

    With `compiled`, steps that give every sequence one token go through `torch.compile`; their bits then depend on the
    batch. Raises ValueError when there is no memory for the cache.
    """

    def __init__(self, gpt: GPT, n_pages: int, page: int = 32, compiled: bool = False) -> None:
        self.gpt = gpt
        self.config = gpt.config
        self.page = page
        self.n_pages = n_pages
        # A slice of whole blocks may reach past the last page.
        shape = (gpt.config.n_layer, 2, gpt.config.kv_heads, n_pages * page + BLOCK, gpt.config.d_head)
        weight = gpt.embed.weight
        self.device = weight.device
        self.keys_values = zeros(shape, weight.dtype, weight.device)
        # Compiled twice, the second time for any number of rows and keys; of static shapes torch gives up the ninth.
        self.compiled = torch.compile(decode) if compiled else None

    @torch.inference_mode()
    def step(self, batch: StepBatch) -> Float[Tensor, "R V"]:
        """Store the keys and values of the new tokens; the float32 logits of those wanted come back, in order."""
        n_new = len(batch.tokens)
        sequence = np.repeat(np.arange(len(batch.lengths)), batch.starts[1:] - batch.starts[:-1])
        positions = (batch.lengths - batch.starts[:-1])[sequence] + np.arange(n_new)
        slots = batch.pages[sequence, positions // self.page] * self.page + positions % self.page
        if self.compiled is not None and n_new == len(batch.lengths):
            return self._decode(batch, positions, slots)[:n_new][self._tensor(batch.wanted)]
        together = list(grouped(self._pieces(batch)))
        place = {row: at for at, row in enumerate(row for pieces in together for piece in pieces for row in piece.rows)}
        # The last row is repeated, and so stored repeatedly where it is; what is computed of it is the same.
        rows = padded(n_new)
        order = self._tensor(np.array([place[row] for row in rows]))
        tokens, at, to = self._tensor(np.stack((batch.tokens, positions, slots))[:, rows])
        cache = PagedCache(self.keys_values, self.config, to, [self._group(pieces) for pieces in together], order)
        hidden = self.gpt.hidden(tokens[None], positions=at[None], cache=cache)[0]
        n_wanted = len(batch.wanted)
        if n_wanted < n_new:
            hidden = hidden[self._tensor(batch.wanted[padded(n_wanted)])]
        return self.gpt.logits(hidden)[:n_wanted].float()

    def _decode(self, batch: StepBatch, positions: np.ndarray, slots: np.ndarray) -> Float[Tensor, "B V"]:
        """A step of one token for each sequence, in a shape that few steps do not share: padded rows and keys."""
        assert self.compiled is not None
        n_rows = 1 << (len(positions) - 1).bit_length()
        n_keys = -(-int(positions.max() + 1) // SPAN) * SPAN
        rows = np.arange(n_rows).clip(max=len(positions) - 1)
        index = np.arange(n_keys)
        pages = batch.pages[:, (index // self.page).clip(max=batch.pages.shape[1] - 1)].clip(min=0)
        keys = self._tensor((pages * self.page + index % self.page)[rows])
        tokens, at, to = self._tensor(np.stack((batch.tokens, positions, slots))[:, rows])
        return self.compiled(self.gpt, tokens, at, EvenCache(self.keys_values, self.config, to, keys, at))

    @torch.inference_mode()
    def copy_page(self, source: int, target: int) -> None:
        """Make page `target` hold what `source` holds."""
        pages = self.keys_values[:, :, :, : self.n_pages * self.page].unflatten(3, (self.n_pages, self.page))
        pages[:, :, :, target] = pages[:, :, :, source]

    def _tensor(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers).to(self.device)

    def _pieces(self, batch: StepBatch) -> Iterator[Piece]:
        for i, position in enumerate(batch.lengths.tolist()):
            at, stop = batch.starts[i : i + 2].tolist()
            while at < stop:
                n_keys = (position // BLOCK + 1) * BLOCK
                n_rows = min(stop - at, n_keys - position)
                rows = padded(n_rows)
                first, slots = self._slots(batch.pages[i], n_keys)
                yield Piece([at + row for row in rows], [position + row for row in rows], n_keys, first, slots)
                at, position = at + n_rows, position + n_rows

    def _slots(self, pages: np.ndarray, n_keys: int) -> tuple[int, list[int] | None]:
        """Where the first `n_keys` keys of a sequence are; past its last page anything will do, since it is masked."""
        used = pages[: -(-n_keys // self.page)]
        used = used[used >= 0]
        if len(used) == 1 or (used[1:] - used[:-1] == 1).all():
            return int(used[0]) * self.page, None
        return 0, np.resize(used[:, None] * self.page + np.arange(self.page), n_keys).tolist()

    def _group(self, pieces: list[Piece]) -> Group:
        one, n_keys = pieces[0], pieces[0].n_keys
        behind = np.array([piece.positions for piece in pieces])[:, None, :, None] - np.arange(n_keys)
        mask = behind >= 0
        local = mask & (behind < self.config.window) if self.config.window else mask
        return Group(
            self._tensor(np.array([row for piece in pieces for row in piece.rows])),
            (len(pieces), n_keys),
            one.first,
            pieces[1].first - one.first if len(pieces) > 1 else 0,
            None if one.slots is None else self._tensor(np.array(one.slots)),
            self._tensor(mask),
            self._tensor(local),
        )


@dataclass(frozen=True)
class PagedCache:
    """What one step writes to and reads from; satisfies `bluejay.gpt.model.Cache`."""

    keys_values: Float[Tensor, "L 2 K slots H"]
    config: GPTConfig
    slots: Int[Tensor, " T"]
    """Where the new tokens go."""
    groups: list[Group]
    order: Int[Tensor, " T"]
    """Where each new token is among the rows of all groups."""

    def attend(
        self, layer: int, q: Float[Tensor, "1 N T H"], k: Float[Tensor, "1 K T H"], v: Float[Tensor, "1 K T H"]
    ) -> Float[Tensor, "1 N T H"]:
        """Store a layer's new keys and values, then let every query attend to those of its sequence that it may see."""
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

    def _keys_values(self, layer: int, group: Group) -> Float[Tensor, "2 G K S H"]:
        if group.slots is not None:
            return self.keys_values[layer].index_select(2, group.slots)[:, None]
        both, head, slot, _ = self.keys_values.stride()[1:]
        _, _, n_heads, _, width = self.keys_values.shape
        n_pieces, n_keys = group.size
        return self.keys_values.as_strided(
            (2, n_pieces, n_heads, n_keys, width),
            (both, group.distance * slot, head, slot, 1),
            layer * self.keys_values.stride(0) + group.first * slot,
        )


@dataclass(frozen=True)
class EvenCache:
    """What a step of one token for each sequence writes and reads, all with as many keys: the rest is masked."""

    keys_values: Float[Tensor, "L 2 K slots H"]
    config: GPTConfig
    slots: Int[Tensor, " B"]
    keys: Int[Tensor, "B S"]
    """The slots of each sequence's keys."""
    positions: Int[Tensor, " B"]

    def attend(
        self, layer: int, q: Float[Tensor, "1 N B H"], k: Float[Tensor, "1 K B H"], v: Float[Tensor, "1 K B H"]
    ) -> Float[Tensor, "1 N B H"]:
        """As `PagedCache.attend`."""
        keys_values = self.keys_values[layer]
        keys_values.index_copy_(2, self.slots, torch.cat((k, v)))
        keys, values = keys_values[:, :, self.keys].transpose(1, 2)
        behind = self.positions[:, None] - torch.arange(self.keys.shape[1], device=q.device)
        mask = behind >= 0
        if layer in self.config.local_layers:
            mask = mask & (behind < (self.config.window or 0))
        grouped = self.config.kv_heads != self.config.n_head
        y = F.scaled_dot_product_attention(
            q.transpose(0, 2), keys, values, attn_mask=mask[:, None, None], scale=self.config.scale, enable_gqa=grouped
        )
        return y.transpose(0, 2)


def decode(gpt: GPT, tokens: Int[Tensor, " B"], positions: Int[Tensor, " B"], cache: EvenCache) -> Float[Tensor, "B V"]:
    """The logits of one token of each sequence."""
    return gpt(tokens[None], positions=positions[None], cache=cache)[0].float()


def grouped(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Pieces that can be attended to at once: as many rows, as many keys, and keys at equal distances."""
    alike: dict[tuple[int, int], list[Piece]] = {}
    for piece in pieces:
        if piece.slots is not None:
            yield [piece]
        else:
            alike.setdefault((len(piece.rows), piece.n_keys), []).append(piece)
    for candidates in alike.values():
        candidates.sort(key=lambda piece: piece.first)
        group = candidates[:2]
        for piece in candidates[2:]:
            if len(group) > 1 and piece.first - group[-1].first != group[1].first - group[0].first:
                yield group
                group = []
            group.append(piece)
        yield group


def padded(count: int) -> list[int]:
    """The first `count` numbers, the last one repeated up to a multiple of ROWS."""
    return [*range(count), *[count - 1] * (-count % ROWS)]


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of zeros that, on a CPU, takes memory only where it is used.

    Raises ValueError when there is not even the address space for it.
    """
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    try:
        if device.type != "cpu":
            return torch.zeros(shape, dtype=dtype, device=device)
        return torch.from_numpy(np.zeros(n_bytes, np.uint8)).view(dtype).view(shape)
    except (MemoryError, torch.OutOfMemoryError):
        raise ValueError(
            f"the key-value cache needs {n_bytes / 1e9:.1f} GB, which is more than there is; ask for fewer tokens"
        ) from None
