"""The documents that pushed a model most towards a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from bluejay.gpt.model import GPT
from bluejay.progress import say
from bluejay.trace.influence.corrections import projections
from bluejay.trace.influence.gradient_files import GradientFiles, build
from bluejay.trace.influence.gradients import Piece, ProjectedGradients
from bluejay.trace.influence.learnt import Place, cost, learnt
from bluejay.train.data.batches import TrainBatch

FOLDER = "influence"
K = 16
"""Rows and columns of the projected gradient of a matrix."""
VERSION = 1
"""The version of the projections; gradients that were projected by another version are computed again."""
DAMPING = 0.1
"""Added to the second moments of the gradients, as a share of their mean."""


@dataclass(frozen=True)
class Influential:
    """A document, and how much it pushed a model towards a text."""

    score: float
    """By how much, to first order, learning from the document lowered the text's loss, in no particular unit; below 0
    if it raised it."""
    share: float
    """The score as a share of the sum over all documents of the scores without their signs."""
    id: str
    source: str
    licence: str
    component: str
    url: str
    corpus: str
    split: str
    document: int
    """Its number in the split, or that of its first copy."""
    tokens: int
    """Targets of it that the run read, as often as it read them."""
    copies: int
    """Its copies that the run read."""


@dataclass(frozen=True)
class Scores:
    """The scores of documents of a set of `data.train`."""

    number: int
    """Which set it is."""
    documents: NDArray[np.int64]
    """The number of each document in its set."""
    tokens: NDArray[np.int64]
    """Targets of each that the run read, as often as it read them."""
    scores: NDArray[np.float64]


class Influence:
    """What each document that a run learnt from did for a text. `target` is a run or its model; `corpora` are folders
    in which its corpus may be.

    The gradients of all documents are computed unless they are there (`bluejay.trace.influence.gradient_files`). Raises
    FileNotFoundError and ValueError as `bluejay.trace.influence.learnt.learnt`, also if the gradients would take too
    much time or memory, or a file is damaged; OSError: the disk is full.
    """

    def __init__(self, target: str | Path, corpora: Sequence[Path] = ()) -> None:
        self.learnt = learnt(target, corpora)
        self.run, self.tracer = self.learnt.run, self.learnt.tracer
        self.directory = self.run.directory / FOLDER / f"step-{self.run.steps}"
        self.identity = self.learnt.identity | {"K": K, "version": VERSION}
        try:
            self.files = GradientFiles(self.directory)
            current = self.files.identity == self.identity
        except FileNotFoundError:
            current = False
        if not current:
            self.compute()

    def compute(self) -> None:
        """Compute the gradients of all documents."""
        say(cost(self.learnt, K))
        model, optimizer = self.loaded
        sides = projections(model, optimizer, K)
        build(self.directory, self.identity, self.learnt.reads, ProjectedGradients(model, sides, self.learnt.precision))
        self.files = GradientFiles(self.directory)

    @cached_property
    def loaded(self) -> tuple[GPT, torch.optim.Optimizer]:
        """The model and its optimizer."""
        return self.learnt.model()

    def gradient(self, ids: Sequence[int]) -> Float[Tensor, "matrices KK"]:
        """The projected gradient of the loss of a text, in the sequences in which a run would have read it. Raises
        ValueError: it has no tokens."""
        if not len(ids):
            raise ValueError("the text has no tokens")
        tokens, length = [self.tracer.tokenizer.eot, *ids], self.run.recipe.data.sequence_length
        project = ProjectedGradients(self.loaded[0], self.files.sides, self.learnt.precision)
        total = torch.zeros(len(self.files.sides), K, K)
        for first in range(0, len(ids), length):
            window = torch.tensor([tokens[first : first + length + 1]])
            batch = TrainBatch(window[:, :-1], window[:, 1:], None, torch.zeros_like(window[:, :-1]))
            total += next(project(batch, [Piece(0, 0, window.shape[1] - 1)]))
        return total.flatten(1)

    @cached_property
    def inverse(self) -> Float[Tensor, "matrices KK KK"]:
        """The inverse of the damped second moments of all documents' gradients."""
        moments = self.files.moments
        mean = moments.diagonal(dim1=1, dim2=2).mean(1).clamp(min=torch.finfo(torch.float32).tiny)
        return torch.linalg.inv(moments + DAMPING * mean[:, None, None] * torch.eye(moments.shape[-1]))

    def scores(self, text: str | Sequence[int]) -> list[Scores]:
        """The scores of all documents for a text, or for token ids. Raises ValueError: it has no tokens, or a file is
        damaged."""
        ids = self.tracer.ids(text).tolist()
        towards = torch.einsum("mij,mj->mi", self.inverse, self.gradient(ids))
        found: dict[int, list[tuple[np.ndarray, ...]]] = {}
        for some in self.files:
            scores = torch.einsum("nmi,mi->n", some.vectors, towards).double().numpy()
            found.setdefault(some.number, []).append((some.documents, some.tokens, scores))
        return [
            Scores(number, *(np.concatenate(parts) for parts in zip(*of, strict=True))) for number, of in found.items()
        ]

    def rank(self, text: str | Sequence[int], most: int = 10) -> list[Influential]:
        """The documents that pushed the model most towards a text, or token ids; copies of a document are one. Raises
        ValueError as `scores`."""
        copies: dict[tuple[int, str, int], list[tuple[float, int, Place]]] = {}
        for some in self.scores(text):
            places = self.learnt.places(some.number, some.documents)
            for score, tokens, place in zip(some.scores.tolist(), some.tokens.tolist(), places, strict=True):
                copies.setdefault(place.row, []).append((score, tokens, place))
        scores = {row: sum(score for score, _, _ in of) for row, of in copies.items()}
        total = sum(map(abs, scores.values())) or 1.0
        best = sorted(scores, key=lambda row: -scores[row])[:most]
        return [self.described(scores[row], total, copies[row]) for row in best]

    def described(self, score: float, total: float, copies: list[tuple[float, int, Place]]) -> Influential:
        """A document from its score, the sum of all, and of each copy the score, the tokens and the place."""
        first = min(place for _, _, place in copies)
        searcher = self.tracer.sources[first.source].searcher
        [known] = searcher.documents.read(first.shard, [first.row[2]])
        return Influential(
            score,
            score / total,
            known.id,
            known.source,
            known.licence,
            known.component,
            known.url,
            corpus=searcher.name,
            split=first.shard,
            document=first.document,
            tokens=sum(tokens for _, tokens, _ in copies),
            copies=len({place for _, _, place in copies}),
        )
