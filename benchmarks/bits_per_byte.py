"""Does the quickstart model compress held-out code better than `zstd -19` with the training text as its dictionary?

An optional argument names another model trained on the same corpus.
"""

import argparse
import json

import pyarrow.parquet
import zstandard
from report import CORPUS, MODEL, report, result

import bluejay
from bluejay.progress import progress

CODE_COMPONENT = "Python"
"""The component of the quickstart corpus that consists of code."""


def texts(split: str, code_only: bool) -> list[str]:
    """The documents of a split, in a fixed order."""
    table = pyarrow.parquet.read_table(CORPUS / "documents" / f"{split}.parquet", columns=["text", "meta"])
    rows = table.to_pylist()
    return [row["text"] for row in rows if not code_only or json.loads(row["meta"])["component"] == CODE_COMPONENT]


def zstd_bits_per_byte(held_out: bytes, training: bytes) -> float:
    """Level 19, a window over all data, the training text as a raw dictionary; the better of with and without
    long-distance matching."""
    dictionary = zstandard.ZstdCompressionDict(training, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    sizes = []
    for long_distance in (False, True):
        settings = zstandard.ZstdCompressionParameters.from_level(19, window_log=27, enable_ldm=long_distance)
        compressor = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=settings)
        sizes.append(len(compressor.compress(held_out)))
    return 8 * min(sizes) / len(held_out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=MODEL, help=f"a model directory (default: {MODEL})")
    model = bluejay.load(parser.parse_args().model)
    held_out = texts("valid", code_only=True)
    bits = 0.0
    with progress("scoring", len(held_out), "documents") as bar:
        for text in held_out:
            score = model.score(text)
            bits += score.bits_per_byte * score.n_bytes
            bar.advance(1)
    whole = "".join(held_out).encode()
    ours = bits / len(whole)
    peer = zstd_bits_per_byte(whole, "".join(texts("train", code_only=False)).encode())
    row = result("held-out code vs zstd -19 with the training text", ours, peer, "bits per byte", 1.0, True)
    report("bits_per_byte", [row])


if __name__ == "__main__":
    main()
