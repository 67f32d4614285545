"""The loss on held-out data in nats per token and bits per byte, as a whole and for each component of the corpus."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from bluejay.tokenizer import Tokenizer
from bluejay.tokens import TokenShard
from bluejay.train.data.batches import TrainBatch, check_tokens
from bluejay.train.data.content import hash_of_arrays
from bluejay.train.data.encoding import Encoded
from bluejay.train.data.packed_examples import PackedExamples, Part, is_same_file
from bluejay.train.recipe import TrainRecipe, is_examples


@dataclass(frozen=True)
class HeldOutLoss:
    """Loss of a model on held-out data."""

    nats_per_token: float
    """Mean negative log-likelihood of a token, in nats."""
    bits_per_byte: float
    """Loss in bits per byte of the decoded text, which is comparable between tokenizers."""
    components: dict[str, float]
    """Bits per byte of each component of the corpus; empty if the corpus has only one."""


class HeldOutText:
    """Held-out sequences: an equal number of tokens from each component of a shard, or the answers of examples.

    The first tokens of a shard would hardly measure small components. The total loss is the mean over the components,
    each weighted by its share of the held-out shard. Raises ValueError if the data are shorter than one sequence.
    """

    def __init__(
        self,
        shards: str,
        sequence_length: int,
        tokens: int,
        tokenizer: Tokenizer,
        columns: Mapping[str, str] | None = None,
        of_training_file: bool = False,
        read: list[Encoded] | None = None,
    ) -> None:
        """`of_training_file`: whether a file of examples is also trained on, so that only a part of it is held out.
        `read` are all its examples, where they have been read before."""
        self.examples: list[Encoded] = []
        """The examples, in the order of the file; none of a shard."""
        if is_examples(shards):
            part = Part.HELD_OUT if of_training_file else Part.ALL
            source = PackedExamples(shards, sequence_length, tokenizer, 0.0, columns, part, at_most=tokens, read=read)
            self.examples = source.encoded
            self.names, share, self.batch, self.component = pair_sequences(source)
        else:
            found = read_document_sequences(shards, sequence_length, tokens, tokenizer)
            self.names, share, self.batch, self.component = found
        sizes = torch.tensor([len(piece) for piece in tokenizer.token_bytes()])
        self.tokens = self.sums(torch.ones(self.component.shape))
        self.bytes = self.sums(sizes[self.batch.targets])
        if self.bytes.sum() == 0:
            raise ValueError(f"{shards} holds no text: its tokens have no bytes, so no loss of a byte can be measured")
        self.share = torch.from_numpy(share).double() * (self.tokens > 0)
        self.share /= self.share.sum()

    @classmethod
    def of(cls, recipe: TrainRecipe, tokenizer: Tokenizer, trained: Sequence[object] = ()) -> "HeldOutText":
        """What a recipe evaluates on. Examples are not read again that one of the sources `trained` has read."""
        data, tokens = recipe.data, recipe.evaluate.tokens
        files = (one for one in trained if isinstance(one, PackedExamples))
        read = next((one.read for one in files if is_same_file(one.path, data.held_out)), None)
        return cls(data.held_out, data.sequence_length, tokens, tokenizer, data.columns, data.valid is None, read)

    def content(self) -> str:
        """A hash of what is evaluated."""
        weights = () if self.batch.weights is None else (self.batch.weights.numpy(),)
        arrays = (self.batch.inputs.numpy(), self.batch.targets.numpy(), self.component.numpy(), *weights)
        return hash_of_arrays(*arrays, self.share.numpy())

    @property
    def bytes_per_token(self) -> float:
        """Mean length of a token in bytes, with components weighted by their share."""
        return float((self.share * self.bytes / self.tokens.clamp(min=1)).sum())

    def measure(self, nll: Callable[[TrainBatch], Float[Tensor, "B T"]]) -> HeldOutLoss:
        """The loss of a model whose `nll` returns the negative log-likelihood of each target of a batch, in nats."""
        nats = self.sums(nll(self.batch).cpu())
        each = nats / self.tokens.clamp(min=1)
        total = float((self.share * each).sum())
        bits = nats / math.log(2) / self.bytes.clamp(min=1)
        named = {name: float(value) for name, value, n in zip(self.names, bits, self.bytes, strict=True) if n > 0}
        return HeldOutLoss(total, total / math.log(2) / self.bytes_per_token, named if len(self.names) > 1 else {})

    def sums(self, values: Shaped[Tensor, "B T"]) -> Float[Tensor, " components"]:
        """Sum of a value of each target, times the target's loss weight, for each component."""
        total = torch.zeros(len(self.names), dtype=torch.float64)
        weighted = values.double() if self.batch.weights is None else values.double() * self.batch.weights
        return total.index_add_(0, self.component.flatten(), weighted.flatten())


Sequences = tuple[list[str], NDArray[np.int64], TrainBatch, Int[Tensor, "B T"]]
"""Names of the components, tokens of each in the shard, the sequences to evaluate, the component of each target."""


def read_document_sequences(shards: str, sequence_length: int, tokens: int, tokenizer: Tokenizer) -> Sequences:
    """The sequences to evaluate from a token shard."""
    shard = TokenShard(shards)
    names, component = shard.components()
    share = np.zeros(len(names), dtype=np.int64)
    np.add.at(share, component, shard.sizes)
    sampled, labels = sample_components(shard, component, share, tokens)
    rows = (len(sampled) - 1) // sequence_length
    if rows < 1:
        raise ValueError(
            f"{shards} holds too few tokens for one sequence of {sequence_length}, data.sequence_length; "
            "name other held-out data in data.valid, or shorten the sequences"
        )
    check_tokens(sampled, tokenizer.vocab_size, shard.prefix)
    end = rows * sequence_length
    text = torch.from_numpy(sampled[: end + 1].astype(np.int64))
    batch = TrainBatch(text[:-1].view(rows, -1), text[1:].view(rows, -1))
    return names, share, batch, torch.from_numpy(labels[1 : end + 1]).view(rows, -1)


def pair_sequences(source: PackedExamples) -> Sequences:
    """The sequences to evaluate from examples, of which only answers count."""
    drawn = [source.window(number) for number in range(len(source))]
    starts = torch.from_numpy(np.stack([source.starts(number) for number in range(len(source))]))
    text = torch.from_numpy(np.stack([row for row, _ in drawn]).astype(np.int64))
    weights = torch.from_numpy(np.stack([weights for _, weights in drawn]))
    batch = TrainBatch(text[:, :-1], text[:, 1:], weights, starts)
    return ["all"], np.ones(1, dtype=np.int64), batch, torch.zeros_like(batch.targets)


def sample_components(
    shard: TokenShard, component: NDArray[np.int64], share: NDArray[np.int64], tokens: int
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The first tokens of each component, in the order of the shard, and the component of each token.

    All components get equally many of the `tokens`; tokens that a small component lacks are divided among the others.
    """
    quota = np.zeros(len(share), dtype=np.int64)
    for done, label in enumerate(np.argsort(share)):
        quota[label] = min(share[label], (tokens + 1 - quota.sum()) // (len(share) - done))
    pieces, labels = [], []
    for document, label in enumerate(component):
        size = min(quota[label], shard.sizes[document])
        if size > 0:
            pieces.append(shard[document][:size])
            labels.append(np.full(size, label))
            quota[label] -= size
        elif not quota.any():
            break
    return np.concatenate(pieces or [shard.tokens[:0]]), np.concatenate(labels or [component[:0]])
