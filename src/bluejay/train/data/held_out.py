"""The loss on held-out text, in nats per token and in bits per byte, for the whole and for each component."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from bluejay.gpt.model import GPT
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import TokenShard
from bluejay.train.data.batches import TrainBatch, document_starts
from bluejay.train.data.pairs import Pairs
from bluejay.train.loss import head_loss
from bluejay.train.recipe import is_pairs


@dataclass(frozen=True)
class HeldOut:
    """What the model loses on text it was not trained on."""

    nats_per_token: float
    bits_per_byte: float
    """The same loss over the bytes that the tokens stand for; comparable between tokenizers."""
    components: dict[str, float]
    """Bits per byte of each component of the corpus, where the corpus says what it is made of."""


class HeldOutText:
    """Held-out sequences: of documents, an equal part of each component; of pairs, the completions.

    The first tokens of the shards would hardly measure small components. The whole is the mean of the components, each
    weighted by its share of the held-out shards. Raises ValueError where there is not one sequence.
    """

    def __init__(self, shards: str, sequence_length: int, tokens: int, tokenizer: Tokenizer) -> None:
        read = pairs if is_pairs(shards) else documents
        self.names, share, self.batch, self.component = read(shards, sequence_length, tokens, tokenizer)
        sizes = torch.tensor([len(piece) for piece in tokenizer.token_bytes()])
        self.tokens = self.sums(torch.ones(self.component.shape))
        self.bytes = self.sums(sizes[self.batch.targets])
        self.share = torch.from_numpy(share).double() * (self.tokens > 0)
        self.share /= self.share.sum()

    @property
    def bytes_per_token(self) -> float:
        """Of the whole."""
        return float((self.share * self.bytes / self.tokens.clamp(min=1)).sum())

    def measure(self, nll: Callable[[TrainBatch], Float[Tensor, "B T"]]) -> HeldOut:
        """The loss of a model, of which `nll` gives the nats of each target of a batch."""
        nats = self.sums(nll(self.batch).cpu())
        each = nats / self.tokens.clamp(min=1)
        whole = float((self.share * each).sum())
        bits = nats / math.log(2) / self.bytes.clamp(min=1)
        named = {name: float(value) for name, value, n in zip(self.names, bits, self.bytes, strict=True) if n > 0}
        return HeldOut(whole, whole / math.log(2) / self.bytes_per_token, named if len(self.names) > 1 else {})

    def sums(self, values: Shaped[Tensor, "B T"]) -> Float[Tensor, " components"]:
        """Sums of a number of each target over the components."""
        total = torch.zeros(len(self.names), dtype=torch.float64)
        counted = values.double() if self.batch.weights is None else values.double() * self.batch.weights
        return total.index_add_(0, self.component.flatten(), counted.flatten())


Read = tuple[list[str], NDArray[np.int64], TrainBatch, Int[Tensor, "B T"]]
"""Names of the components, the tokens that each has in all, sequences to measure, and the component of each target."""


def documents(shards: str, sequence_length: int, tokens: int, tokenizer: Tokenizer) -> Read:
    """The sequences of a shard of documents."""
    shard = TokenShard(shards)
    names, component = shard.components()
    share = np.zeros(len(names), dtype=np.int64)
    np.add.at(share, component, shard.sizes)
    chosen, of = sample_components(shard, component, share, tokens)
    rows = (len(chosen) - 1) // sequence_length
    if rows < 1:
        raise ValueError(f"{shards} holds too few tokens for one sequence of {sequence_length}")
    end = rows * sequence_length
    text = torch.from_numpy(chosen[: end + 1].astype(np.int64))
    batch = TrainBatch(text[:-1].view(rows, -1), text[1:].view(rows, -1))
    return names, share, batch, torch.from_numpy(of[1 : end + 1]).view(rows, -1)


def pairs(path: str, sequence_length: int, tokens: int, tokenizer: Tokenizer) -> Read:
    """The sequences of a file of pairs, in which only completions count."""
    source = Pairs(path, sequence_length, tokenizer, prompt_weight=0.0)
    drawn = [source.window(number) for number in range(min(len(source), max(1, tokens // sequence_length)))]
    text = torch.from_numpy(np.stack([row for row, _ in drawn]).astype(np.int64))
    batch = TrainBatch(text[:, :-1], text[:, 1:], torch.from_numpy(np.stack([weights for _, weights in drawn])))
    return ["all"], np.ones(1, dtype=np.int64), batch, torch.zeros_like(batch.targets)


def sample_components(
    shard: TokenShard, component: NDArray[np.int64], share: NDArray[np.int64], tokens: int
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The first documents of each component, the last one cut, in the order of the shard: their tokens, and the
    component of each token. What a small component leaves of its part goes to the others."""
    parts = np.zeros(len(share), dtype=np.int64)
    for done, kind in enumerate(np.argsort(share)):
        parts[kind] = min(share[kind], (tokens + 1 - parts.sum()) // (len(share) - done))
    pieces, kinds = [], []
    for document, kind in enumerate(component):
        size = min(parts[kind], shard.sizes[document])
        if size > 0:
            pieces.append(shard[document][:size])
            kinds.append(np.full(size, kind))
            parts[kind] -= size
        elif not parts.any():
            break
    return np.concatenate(pieces or [shard.tokens[:0]]), np.concatenate(kinds or [component[:0]])


def loss_of(model: GPT, batch: TrainBatch, eot: int | None, scale: float) -> Tensor:
    """Summed loss of a batch in nats, times `scale`; documents are kept apart where their end token `eot` is given."""
    starts = None if eot is None else document_starts(batch.inputs, eot)
    return head_loss(model.hidden(batch.inputs, document_start=starts), *model.unembedding, batch.targets, scale)
