"""datasketch's part of benchmarks/pile.py: a .jsonl of texts; prints seconds and the number of clusters."""

import json
import sys
import time
from pathlib import Path

from datasketch import MinHash, MinHashLSH


def main() -> None:
    texts = [json.loads(line)["text"] for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    began = time.perf_counter()
    index, root = MinHashLSH(num_perm=112, params=(14, 8)), list(range(len(texts)))

    def find(row: int) -> int:
        while root[row] != row:
            root[row] = row = root[root[row]]
        return row

    signatures = []
    for row, text in enumerate(texts):
        words = text.lower().split()
        shingles = {" ".join(words[at : at + 5]).encode() for at in range(max(len(words) - 4, 1))}
        signature = MinHash(num_perm=112, seed=1)
        signature.update_batch(list(shingles))
        for other in index.query(signature):
            if signature.jaccard(signatures[other]) >= 0.7:
                root[find(row)] = find(other)
        index.insert(row, signature)
        signatures.append(signature)
    print(time.perf_counter() - began, len({find(row) for row in range(len(texts))}))


if __name__ == "__main__":
    main()
