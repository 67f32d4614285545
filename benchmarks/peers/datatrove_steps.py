"""datatrove's part of benchmarks/pile.py: INPUT OUTPUT TOKENIZER WORKERS, in an environment that has it."""

import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer, DocumentTokenizerMerger
from datatrove.pipeline.writers import JsonlWriter


def main() -> None:
    source, output, tokenizer, workers = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    files, config = len(list(source.iterdir())), MinhashConfig()

    def run(name: str, tasks: int, *steps: object) -> None:
        LocalPipelineExecutor(list(steps), tasks=tasks, workers=workers, logging_dir=str(output / "logs" / name)).run()

    kept, signatures, buckets, removed, tokens = (
        str(output / name) for name in ("kept", "signatures", "buckets", "removed", "tokens")
    )
    filters = GopherRepetitionFilter(), GopherQualityFilter()
    run("filter", files, JsonlReader(str(source)), *filters, JsonlWriter(kept))
    run("sign", files, JsonlReader(kept), MinhashDedupSignature(signatures, config))
    run("bucket", config.num_buckets, MinhashDedupBuckets(signatures, buckets, config=config))
    run("cluster", 1, MinhashDedupCluster(buckets, removed, config=config))
    encode = DocumentTokenizer(tokens, tokenizer, eos_token="<|endoftext|>", seed=42)
    run("tokens", files, JsonlReader(kept), MinhashDedupFilter(removed), encode)
    run("merge", 1, DocumentTokenizerMerger(tokens, str(output / "merged"), "train", seed=42, progress=False))


if __name__ == "__main__":
    main()
