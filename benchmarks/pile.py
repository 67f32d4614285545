"""Compare the corpus builder with datatrove on the same documents and steps, and with datasketch and tokenizers.

The documents are those of the mini-pile (`bluejay pile build recipes/pile/mini-pile.toml`), as eight .jsonl.zst files.
The steps: read; Gopher's repetition and quality rules; MinHash with 14 bands of 8 over 5 words; one document of
each cluster; GPT-2 tokens; shuffle. datatrove, which takes a quarter of an hour, and datasketch need an environment of
their own, whose Python $DATATROVE_PYTHON names: `pip install 'datatrove[processing,io]==0.10.1' spacy datasketch`.
Without it, their rows are left out, with a message. `--scale` measures time and memory from 0.1 to 5 GB instead.
"""

import argparse
import itertools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from numpy.typing import NDArray
from report import interleaved, report, result

from bluejay.pile.text import clusters, minhash
from bluejay.pile.text.encoder import Encoder
from bluejay.pile.text.minhash import MinHashSettings
from bluejay.progress import say
from bluejay.tokenizer import Tokenizer

MINI_PILE, WORK = Path("data/mini-pile"), Path("data/benchmark-pile")
PEER = os.environ.get("DATATROVE_PYTHON", "")
PEERS = Path(__file__).parent / "peers"
FILES, WORKERS, LAPS = 8, 2, 20
SIZES = (0.1, 0.5, 2.0, 5.0)
"""GB of text of the builds that `--scale` measures."""
SAMPLE_DOCUMENTS = 4000
"""Documents on which de-duplication by itself and tokenizing are compared."""
RECIPE = """
name = "benchmark"
tokenizer = {{ path = "gpt2" }}
split = {{ valid = 0.0, test = 0.0 }}
dedup = {{ near = {{}} }}
[[component]]
name = "Text"
source = [{{ kind = "jsonl", path = "{folder}/*.jsonl.zst" }}]
filters = ["gopher-repetition", "gopher"]
"""


def texts(batch: int = 256) -> Iterator[list[str]]:
    """Yield the documents of the mini-pile in batches."""
    for file in sorted((MINI_PILE / "documents").glob("t*.parquet/*.parquet")):
        for rows in pq.ParquetFile(file).iter_batches(batch, columns=["text"]):
            yield rows["text"].to_pylist()


def write_input(folder: Path, wanted: float = math.inf) -> int:
    """Write all documents as .jsonl.zst, or `wanted` bytes of them, repeated with changed words; gives the bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parts = FILES if wanted == math.inf else max(FILES, int(wanted // 64e6))
    written = 0
    with ExitStack() as stack:
        streams = [stack.enter_context(zstandard.open(folder / f"{n:03}.jsonl.zst", "wb")) for n in range(parts)]
        for number, document in enumerate(documents(1 if wanted == math.inf else LAPS)):
            streams[number % parts].write(json.dumps({"text": document}).encode() + b"\n")
            written += len(document.encode())
            if written >= wanted:
                break
    return written


def documents(laps: int) -> Iterator[str]:
    """Yield the documents of the mini-pile, and then again with changed words."""
    for lap in range(laps):
        for text in itertools.chain.from_iterable(texts()):
            yield changed(text, lap) if lap else text


def changed(text: str, lap: int) -> str:
    """Change every third word of a text, so that it is no near-copy."""
    words = text.split(" ")
    words[lap % 3 :: 3] = [word + chr(ord("a") + lap) for word in words[lap % 3 :: 3]]
    return " ".join(words)


def measured(command: list[str]) -> tuple[float, float]:
    """Run a command; gives its wall time in seconds, and the peak memory of it and its children together, in GB."""
    began, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, memory_of(process.pid))
        time.sleep(0.2)
    if process.returncode:
        sys.exit(f"error: {' '.join(command)} failed")
    return time.perf_counter() - began, peak / 1e9


def memory_of(pid: int) -> int:
    """Bytes of memory of a process and its descendants; shared memory counts once (PSS, Linux)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        children = [
            word for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()
        ]
    except OSError:  # the process has ended
        return 0
    own = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return 1024 * own + sum(memory_of(int(child)) for child in children)


def build_ours(source: Path) -> tuple[float, float]:
    """Build a corpus from a folder of documents; gives seconds and GB."""
    for folder in ("ours", "ours.stages"):
        shutil.rmtree(WORK / folder, ignore_errors=True)
    recipe = WORK / "recipe.toml"
    recipe.write_text(RECIPE.format(folder=source))
    options = ["--output", str(WORK / "ours"), "--workers", str(WORKERS)]
    return measured([str(Path(sys.executable).with_name("bluejay")), "pile", "build", str(recipe), *options])


def build_theirs(source: Path) -> tuple[float, float]:
    """Run the same steps in datatrove; gives seconds and GB."""
    shutil.rmtree(WORK / "theirs", ignore_errors=True)
    Tokenizer.load("gpt2").save(WORK / "tokenizer")
    arguments = [str(source), str(WORK / "theirs"), str(WORK / "tokenizer" / "tokenizer.json"), str(WORKERS)]
    return measured([PEER, str(PEERS / "datatrove_steps.py"), *arguments])


def sample() -> list[str]:
    """A sample of the documents of all components."""
    every = json.loads((MINI_PILE / "report.json").read_text())["components"].values()
    step = sum(part["documents"] for entry in every for part in entry["splits"].values()) // SAMPLE_DOCUMENTS
    return list(itertools.islice(itertools.chain.from_iterable(texts()), 0, None, step))


def near_duplicates(texts: list[pa.StringArray], near: MinHashSettings) -> NDArray[np.int64]:
    """The cluster of each document, all in memory: 500 bytes per document."""
    found = [np.zeros((0, near.bands * near.rows), np.uint32)]
    found += [minhash.signatures(part, near) for part in texts]
    signatures = np.concatenate(found)
    keys, rows = minhash.band_keys(signatures, near), np.arange(len(signatures))
    pairs = [clusters.candidate_pairs(keys[:, band], rows) for band in range(near.bands)]
    pairs = clusters.unique_pairs(np.concatenate(pairs))
    return clusters.components(pairs[clusters.agreeing_pairs(pairs, signatures, near)], len(signatures))


def dedup_row(documents: list[str]) -> dict:
    """MB per second of de-duplication by itself, in memory, on one core each."""
    path, size = WORK / "sample.jsonl", sum(len(text.encode()) for text in documents) / 1e6
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    batches = [pa.array(documents[at : at + 256]) for at in range(0, len(documents), 256)]
    ours, theirs = [], []
    for _ in range(3):
        began = time.perf_counter()
        found = len(np.unique(near_duplicates(batches, MinHashSettings())))
        ours.append(time.perf_counter() - began)
        answer = subprocess.run([PEER, str(PEERS / "datasketch_dedup.py"), str(path)], capture_output=True, check=True)
        seconds, their_clusters = answer.stdout.split()
        theirs.append(float(seconds))
    say(f"{len(documents):,} documents: {found:,} clusters here, {int(their_clusters):,} by datasketch")
    rate, their_rate = (size / statistics.median(seconds) for seconds in (ours, theirs))
    return result("near-copies alone vs datasketch", rate, their_rate, "MB/s", 10.0)


def tokens_row(documents: list[str]) -> dict:
    """MB per second of tokenizing on all cores. Raises AssertionError: an id differs."""
    tokenizer = Tokenizer.load("gpt2")
    encoder, size = Encoder(tokenizer, parallel=True), sum(len(text.encode()) for text in documents) / 1e6
    ids, _ = encoder(documents)
    assert ids.tolist() == [id for text in tokenizer.encode_batch(documents) for id in [*text, tokenizer.eot]]
    ours, theirs = interleaved(lambda: encoder(documents), lambda: tokenizer.encode_batch(documents), rounds=5)
    return result("tokenising vs tokenizers, ids equal", size / ours, size / theirs, "MB/s", 80 / 12)


def compare() -> None:
    """Measure the rows against peers."""
    source = WORK / "input"
    size = write_input(source) / 1e6
    say(f"{size:,.0f} MB of text")
    documents = sample()
    rows = [tokens_row(documents)]
    if PEER:
        rows.append(dedup_row(documents))
        ours, memory = build_ours(source)
        theirs, their_memory = build_theirs(source)
        rows.append(result("documents to tokens vs datatrove", size / ours, size / theirs, "MB/s", 20.0))
        rows.append(result("most memory vs datatrove", memory, their_memory, "GB", 1.0, lower_is_better=True))
    else:
        say("datatrove and datasketch are not installed: DATATROVE_PYTHON names no Python that has them")
    report("pile", rows)


def scale() -> None:
    """Measure one build of each size; speed is compared with that of the smallest size."""
    rows, first = [], 0.0
    for gigabytes in SIZES:
        size = write_input(WORK / "input", gigabytes * 1e9) / 1e6
        seconds, memory = build_ours(WORK / "input")
        first = first or size / seconds
        rows.append(result(f"{gigabytes} GB vs 0.1 GB", size / seconds, first, "MB/s", 1.0))
        rows.append(result(f"{gigabytes} GB, most memory", memory, 2.0, "GB", 1.0, lower_is_better=True))
        say(json.dumps(rows[-2:]))
    report("pile scale", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", action="store_true", help="measure from 0.1 to 5 GB")
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    if not MINI_PILE.exists():
        say(f"nothing measured: {MINI_PILE} is not there; bluejay pile build recipes/pile/mini-pile.toml makes it")
        report("pile", [])
    elif options.scale:
        scale()
    else:
        compare()


if __name__ == "__main__":
    main()
