"""Make the tokenizer of a corpus: an existing one, or a new one trained on the training split."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bluejay.files import sha256_of
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.steps.dedup import Decisions
from bluejay.pile.steps.merge import listed
from bluejay.pile.steps.mix import uniform
from bluejay.pile.text.document_table import read_texts, text_hashes
from bluejay.progress import say
from bluejay.storage import ensure_local
from bluejay.tokenizer import Tokenizer


@dataclass(frozen=True)
class MakeTokenizer:
    """Writes `tokenizer.json` and `tokenizer_config.json`."""

    name: ClassVar[str] = "tokenizer"
    recipe: PileRecipe
    clean: Path
    """The listing of the documents of each part."""
    decisions: Path
    """The listing of the `Decisions` about them."""

    def key(self) -> list[Any]:
        """The existing tokenizer; or all training text, the vocabulary's size and the size of the sample."""
        choice, split = self.recipe.tokenizer, self.recipe.split
        if choice.path is not None:
            return [Tokenizer.load(choice.path).sha256]
        texts = [
            [clean.name, sha256_of(decided)]
            for clean, decided in zip(listed(self.clean), listed(self.decisions), strict=True)
        ]
        assert choice.train is not None
        return [asdict(choice.train), asdict(split), self.recipe.seed, texts]

    def run(self, out: Path) -> dict[str, Any]:
        choice = self.recipe.tokenizer
        if choice.path is not None:
            Tokenizer.load(choice.path).save(out)
            return {}
        assert choice.train is not None
        tokenizer = Tokenizer.train(self.sample(choice.train.sample_bytes), choice.train.vocab_size)
        if tokenizer.vocab_size < choice.train.vocab_size:
            say(f"the text gives only {tokenizer.vocab_size:,} of the {choice.train.vocab_size:,} tokens asked for")
        tokenizer.save(out)
        return {}

    def sample(self, sample_bytes: int) -> Iterator[str]:
        """Yield the texts of the training split; of a split above `sample_bytes`, a random share of about that size."""
        recipe = self.recipe
        training, total = [], 0
        for clean, path in zip(listed(self.clean), listed(self.decisions), strict=True):
            decisions = Decisions.load(path)
            training.append(decisions.kept & (decisions.splits(recipe.split, recipe.seed) == 0))
            total += int(np.load(ensure_local(clean / "sizes.npy"))[training[-1]].sum())
        for clean, inside in zip(listed(self.clean), training, strict=True):
            hashes = text_hashes(np.load(ensure_local(clean / "ids.npy")))
            drawn = inside & (uniform(hashes, recipe.seed, "sample") * total < sample_bytes)
            for texts in read_texts(clean / "documents.parquet", drawn):
                yield from texts.to_pylist()
