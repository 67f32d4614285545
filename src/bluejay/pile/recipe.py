"""What a corpus is: where its documents come from, how they are cleaned, mixed and split, what their tokens are."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bluejay.pile.sources import Source
from bluejay.pile.text.minhash import MinHashSettings
from bluejay.recipe import STRICT

UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
SMALLEST_VOCABULARY = 257
"""The 256 bytes and <|endoftext|>."""


@dataclass(frozen=True)
class TrainTokenizer:
    """A new byte-level BPE, made from the training part of the corpus."""

    __pydantic_config__ = STRICT
    vocab_size: int = 8192
    """Tokens, <|endoftext|> included."""
    sample: str = "50 MB"
    """How much text to learn from, at most: a number and kB, MB, GB or TB (powers of 1000)."""

    def __post_init__(self) -> None:
        if self.vocab_size < SMALLEST_VOCABULARY:
            raise ValueError(
                f"tokenizer.train.vocab_size is {self.vocab_size}; it must be at least {SMALLEST_VOCABULARY}"
            )
        parse_size(self.sample, "tokenizer.train.sample")

    @property
    def sample_bytes(self) -> int:
        """`sample` in bytes."""
        return parse_size(self.sample, "tokenizer.train.sample")


@dataclass(frozen=True)
class TokenizerChoice:
    """The tokenizer of the corpus: a new one, or one that exists."""

    __pydantic_config__ = STRICT
    train: TrainTokenizer | None = None
    """Make a new one."""
    path: str | None = None
    """A `tokenizer.json`, a directory that holds one, or "gpt2"."""

    def __post_init__(self) -> None:
        if (self.train is None) == (self.path is None):
            raise ValueError('tokenizer needs one of train = { vocab_size = 8192 } and path = "gpt2"')


@dataclass(frozen=True)
class Split:
    """The held-out parts. A document's part follows from its text and the seed, whatever else the corpus holds."""

    __pydantic_config__ = STRICT
    valid: float = 0.005
    """Share of the documents kept for validation."""
    test: float = 0.005
    """Share of the documents kept for tests."""

    def __post_init__(self) -> None:
        if self.valid < 0 or self.test < 0 or self.valid + self.test >= 1:
            raise ValueError("split.valid and split.test are shares from 0, and together below 1")


@dataclass(frozen=True)
class Substring:
    """Passages that occur again, removed from every document but the first (Lee et al. 2022)."""

    __pydantic_config__ = STRICT
    length: int = 200
    """Characters from which a repeated passage is removed (the paper's 50 tokens)."""

    def __post_init__(self) -> None:
        if self.length < 20:
            raise ValueError(f"dedup.substring.length is {self.length}; it must be at least 20 characters")


@dataclass(frozen=True)
class Dedup:
    """What counts as a copy. Equal texts always do."""

    __pydantic_config__ = STRICT
    near: MinHashSettings | None = None
    """MinHashSettings-copies count, too."""
    remove: bool = True
    """Keep one document of each cluster of near-copies; false: keep all, on the same side of the split."""
    substring: Substring | None = None


@dataclass(frozen=True)
class Decontaminate:
    """Documents that share a passage with a test set are dropped."""

    __pydantic_config__ = STRICT
    against: tuple[str, ...]
    """Files of test sets, or patterns of files: .jsonl (.gz, .zst), .parquet, .txt."""
    ngram: int = 13
    """Words of the shortest passage that counts (GPT-3's)."""

    def __post_init__(self) -> None:
        if self.ngram < 1 or not self.against:
            raise ValueError("decontaminate needs against = [FILES], and ngram from 1")


@dataclass(frozen=True)
class Mix:
    """How often components without `epochs` of their own are read."""

    __pydantic_config__ = STRICT
    temperature: float = 1.0
    """Shares are sizes to the power of 1/temperature: 1 keeps them, more lifts small components (T5's)."""
    most_epochs: float = 4.0
    """Bound on the repeats that follow from temperature or weights (Muennighoff et al. 2023 find four harmless)."""

    def __post_init__(self) -> None:
        if self.temperature < 1 or self.most_epochs < 1:
            raise ValueError("mix.temperature and mix.most_epochs are from 1")


@dataclass(frozen=True)
class Component:
    """One kind of text, counted and weighed by itself (The Pile, table 1)."""

    __pydantic_config__ = STRICT
    name: str
    source: tuple[Source, ...] = ()
    """Where its documents come from; of equal documents, the first stays."""
    licence: str = "from-metadata"
    """An SPDX expression for all of it, or "from-metadata": what each source says."""
    epochs: float | None = None
    """How often the training part holds each of its documents: 2 is twice, 0.5 is a random half of them."""
    weight: float | None = None
    """In place of epochs: the share of the training text, relative to the other components' weights."""
    filters: tuple[str, ...] = ()
    """Rules that drop documents, in their order: "language:en", "gopher", "c4" (docs/filters.md lists all)."""
    clean: tuple[Literal["unicode", "personal-data"], ...] = ()
    """unicode: NFC, control characters and line ends; personal-data: e-mail, phone and IP addresses replaced."""
    size: str | None = None
    """Its published or expected size, "227.12 GiB"; only the plan reads it."""
    unavailable: str | None = None
    """Why its text cannot be had any more; the component is listed in the plan and the card, and not built."""

    def __post_init__(self) -> None:
        if not self.source and self.unavailable is None:
            raise ValueError(f"component {self.name} has no source")
        if self.epochs is not None and self.weight is not None:
            raise ValueError(f"component {self.name} has epochs and weight; one follows from the other, so give one")
        for key, value in (("epochs", self.epochs), ("weight", self.weight)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"component {self.name} has {key} {value}; it must be above 0")
        if self.size is not None:
            parse_size(self.size, f"size of component {self.name}")

    @property
    def size_bytes(self) -> int | None:
        """`size` in bytes."""
        return None if self.size is None else parse_size(self.size, "size")


@dataclass(frozen=True)
class PileRecipe:
    """A corpus."""

    __pydantic_config__ = STRICT
    name: str
    """Letters, digits, dots, dashes and underscores."""
    component: tuple[Component, ...]
    """Its kinds of text."""
    tokenizer: TokenizerChoice
    split: Split = field(default_factory=Split)
    dedup: Dedup = field(default_factory=Dedup)
    decontaminate: Decontaminate | None = None
    mix: Mix = field(default_factory=Mix)
    jsonl: bool = False
    """Write the documents in their final order as .jsonl.zst, too, as The Pile was published."""
    seed: int = 42
    """Decides the split, the tokenizer's sample and the order of the documents."""
    output: str | None = None
    """The folder to build; `data/NAME` when not given."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(f"name is {self.name!r}; it may hold letters, digits, dots, dashes and underscores")
        names = [component.name for component in self.component]
        if not names:
            raise ValueError("the recipe has no [[component]]")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two components are named {name}")
        weighted = [component.name for component in self.component if component.weight is not None]
        if weighted and len(weighted) < len(self.built):
            raise ValueError(f"component {weighted[0]} has a weight, so every component needs one")

    @property
    def built(self) -> tuple[Component, ...]:
        """The components that can be had."""
        return tuple(component for component in self.component if component.unavailable is None)

    @property
    def directory(self) -> Path:
        """Where the corpus is built, resolved."""
        return Path(self.output or f"data/{self.name}").expanduser()


def parse_size(text: str, key: str) -> int:
    """Bytes from "50 MB" or "227.12 GiB"; ValueError, naming `key`, for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?b)\s*", text, re.IGNORECASE)
    if not match:
        raise ValueError(f'{key} is {text!r}; write a number and a unit, "50 MB"')
    return round(float(match[1]) * UNITS[match[2].lower()])
