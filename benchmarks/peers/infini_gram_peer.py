"""infini-gram on the ids of a token shard, for benchmarks/trace.py: `build PREFIX FOLDER`, `query FOLDER QUERIES`.

Each prints one JSON object. Documents begin with 65535, as infini-gram's own script writes them.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SEPARATOR, EOT = 65535, 50256


def build(prefix: Path, folder: Path) -> dict:
    """Write the ids in infini-gram's form, which is not timed, and have it build its suffix array, which is."""
    head = np.fromfile(f"{prefix}.idx", np.uint8, 34)
    n = int(head[18:26].view("<u8")[0])
    sizes = np.fromfile(f"{prefix}.idx", "<i4", n, offset=34)
    tokens = np.fromfile(f"{prefix}.bin", "<u2")
    starts = np.cumsum(sizes, dtype=np.int64) - sizes
    np.insert(tokens, starts, SEPARATOR).tofile(folder / "tokenized.0")
    (2 * (starts + np.arange(n))).astype("<u8").tofile(folder / "offset.0")
    counts = np.bincount(tokens, minlength=SEPARATOR)
    (folder / "unigram.0").write_text("".join(f"{id} {count}\n" for id, count in enumerate(counts) if count))
    del tokens
    began = time.perf_counter()
    options = ["--data_dir", folder, "--save_dir", folder, "--cpus", os.cpu_count(), "--mem", 8, "--ulimit", 1024]
    command = [sys.executable, "-m", "infini_gram.indexing", *map(str, options)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    files = sum((folder / name).stat().st_size for name in ("table.0", "tokenized.0", "offset.0"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"seconds": seconds, "bytes": files, "peak_of_one_process": peak}


def query(folder: Path, queries: Path) -> dict:
    """The spans of every query, (start, end, count), and the seconds that each took."""
    from infini_gram.engine import InfiniGramEngine

    engine = InfiniGramEngine(
        str(folder),
        eos_token_id=EOT,
        ds_prefetch_depth=0,
        sa_prefetch_depth=0,
        od_prefetch_depth=0,
        attribution_block_size=256,
        precompute_unigram_logprobs=True,
    )
    given = json.loads(queries.read_text())
    options = {"delim_ids": [], "min_len": given["min_tokens"], "max_cnt": given["max_count"], "enforce_bow": False}
    spans, seconds = [], []
    for ids in given["queries"]:
        began = time.perf_counter()
        found = engine.attribute(ids, **options)
        seconds.append(time.perf_counter() - began)
        spans.append([[span["l"], span["r"], span["count"]] for span in found["spans"]])
    return {"spans": spans, "seconds": seconds}


if __name__ == "__main__":
    verb, *paths = sys.argv[1:]
    print(json.dumps({"build": build, "query": query}[verb](*map(Path, paths))))
