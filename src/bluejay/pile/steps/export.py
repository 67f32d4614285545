"""Export documents as The Pile was published: .jsonl.zst, one frame per file, as its readers (lm_dataformat) expect."""

import json
from pathlib import Path

from bluejay.extras import install

LEVEL, THREADS = 3, 2
"""Settings of zstd in lm_dataformat's writer; the bytes are the same for every number of threads above none."""


def jsonl_lines(texts: list[str], component: str) -> list[bytes]:
    """One line per text: the JSON object {"text", "meta": {"pile_set_name"}}."""
    meta = json.dumps({"pile_set_name": component}, ensure_ascii=False)
    return [f'{{"text": {json.dumps(text, ensure_ascii=False)}, "meta": {meta}}}\n'.encode() for text in texts]


def compress(data: memoryview, path: Path) -> None:
    """Write one Zstandard frame. Raises ValueError: zstandard is not installed."""
    try:
        import zstandard
    except ImportError:
        raise ValueError(f"jsonl = true needs zstandard: {install('corpus')}") from None
    path.write_bytes(zstandard.ZstdCompressor(level=LEVEL, threads=THREADS).compress(data))
