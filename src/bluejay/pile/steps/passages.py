"""The stage that finds passages which stood before, and what `encode_part` does with them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bluejay.files import sha256_of
from bluejay.pile.steps.clean import DROPPED, batches, digests_of, hexadecimal, with_text
from bluejay.pile.steps.dedup import KEPT
from bluejay.pile.text.substring import repeats, without

REASON = "repeated passages, nothing else"


@dataclass(frozen=True)
class Passages:
    """What `find_passages` works on."""

    clean: tuple[Path, ...]
    """The directories that `clean_part` filled."""
    fates: tuple[Path, ...]
    """For each the file that `choose` wrote."""
    length: int
    """Characters from which a passage counts."""

    def decisive(self) -> list[Any]:
        """What the passages follow from."""
        return [
            self.length,
            [[clean.name, sha256_of(fate)] for clean, fate in zip(self.clean, self.fates, strict=True)],
        ]


def find_passages(passages: Passages, directory: Path) -> dict[str, Any]:
    """Write NUMBER.npy for each part: (m, 3), the row among its kept documents, first character and end of each cut."""
    kept = [np.load(file)["fate"] == KEPT for file in passages.fates]

    def read() -> Iterator[pa.StringArray]:
        for clean, keep in zip(passages.clean, kept, strict=True):
            start = 0
            for batch in batches(clean / "documents.parquet", ["text"]):
                yield batch["text"].filter(pa.array(keep[start : start + len(batch)]))
                start += len(batch)

    characters = sum(int(np.load(clean / "sizes.npy").sum()) for clean in passages.clean)
    spans = repeats(read, passages.length, characters)
    starts = np.cumsum([0, *(keep.sum() for keep in kept)])
    cuts = np.searchsorted(spans[:, 0], starts)
    for number, (start, begin, end) in enumerate(zip(starts.tolist(), cuts.tolist(), cuts[1:].tolist(), strict=False)):
        np.save(directory / f"{number}.npy", spans[begin:end] - [start, 0, 0])
    return {"passages": len(spans), "characters": int((spans[:, 2] - spans[:, 1]).sum())}


def cut(kept: pa.RecordBatch, spans: NDArray[np.int64]) -> tuple[pa.RecordBatch, pa.RecordBatch, NDArray[np.bool_]]:
    """The documents without passages, under the ids of what is left; those of which nothing is; which of all stay."""
    texts = without(kept["text"], spans)
    left = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0)
    gone = kept.filter(pc.invert(left))
    gone = gone.append_column("reason", pa.repeat(REASON, len(gone))).append_column(
        "of", pa.nulls(len(gone), pa.string())
    )
    shorter = with_text(kept, texts).filter(left)
    shorter = shorter.set_column(0, "id", hexadecimal(digests_of(shorter["text"])))
    return shorter, gone.cast(DROPPED), left.to_numpy(zero_copy_only=False)
