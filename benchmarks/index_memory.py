"""Index a corpus in a process that imports nothing else; prints what it took as JSON. `trace.py` runs it.

python benchmarks/index_memory.py CORPUS
"""

import argparse
import json
import time
from pathlib import Path

from bluejay.trace.indexing import index


def most_memory() -> int:
    """The most memory that this program has had, in bytes. (`ru_maxrss` counts the program that started it, too.)"""
    status = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in status if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    corpus = parser.parse_args().corpus
    empty, began = most_memory(), time.perf_counter()
    made = index(corpus)
    seconds = time.perf_counter() - began
    figures = {"seconds": seconds, "bytes": made.bytes, "tokens": made.tokens, "peak": most_memory(), "empty": empty}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
