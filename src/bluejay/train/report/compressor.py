"""A compressor's bits per byte on held-out text, beside which a model's loss is shown."""

import lzma
from pathlib import Path

import pyarrow.parquet as pq


def xz_bits_per_byte(corpus: Path) -> float | None:
    """Bits per byte of `xz -9` on the held-out documents of a corpus; None if they are not there."""
    folder = corpus / "documents" / "valid.parquet"
    if not folder.is_dir():
        return None
    text = "".join(pq.read_table(folder, columns=["text"])["text"].to_pylist()).encode()
    return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text) if text else None
