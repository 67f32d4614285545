"""Find passages that occurred before in the corpus, and cut them out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bluejay.files import sha256_of
from bluejay.pile.steps.dedup import Decisions
from bluejay.pile.text.document_table import DROPPED, hex_ids, read_batches, text_digests, with_text
from bluejay.pile.text.substring import repeats, without

REASON = "repeated passages, nothing else"
"""Why a document is dropped of which no text is left."""


@dataclass(frozen=True)
class FindPassages:
    """Find the repeated passages of all kept documents.

    Writes NUMBER.npy for each part, (m, 3): the row among the part's kept documents, the first character and the end of
    each passage. Counts the passages and their characters.
    """

    name: ClassVar[str] = "passages"
    clean: tuple[Path, ...]
    decisions: tuple[Path, ...]
    length: int
    """Characters of the shortest passage that counts."""

    def key(self) -> list[Any]:
        """The kept documents and the length of a passage."""
        texts = [[clean.name, sha256_of(decided)] for clean, decided in zip(self.clean, self.decisions, strict=True)]
        return [self.length, texts]

    def run(self, out: Path) -> dict[str, Any]:
        kept = [Decisions.load(path).kept for path in self.decisions]

        def read() -> Iterator[pa.StringArray]:
            for clean, keep in zip(self.clean, kept, strict=True):
                start = 0
                for batch in read_batches(clean / "documents.parquet", ["text"]):
                    yield batch["text"].filter(pa.array(keep[start : start + len(batch)]))
                    start += len(batch)

        total_bytes = sum(int(np.load(clean / "sizes.npy").sum()) for clean in self.clean)
        spans = repeats(read, self.length, total_bytes)
        starts = np.cumsum([0, *(keep.sum() for keep in kept)])
        bounds = np.searchsorted(spans[:, 0], starts).tolist()
        for number, (start, a, b) in enumerate(zip(starts.tolist(), bounds, bounds[1:], strict=False)):
            np.save(out / f"{number}.npy", spans[a:b] - [start, 0, 0])
        return {"passages": len(spans), "characters": int((spans[:, 2] - spans[:, 1]).sum())}


def cut_passages(
    documents: pa.RecordBatch, spans: NDArray[np.int64]
) -> tuple[pa.RecordBatch, pa.RecordBatch, NDArray[np.bool_]]:
    """Cut passages (document, first character, end) out of a batch of CLEAN.

    Gives the shortened documents, under the ids of their new texts; the documents of which nothing is left, as rows of
    DROPPED; and which of all documents are left.
    """
    texts = without(documents["text"], spans)
    left = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0)
    emptied = documents.filter(pc.invert(left))
    emptied = emptied.append_column("reason", pa.repeat(REASON, len(emptied)))
    emptied = emptied.append_column("of", pa.nulls(len(emptied), pa.string()))
    shorter = with_text(documents, texts).filter(left)
    shorter = shorter.set_column(0, "id", hex_ids(text_digests(shorter["text"])))
    return shorter, emptied.cast(DROPPED), left.to_numpy(zero_copy_only=False)
