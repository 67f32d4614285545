"""The projected gradients of all documents that a run learnt from, on disk: RUN/influence/step-N.

SET-NNNNNNNNNN.gradients    those of some documents of a set of `data.train`, from document N on
whole.gradients             the projections, and the second moments of all gradients; written last

Each file is there whole or not at all, and has checksums (`bluejay.trace.sections`). The same command continues after
an interruption, with the same result, because the gradients of a file depend on no other file.
"""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from bluejay.files import TEMPORARY
from bluejay.progress import Bar, progress
from bluejay.trace.indexing import locked
from bluejay.trace.influence.gradients import ProjectedGradients, Sides
from bluejay.trace.influence.read_documents import ReadSet
from bluejay.trace.sections import Damaged, Sections, paged, with_sums, write_sections

KIND, SUFFIX, WHOLE = "gradients", ".gradients", "whole.gradients"
FILE_BYTES = 1 << 25
"""Gradients that are in memory, and then in a file, at once, in float32."""
FILE_TOKENS = 1 << 18
"""Tokens whose gradients are in a file: what an interruption costs at most. A longer document has a file for itself."""


@dataclass(frozen=True)
class FilePart:
    """Documents of a set whose gradients are in one file."""

    of: ReadSet
    first: int
    """Number of its first document."""
    end: int
    """Number of the document after its last one."""

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.of.number}-{self.first:010}{SUFFIX}"

    @property
    def tokens(self) -> int:
        """Targets that the run read of them."""
        return int(self.of.tokens_read[self.first : self.end].sum())


def file_parts(read: ReadSet, width: int) -> list[FilePart]:
    """The documents of a set, divided among files, for gradients of `width` numbers."""
    tokens, most = np.concatenate([[0], np.cumsum(read.tokens_read)]), max(1, FILE_BYTES // (4 * width))
    found, first = [], 0
    while first < len(tokens) - 1:
        end = int(np.searchsorted(tokens, tokens[first] + FILE_TOKENS, "right")) - 1
        end = min(max(first + 1, end), first + most, len(tokens) - 1)
        if tokens[end] > tokens[first]:
            found.append(FilePart(read, first, end))
        first = end
    return found


def build(directory: Path, identity: Mapping[str, Any], reads: Sequence[ReadSet], project: ProjectedGradients) -> None:
    """Compute the gradients of all documents, or what is missing of them. `identity` says of what run they are; files
    of another one are removed. Raises OSError: the disk is full; ValueError: another process computes them."""
    width = len(project.sides) * project.K**2
    parts = [part for read in reads for part in file_parts(read, width)]
    with locked(directory, f"the gradients in {directory} are being computed"):
        kept = {part.name for part in parts if is_of(directory / part.name, identity)}
        for path in directory.glob("*"):
            if path.name not in kept and path.suffix in (SUFFIX, TEMPORARY):
                path.unlink()
        done = sum(part.tokens for part in parts if part.name in kept)
        with progress("gradients", sum(part.tokens for part in parts), "tokens", done) as bar:
            for part in parts:
                if part.name not in kept:
                    write_gradients(directory / part.name, identity, part, project, bar)
        write_whole(directory, identity, [part.name for part in parts], project.sides)


def is_of(path: Path, identity: Mapping[str, Any]) -> bool:
    """Whether a file is there and of this run; a damaged one is made anew."""
    try:
        sections = Sections(path, KIND)
        sections.check()
    except (FileNotFoundError, Damaged, KeyError):
        return False
    return sections.values.get("identity") == dict(identity)


def write_gradients(
    path: Path, identity: Mapping[str, Any], part: FilePart, project: ProjectedGradients, bar: Bar
) -> None:
    """Compute and write the gradients of the documents of a file, those of each matrix as a norm and a direction in
    float16."""
    gradients = torch.zeros(part.end - part.first, len(project.sides), project.K, project.K)
    for batch, pieces, documents, times in part.of.batches(part.first, part.end):
        for document, often, found in zip(documents, times, project(batch, pieces), strict=True):
            gradients[document - part.first] += often * found
        bar.advance(sum(often * (piece.end - piece.first) for often, piece in zip(times, pieces, strict=True)))
    tokens = part.of.tokens_read[part.first : part.end]
    read = np.flatnonzero(tokens)
    vectors = gradients.flatten(2)[torch.from_numpy(read)]
    norms = vectors.norm(dim=2)
    directions = (vectors / norms.clamp(min=1e-30)[:, :, None]).half().numpy()
    arrays = {"documents": (part.first + read).astype(np.int64), "tokens": tokens[read], "norms": norms.numpy()}
    values = {"identity": dict(identity), "set": part.of.number}
    write_sections(path, KIND, values, arrays | with_sums({"directions": paged(directions.tobytes())}))


@dataclass(frozen=True)
class Gradients:
    """The gradients of a file."""

    number: int
    """Which set of `data.train` they are of."""
    documents: NDArray[np.int64]
    """The number of each document in its set."""
    tokens: NDArray[np.int64]
    """Targets of each document that the run read, as often as it read them."""
    vectors: Float[Tensor, "documents matrices KK"]

    @classmethod
    def read(cls, path: Path, matrices: int, K: int) -> "Gradients":
        """Raises Damaged or FileNotFoundError."""
        sections = Sections(path, KIND)
        sections.check()
        norms = torch.from_numpy(sections["norms"].reshape(-1, matrices).copy())
        shape = (*norms.shape, K * K)
        directions = np.frombuffer(sections.mapped("directions").data, np.float16, math.prod(shape)).reshape(shape)
        vectors = torch.from_numpy(directions.astype(np.float32)) * norms[:, :, None]
        return cls(sections.values["set"], sections["documents"], sections["tokens"], vectors)


def write_whole(directory: Path, identity: Mapping[str, Any], names: Sequence[str], sides: Mapping[str, Sides]) -> None:
    """Write the file that makes the others whole: the projections, and the mean over all documents of the outer product
    of a matrix's gradient with itself."""
    K, n = len(next(iter(sides.values())).left), 0
    moments = torch.zeros(len(sides), K * K, K * K)
    for name in names:
        vectors = Gradients.read(directory / name, len(sides), K).vectors
        moments += torch.einsum("nmi,nmj->mij", vectors, vectors)
        n += len(vectors)
    arrays = {f"{name}/{side}": getattr(sides[name], side).numpy() for name in sides for side in ("left", "right")}
    values = {"identity": dict(identity), "files": list(names), "matrices": list(sides), "K": K, "documents": n}
    write_sections(directory / WHOLE, KIND, values, arrays | {"moments": (moments / max(1, n)).numpy()})


class GradientFiles:
    """The gradients of all documents, opened. Raises FileNotFoundError: they are not whole; Damaged: nor as written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with advised(directory):
            whole = Sections(directory / WHOLE, KIND)
        self.identity, self.files = whole.values["identity"], whole.values["files"]
        if missing := [name for name in self.files if not (directory / name).exists()]:
            raise FileNotFoundError(f"{directory} has no {missing[0]}")
        self.K, self.n_documents = whole.values["K"], whole.values["documents"]
        self.sides = {
            name: Sides(
                *(torch.from_numpy(whole[f"{name}/{side}"].reshape(self.K, -1).copy()) for side in ("left", "right"))
            )
            for name in whole.values["matrices"]
        }
        shape = (len(self.sides), self.K**2, self.K**2)
        self.moments = torch.from_numpy(whole["moments"].reshape(shape).copy())

    def __iter__(self) -> Iterator[Gradients]:
        """The gradients of each file. Raises Damaged or FileNotFoundError."""
        for name in self.files:
            with advised(self.directory):
                gradients = Gradients.read(self.directory / name, len(self.sides), self.K)
            yield gradients


@contextmanager
def advised(directory: Path) -> Generator[None]:
    """Add to the error about a damaged file what helps."""
    try:
        yield
    except Damaged as error:
        raise Damaged(f"{error}; remove {directory}, and the same command computes it again") from None
