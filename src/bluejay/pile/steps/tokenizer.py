"""The stage that makes the corpus's tokenizer: one that exists, or a new one from the training part."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bluejay.files import sha256_of
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.steps.clean import batches
from bluejay.pile.steps.dedup import KEPT, leading
from bluejay.pile.steps.mix import split_of, uniform
from bluejay.progress import say
from bluejay.tokenizer import Tokenizer


@dataclass(frozen=True)
class Vocabulary:
    """What `make_tokenizer` works on."""

    recipe: PileRecipe
    clean: tuple[Path, ...]
    """The directories that `clean_part` filled."""
    fates: tuple[Path, ...]
    """For each the file that `choose` wrote."""

    def decisive(self) -> list[Any]:
        """What the tokenizer follows from: all of the training text, where it is a new one."""
        choice, split = self.recipe.tokenizer, self.recipe.split
        if choice.path is not None:
            return [Tokenizer.load(choice.path).sha256]
        texts = [[clean.name, sha256_of(fate)] for clean, fate in zip(self.clean, self.fates, strict=True)]
        assert choice.train is not None
        return [asdict(choice.train), asdict(split), self.recipe.seed, texts]


def make_tokenizer(vocabulary: Vocabulary, directory: Path) -> dict[str, Any]:
    """Write `tokenizer.json` and its companion."""
    choice = vocabulary.recipe.tokenizer
    if choice.path is not None:
        Tokenizer.load(choice.path).save(directory)
        return {}
    assert choice.train is not None
    tokenizer = Tokenizer.train(sample(vocabulary, choice.train.sample_bytes), choice.train.vocab_size)
    if tokenizer.vocab_size < choice.train.vocab_size:
        say(f"the text gives only {tokenizer.vocab_size:,} of the {choice.train.vocab_size:,} tokens asked for")
    tokenizer.save(directory)
    return {}


def sample(vocabulary: Vocabulary, wanted: int) -> Iterator[str]:
    """The texts of the training part, or where that is larger than `wanted` bytes, of a random share of it."""
    recipe = vocabulary.recipe
    training, total = [], 0
    for clean, file in zip(vocabulary.clean, vocabulary.fates, strict=True):
        chosen = np.load(file)
        split = split_of(leading(chosen["stands"]), recipe.split, recipe.seed)
        training.append((chosen["fate"] == KEPT) & (split == 0))
        total += int(np.load(clean / "sizes.npy")[training[-1]].sum())
    for clean, inside in zip(vocabulary.clean, training, strict=True):
        own = leading(np.load(clean / "ids.npy"))
        drawn, start = inside & (uniform(own, recipe.seed, "sample") * total < wanted), 0
        for batch in batches(clean / "documents.parquet", ["text"]):
            yield from batch["text"].filter(pa.array(drawn[start : start + len(batch)])).to_pylist()
            start += len(batch)
