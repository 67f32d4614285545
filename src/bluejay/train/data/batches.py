"""The tokens of each training step: a pure function of the seed and the step, so there is no position to save
(`bluejay.train.data.order`)."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from glob import has_magic
from itertools import accumulate, islice
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bluejay.progress import say
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import TokenShard, suffixed
from bluejay.train.data.content import hash_of_shards
from bluejay.train.data.order import Order, phases
from bluejay.train.data.packed_examples import PackedExamples, is_same_file, part_of
from bluejay.train.recipe import EXAMPLES, Data, Mixture, is_examples

CHECKED_DOCUMENTS = 1024
"""Documents of a shard whose last token is checked."""


@dataclass(frozen=True)
class TrainBatch:
    """Sequences to train on or to evaluate."""

    inputs: Int[Tensor, "B T"]
    """Token ids."""
    targets: Int[Tensor, "B T"]
    """The token that follows each input."""
    weights: Float[Tensor, "B T"] | None = None
    """Loss weight of each target; None if all are 1."""
    starts: Int[Tensor, "B T"] | None = None
    """Position at which each input's document begins; None if end tokens say it (`document_starts`)."""

    def to(self, device: torch.device) -> "TrainBatch":
        """Copy the batch to a device."""
        weights, starts = (None if part is None else to_device(part, device) for part in (self.weights, self.starts))
        return TrainBatch(to_device(self.inputs, device), to_device(self.targets, device), weights, starts)

    def pin(self) -> "TrainBatch":
        """Copy the batch to pinned memory."""
        weights, starts = (None if part is None else pinned(part) for part in (self.weights, self.starts))
        return TrainBatch(pinned(self.inputs), pinned(self.targets), weights, starts)

    def split(self, rows: int) -> list["TrainBatch"]:
        """Split into micro-batches of `rows` sequences."""
        return [self[first : first + rows] for first in range(0, len(self.inputs), rows)]

    def __getitem__(self, rows: slice | Int[Tensor, " rows"]) -> "TrainBatch":
        """The batch of the selected sequences."""
        weights, starts = (None if part is None else part[rows] for part in (self.weights, self.starts))
        return TrainBatch(self.inputs[rows], self.targets[rows], weights, starts)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; to a GPU without waiting for what it is still doing."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return (tensor if tensor.is_pinned() else pinned(tensor)).to(device, non_blocking=True)
    return tensor.to(device)


def pinned(tensor: Tensor) -> Tensor:
    """A copy in pinned memory, contiguous: a view with gaps would first be copied to memory that is not pinned."""
    return tensor.contiguous().pin_memory()


@runtime_checkable
class SequenceSource(Protocol):
    """A numbered set of sequences."""

    weighted: bool
    """Whether targets have different loss weights."""

    def __len__(self) -> int:
        """Number of sequences."""
        ...

    def window(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        """A sequence of length + 1 tokens, the last only a target; if `weighted`, also the weight of each target."""
        ...

    def starts(self, number: int) -> np.ndarray:
        """Position in a sequence at which the document of each of its first `length` tokens begins."""
        ...

    def content(self) -> str:
        """A hash of what the sequences are made from."""
        ...


class ShardWindows:
    """The tokens of one or more shards, end to end, cut into sequences of `length` tokens. The tokens of `masked`
    documents, numbered through all shards, have loss weight 0 as targets.

    Raises ValueError if they have too few tokens for one sequence, if a shard is named twice, if there is no such
    document to mask or, when `eot` separates documents, if documents do not end with that token.
    """

    def __init__(
        self, prefixes: Sequence[str], length: int, vocab_size: int, eot: int | None, masked: Sequence[int] = ()
    ) -> None:
        self.prefixes, self.length, self.vocab_size, self.eot = list(prefixes), length, vocab_size, eot
        places = [Path(prefix).resolve() for prefix in self.prefixes]
        if len(set(places)) < len(places):
            twice = next(prefix for prefix, place in zip(prefixes, places, strict=True) if places.count(place) > 1)
            raise ValueError(f"data.train: one set names {twice} twice; a weight says how often it is read")
        self.shards = [TokenShard(prefix) for prefix in self.prefixes]
        self.ends = list(accumulate(len(shard.tokens) for shard in self.shards))
        if len(self) < 1:
            also = f" and {len(self.shards) - 1:,} more hold" if len(self.shards) > 1 else " holds"
            raise ValueError(f"{prefixes[0]}{also} too few tokens for one sequence of {length}, data.sequence_length")
        for shard in self.shards if eot is not None else ():
            documents = (number for number in range(len(shard)) if shard.sizes[number])
            if any(shard[number][-1] != eot for number in islice(documents, CHECKED_DOCUMENTS)):
                raise ValueError(
                    f"the documents of {shard.prefix} do not end with <|endoftext|> ({eot}), so they cannot be told "
                    "apart; set data.mask_documents = false, or data.tokenizer to the one that the shard was made with"
                )

        self.weighted = bool(masked)
        self.masked = self.bounds(sorted(set(masked)))

    def __len__(self) -> int:
        return max(0, self.ends[-1] - 1) // self.length

    def bounds(self, documents: Sequence[int]) -> list[tuple[int, int]]:
        """Where documents begin and end among the tokens of all shards. Raises ValueError: there is no such one."""
        found, first, begin = [], 0, 0
        for shard, end in zip(self.shards, self.ends, strict=True):
            here = [number - first for number in documents if first <= number < first + len(shard)]
            found += [(begin + int(shard.offsets[i]), begin + int(shard.offsets[i + 1])) for i in here]
            first, begin = first + len(shard), end
        if len(found) < len(documents):
            raise ValueError(f"{self.prefixes[0]} has {first:,} documents, and data.train masks number {documents[-1]}")
        return found

    def window(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        start, end = number * self.length, (number + 1) * self.length + 1
        pieces = []
        for part in range(bisect.bisect_right(self.ends, start), len(self.shards)):
            shard = self.shards[part]
            before = self.ends[part] - len(shard.tokens)
            piece = shard.tokens[max(0, start - before) : end - before]
            if len(piece):
                check_tokens(piece, self.vocab_size, shard.prefix)
                pieces.append(piece)
            if self.ends[part] >= end:
                break
        tokens = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return tokens, self.weights(start) if self.weighted else None

    def weights(self, start: int) -> np.ndarray:
        """The loss weights of the targets of the sequence whose first token is `start`."""
        weights = np.ones(self.length, dtype=np.float32)
        for first, end in self.masked[max(0, bisect.bisect(self.masked, (start, 0)) - 1) :]:
            if first > start + self.length:
                break
            weights[max(0, first - start - 1) : max(0, end - start - 1)] = 0.0
        return weights

    def starts(self, number: int) -> np.ndarray:
        if self.eot is None:
            return np.zeros(self.length, dtype=np.int64)
        tokens, _ = self.window(number)
        return document_starts(torch.from_numpy(tokens[None, :-1].astype(np.int64)), self.eot)[0].numpy()

    def content(self) -> str:
        return hash_of_shards(self.prefixes)


def check_tokens(tokens: np.ndarray, vocab_size: int, prefix: Path) -> None:
    """Raise ValueError if a shard holds a token that the vocabulary does not have."""
    if not (tokens.min() >= 0 and tokens.max() < vocab_size):
        wrong = tokens.min() if tokens.min() < 0 else tokens.max()
        raise ValueError(
            f"{prefix} holds the token {wrong} and the vocabulary has {vocab_size}; "
            "set data.tokenizer to the one that the shard was made with"
        )


class Batches:
    """The endless sequence of batches. `steps`, the length of the run, determines when the mixture changes."""

    def __init__(
        self, sources: Sequence[SequenceSource], mixture: Sequence[Mixture], batch_size: int, seed: int, steps: int
    ) -> None:
        self.sources, self.batch_size = sources, batch_size
        sizes = tuple(len(source) for source in sources)
        self.order = Order(sizes, tuple(phases(mixture, steps * batch_size)), seed)

    def batch(self, step: int, share: tuple[int, int] = (0, 1)) -> TrainBatch:
        """The batch of a step, counted from 0; with `share` = (i, n), the i-th of n equal parts of its rows."""
        index, count = share
        rows = self.batch_size // count
        first = step * self.batch_size + index * rows
        places = [self.place(number) for number in range(first, first + rows)]
        drawn = [source.window(window) for source, window in places]
        tokens = torch.from_numpy(np.stack([row for row, _ in drawn]).astype(np.int64))
        weights = None
        if any(source.weighted for source in self.sources):
            given = [np.ones(len(row) - 1) if weight is None else weight for row, weight in drawn]
            weights = torch.from_numpy(np.stack(given).astype(np.float32))
        starts = None
        if weights is not None:
            starts = torch.from_numpy(np.stack([source.starts(window) for source, window in places]))
        return TrainBatch(tokens[:, :-1], tokens[:, 1:], weights, starts)

    def sequence(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Sequence `number` of the run and the weights of its targets; see `SequenceSource.window`."""
        source, window = self.place(number)
        return source.window(window)

    def place(self, number: int) -> tuple[SequenceSource, int]:
        """The source of sequence `number` of the run, and the number of the sequence in it."""
        part, window = self.order.place(number)
        return self.sources[part], window


def check_files(data: Data) -> None:
    """Raise FileNotFoundError or ValueError, naming it, if a file that the recipe names is not there: before others
    are read, which can take long. Text that is both learnt and held out is said."""
    trained = [prefix for part in data.train for prefix in part.prefixes]
    for name in (*trained, data.held_out):
        path = Path(name)
        if path.is_dir() and not (path.name and suffixed(path, ".idx").is_file()):
            saved = f'; load_from_disk({name!r}).to_parquet("train.parquet"), of datasets, makes a file of its examples'
            such = f"; name a token shard or a file of examples in it, such as {training_file(path)}"
            raise ValueError(f"{name} is a folder{saved if any(path.glob('*.arrow')) else such}")
        if not is_examples(name):
            if path.suffix in (".bin", ".idx") and path.is_file():
                raise ValueError(f"{name} is one of the two files of a token shard; name it {path.with_suffix('')}")
            if path.is_file():
                raise ValueError(f"{name} is neither a token shard nor examples, whose names end with {EXAMPLES}")
            TokenShard(name)
        elif not path.is_file():
            pattern = "; a pattern names token shards, and each file of examples is a set of its own"
            raise FileNotFoundError(f"no file of examples at {path.absolute()}" + (pattern if has_magic(name) else ""))
    if data.valid is not None and any(is_same_file(name, data.valid) for name in trained):
        say(f"{data.valid} is both trained on and data.valid, so the held-out loss says nothing about other text")


def training_file(folder: Path) -> Path:
    """The token shard or file of examples of a corpus or of a data set of the hub that is likely its training data."""
    files = [file for within in (folder, folder / "tokens", folder / "data") for file in sorted(within.glob("*train*"))]
    shards = [file.with_suffix("") for file in files if file.suffix == ".idx"]
    return next(iter([*shards, *(file for file in files if is_examples(file.name))]), folder / "train.jsonl")


def open_sources(data: Data, tokenizer: Tokenizer) -> list[SequenceSource]:
    """Open the sets of `data.train`. Raises FileNotFoundError or ValueError, naming the set that is not usable."""
    eot = tokenizer.eot if data.mask_documents else None

    def source(prefixes: list[str], masked: Sequence[int]) -> SequenceSource:
        if is_examples(name := prefixes[0]):
            part = part_of(data, name)
            return PackedExamples(name, data.sequence_length, tokenizer, data.prompt_weight, data.columns, part)
        return ShardWindows(prefixes, data.sequence_length, tokenizer.vocab_size, eot, masked)

    return [source(part.prefixes, part.masked) for part in data.train]


def document_starts(inputs: Int[Tensor, "B T"], eot: int) -> Int[Tensor, "B T"]:
    """Position in the sequence at which each token's document begins. An end token belongs to the document after it, so
    that a prompt of the end token alone asks for the beginning of a text."""
    order = torch.arange(inputs.shape[1], device=inputs.device)
    return torch.where(inputs == eot, order, 0).cummax(-1).values
