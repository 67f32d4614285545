"""What a model must be better than: bits per byte of simpler models and of compressors on held-out text.

    python experiments/baselines.py RECIPE

The simpler models are of single tokens and of n-grams, counted on the very sequences that a run of RECIPE reads. The
compressors get the held-out text of a component in one piece, where a model gets its documents one by one; zstd has the
last 128 MiB of those sequences' text as its dictionary. One line is appended to `experiments/results/baselines.jsonl`;
its `documents` are as those of a model, for the simpler models.
"""

import argparse
import lzma
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from measure import held_out
from ngrams import KneserNey
from numpy.typing import NDArray
from study import ROOT, hash_of_corpus, record

from bluejay import recipe as recipes
from bluejay.machine import processor
from bluejay.progress import progress, say
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import corpus_of
from bluejay.train.data.batches import Batches, open_sources
from bluejay.train.recipe import TrainRecipe

ORDER = 5
WINDOW_BITS = 27
"""The largest window that every zstd reads: 128 MiB."""

Documents = list[NDArray[Any]]


def sequences_of(recipe: TrainRecipe, tokenizer: Tokenizer) -> Documents:
    """The sequences that a run reads, in order."""
    sources = open_sources(recipe.data, tokenizer)
    batches = Batches(sources, recipe.data.train, recipe.batch_rows, recipe.seed, recipe.steps)
    count = recipe.steps * recipe.batch_rows
    with progress("reading", count, "sequences") as bar:
        found = []
        for number in range(count):
            found.append(batches.sequence(number)[0])
            bar.advance(1)
    return found


def unigrams(sequences: Documents, vocab_size: int) -> Callable[[NDArray[Any]], float]:
    """The bits that a document takes if tokens are as frequent as in the sequences; each is counted once more."""
    counts = 1.0 + np.bincount(np.concatenate(sequences), minlength=vocab_size)
    bits = -np.log2(counts / counts.sum())
    return lambda document: float(bits[document].sum())


def zstd_bytes(text: bytes, dictionary: zstandard.ZstdCompressionDict) -> int:
    """The size of a text at level 19, with or without matching over long distances, whichever is smaller."""
    sizes = []
    for long_distance in (False, True):
        settings = zstandard.ZstdCompressionParameters.from_level(19, window_log=WINDOW_BITS, enable_ldm=long_distance)
        compressor = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=settings)
        sizes.append(len(compressor.compress(text)))
    return min(sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    recipe = recipes.load(TrainRecipe, options.recipe)
    corpus = corpus_of(recipe.data.held_out)
    tokenizer = Tokenizer.load(corpus)
    table, parts = tokenizer.token_bytes(), held_out(corpus)
    sequences = sequences_of(recipe, tokenizer)
    models = {"unigram": unigrams(sequences, tokenizer.vocab_size)}
    say(f"counting n-grams of up to {ORDER} tokens")
    models[f"{ORDER}-gram"] = KneserNey(sequences, tokenizer.vocab_size, tokenizer.eot, ORDER).bits
    last = b"".join(table[token] for one in sequences[-(2**WINDOW_BITS) // len(sequences[0]) :] for token in one[:-1])
    dictionary = zstandard.ZstdCompressionDict(last[-(2**WINDOW_BITS) :], dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    bits_per_byte: dict[str, dict[str, float]] = {}
    of_documents: dict[str, dict[str, list[tuple[float, int]]]] = {kind: {} for kind in models}
    for name, documents in parts.items():
        texts = [b"".join(table[token] for token in document.tolist()) for document in documents]
        text = b"".join(texts)
        for kind, bits_of in models.items():
            of_documents[kind][name] = [
                (round(bits_of(document), 1), len(one)) for document, one in zip(documents, texts, strict=True)
            ]
        bits = {kind: sum(value for value, _ in of_documents[kind][name]) for kind in models}
        bits["xz"] = 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
        bits["zstd, dictionary"] = 8 * zstd_bytes(text, dictionary)
        bits_per_byte[name] = {kind: round(value / len(text), 4) for kind, value in bits.items()}
        say(f"{name}: " + ", ".join(f"{kind} {value:.3f}" for kind, value in bits_per_byte[name].items()))
    line = {
        "recipe": options.recipe.resolve().relative_to(ROOT).as_posix(),
        "corpus": hash_of_corpus(corpus),
        "tokens": sum(len(one) - 1 for one in sequences),
        "bits_per_byte": bits_per_byte,
        "documents": of_documents,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "processor": processor(),
        "date": date.today().isoformat(),
    }
    record("baselines", line)


if __name__ == "__main__":
    main()
