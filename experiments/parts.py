"""Parts of a corpus as token shards of their own, to be mixed in other proportions.

    python experiments/parts.py

writes `data/mini-pile-8k-parts/PART/tokens/train`, with the corpus's tokenizer beside it, for each part below.
"""

import argparse
import shutil
import sys

import numpy as np
from study import CORPUS, ROOT, hash_of_corpus

from bluejay.files import write_text
from bluejay.tokens import TokenShard, TokenWriter

PARTS = {
    "code": ("Github",),
    "questions": ("StackExchange", "Technical documentation"),
    "law": ("FreeLaw",),
    "prose": ("Wikipedia (en)", "Gutenberg (PG-19)", "FreeLaw", "Enron Emails", "EuroParl", "Pile-CC", "ArXiv"),
}
"""Part -> components of the corpus."""


def shard_of(part: str) -> str:
    """The training shard of a part, from the folder of the project."""
    return f"{CORPUS}-parts/{part}/tokens/train"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    shard = TokenShard(ROOT / CORPUS / "tokens" / "train")
    names, component = shard.components()
    vocab_size = 8192
    made_of = hash_of_corpus(ROOT / CORPUS)
    for part, components in PARTS.items():
        target = ROOT / shard_of(part)
        whole = target.parents[1] / "made-of"  # written last
        if whole.exists() and whole.read_text(encoding="utf-8") == made_of:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        wanted = np.isin(component, [names.index(name) for name in components])
        with TokenWriter(target, vocab_size) as writer:
            for number in wanted.nonzero()[0].tolist():
                writer.add(shard[number])
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(ROOT / CORPUS / file, target.parents[1] / file)
        write_text(whole, made_of)
        print(f"{part}: {writer.length:,} tokens", file=sys.stderr)


if __name__ == "__main__":
    main()
