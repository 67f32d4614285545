"""The examples that a model was fine-tuned on, indexed in memory: each is a document."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bluejay.tokenizer import Tokenizer
from bluejay.trace.document_rows import UNKNOWN, Row
from bluejay.trace.index import Searcher
from bluejay.trace.reading import ExampleSequences
from bluejay.trace.suffix_arrays import IndexShard, require_native
from bluejay.train.data.packed_examples import PackedExamples, part_of
from bluejay.train.recipe import Data


class Examples:
    """What is known of the examples of a file."""

    def __init__(self, path: Path, tokens: list[np.ndarray]) -> None:
        self.path = path
        self.ids = [hashlib.sha256(np.asarray(one, "<i4").tobytes()).hexdigest() for one in tokens]
        first: dict[str, int] = {}
        self.row_of = np.array([first.setdefault(id, number) for number, id in enumerate(self.ids)], np.int64)

    def rows(self, shard: str, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first example that is equal to each."""
        return self.row_of[documents]

    def read(self, shard: str, rows: Sequence[int]) -> list[Row]:
        """Examples; the id of one is the SHA-256 of its token ids."""
        return [Row(self.ids[row], "examples", self.path.name, UNKNOWN, f"{self.path}#{row + 1}") for row in rows]


class ExampleSearcher(Searcher):
    """Searches in the examples of a file, which the settings `data` of a run call `name`, as the run reads them.

    Raises FileNotFoundError or ValueError as `bluejay.train.data.packed_examples.PackedExamples`.
    """

    def __init__(self, path: Path, name: str, data: Data, tokenizer: Tokenizer) -> None:
        require_native()
        part = part_of(data, name)
        packed = PackedExamples(str(path), data.sequence_length, tokenizer, data.prompt_weight, data.columns, part)
        self.shard, self.content = path.name, packed.content()
        tokens = np.concatenate([np.asarray(one, "<i4") for one in packed.tokens])
        starts = np.concatenate([[0], np.cumsum([len(one) for one in packed.tokens])]).astype(np.int64)
        shard = IndexShard.in_memory(str(path), self.shard, tokens, starts)
        examples = Examples(path, packed.tokens)
        super().__init__(str(path), [shard], examples)
        self.identity = path.resolve(), hashlib.sha256("".join(examples.ids).encode()).hexdigest()
        """The same for runs that read the same examples of a file."""
        self.sequences = ExampleSequences(starts, packed.packed)
