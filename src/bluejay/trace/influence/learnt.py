"""What a run learnt from and became: its sets as it read them, its model, and the state of its optimizer."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bluejay.gpt.formats.layouts import open_model
from bluejay.gpt.formats.locate import locate
from bluejay.gpt.model import GPT
from bluejay.machine import free_memory, matmul_rate
from bluejay.progress import format_bytes, format_duration
from bluejay.trace.corpora import open_tracer, tokenizer_folder
from bluejay.trace.document_rows import Rows
from bluejay.trace.influence.gradients import matrices
from bluejay.trace.influence.read_documents import ReadSet
from bluejay.trace.reading import ReadRun, run_of
from bluejay.trace.tracing import Source, Tracer
from bluejay.train.checkpoint.checkpoints import Checkpoints
from bluejay.train.data.batches import ShardWindows
from bluejay.train.optimizer import make_optimizer
from bluejay.train.recipe import is_examples

LONGEST = 12 * 3600.0
"""Seconds that computing all gradients may take."""
SHARE = 0.1
"""The share of the rate of large matrix products that passes through a small model reach."""
BYTES_A_NUMBER = 2
"""Bytes of a number of a projected gradient in its file."""
BYTES_A_WEIGHT = 16
"""Memory for a weight in float32, its two moments, and a copy while they are read."""


class SetShard(NamedTuple):
    """A token shard of a set of `data.train`."""

    source: Source
    """The documents that it belongs to."""
    name: str
    """The token shard: train, valid, test."""


class Place(NamedTuple):
    """Where a document is."""

    source: int
    """The number of its source in `Tracer.sources`."""
    shard: str
    """Its token shard."""
    document: int
    """Its number in the token shard."""
    row: tuple[int, str, int]
    """What its copies share: the source, the token shard where the corpus has no table of documents, and the row."""


@dataclass(frozen=True)
class Learnt:
    """A run whose documents' influence can be asked about."""

    run: ReadRun
    tracer: Tracer
    """Of all that the model was trained on; verbatim matches are found with it."""
    shards: list[list[SetShard]]
    """The token shards of each set of `data.train`, end to end."""
    reads: list[ReadSet]
    """The sets as the run read them."""
    checkpoint: Path
    """The checkpoint of the model."""
    identity: dict[str, Any]
    """What the gradients of the run depend on."""
    precision: str
    """The data type of matrix products."""

    def model(self) -> tuple[GPT, torch.optim.Optimizer]:
        """The model and its optimizer, as they were in the checkpoint."""
        model = GPT(open_model(self.folder).config)
        optimizer = make_optimizer(model, self.run.recipe.train.optimizer)
        Checkpoints(self.checkpoint.parent, self.run.recipe.checkpoint).load(self.checkpoint, model, optimizer)
        return model, optimizer

    def places(self, number: int, documents: NDArray[np.int64]) -> list[Place]:
        """Where documents of a set of `data.train` are, by their ascending numbers through all of its token shards."""
        shards, windows = self.shards[number], self.reads[number].windows
        begins = np.cumsum([0, *(len(shard) for shard in windows.shards)])
        found = list[Place]()
        for of, begin, end in zip(shards, begins, begins[1:], strict=False):
            here = documents[(begin <= documents) & (documents < end)] - begin
            known, source = of.source.searcher.documents, self.tracer.sources.index(of.source)
            alone = "" if isinstance(known, Rows) and known.has_table else of.name
            rows = known.rows(of.name, here).tolist()
            found += [
                Place(source, of.name, document, (source, alone, row))
                for document, row in zip(here.tolist(), rows, strict=True)
            ]
        return found

    @property
    def folder(self) -> Path:
        """A model directory of the run, for its configuration."""
        return tokenizer_folder(self.run.directory)


def learnt(target: str | Path, corpora: Sequence[Path] = ()) -> Learnt:
    """Open the run of a model. Raises FileNotFoundError: there is no such model, run, corpus or index; ValueError: the
    run trained adapters, read examples, or let documents see each other."""
    model = locate(str(target))
    place = run_of(model)
    if place is None:
        raise ValueError(f"no run is beside {target}, and influence needs the record and the checkpoint of one")
    tracer = open_tracer(str(target), corpora)
    of_run = [source for source in tracer.sources if source.run is not None and source.run.directory == place[0]]
    run = next((source.run for source in of_run if source.run is not None), ReadRun(*place))
    recipe = run.recipe
    if recipe.lora is not None:
        raise ValueError(f"{run.directory} trained adapters; influence needs a run that trained all weights")
    if not recipe.data.mask_documents:
        raise ValueError(
            f"{run.directory} let documents see each other (data.mask_documents = false), so none has a gradient alone"
        )
    reads, shards = [], []
    vocab, eot = tracer.tokenizer.vocab_size, tracer.tokenizer.eot
    for number, part in enumerate(recipe.data.train):
        if is_examples(part.names[0]):
            raise ValueError(f"{run.directory} learnt from examples, {part.names[0]}; influence needs token shards")
        own = shards_of(number, of_run)
        if not own:
            raise ValueError("; ".join([f"data.train.{number} of {run.directory} cannot be read", *tracer.notes]))
        prefixes = [str(Path(of.source.searcher.name) / "tokens" / of.name) for of in own]
        windows = ShardWindows(prefixes, recipe.data.sequence_length, vocab, eot)
        shards.append(own)
        reads.append(ReadSet.of(run, number, windows))
    checkpoints = Checkpoints(run.directory / "checkpoints", recipe.checkpoint)
    path, state = checkpoints.at(run.steps)
    identity = {"checkpoint": checkpoints.marker(run.steps)}
    return Learnt(run, tracer, shards, reads, path, identity, state.precision)


def shards_of(number: int, sources: Sequence[Source]) -> list[SetShard]:
    """The token shards of a set of `data.train` among the sources of a run, end to end; none if they are not known."""
    found = [
        (first, source.searcher.tokens_in(name), SetShard(source, name))
        for source in sources
        for name, places in source.parts.items()
        for part, first in places
        if part == number
    ]
    return [shard for *_, shard in sorted(found, key=lambda one: one[:2])]  # of those at one place, empty ones first


def cost(of: Learnt, K: int) -> str:
    """What computing the gradients takes, in words. Raises ValueError if it is too much for this machine."""
    with torch.device("meta"):
        model = GPT(open_model(of.folder).config)
    weights = sum(weight.numel() for weight in model.parameters())
    tokens = sum(int((read.times > 0).sum()) * read.windows.length for read in of.reads)
    documents = sum(int((read.tokens_read > 0).sum()) for read in of.reads)
    dtype = torch.bfloat16 if of.precision == "bfloat16" else torch.float32
    # forward and back to the activations, without the gradients of weights
    seconds = 4.0 * weights * tokens / (SHARE * matmul_rate(torch.device("cpu"), dtype))
    disk, memory = documents * len(matrices(model)) * K**2 * BYTES_A_NUMBER, weights * BYTES_A_WEIGHT
    text = (
        f"the gradients of {documents:,} documents ({tokens:,} tokens) take {format_bytes(disk)} on the disk, "
        f"{format_bytes(memory)} of memory and about {format_duration(seconds)}"
    )
    if seconds > LONGEST or memory > free_memory():
        raise ValueError(f"{text}, too much for this machine; influence is for models of the quickstart's size")
    if disk > (room := shutil.disk_usage(of.run.directory).free):
        raise ValueError(f"{text}, and {format_bytes(room)} are free on the disk")
    return text
