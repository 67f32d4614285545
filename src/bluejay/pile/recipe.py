"""What a corpus is: where its documents come from, how they are split, what their tokens are."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from bluejay.pile.sources import Source
from bluejay.recipe import STRICT

UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
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
class Component:
    """One kind of text, counted and weighed by itself (The Pile, table 1)."""

    __pydantic_config__ = STRICT
    name: str
    source: tuple[Source, ...]
    """Where its documents come from; of equal documents, the first stays."""
    licence: str = "from-metadata"
    """An SPDX expression for all of it, or "from-metadata": what each source says."""
    epochs: float = 1.0
    """How often the training part holds each of its documents: 2 is twice, 0.5 is a random half of them."""

    def __post_init__(self) -> None:
        if not self.source:
            raise ValueError(f"component {self.name} has no source")
        if not 0 < self.epochs < float("inf"):
            raise ValueError(f"component {self.name} has epochs {self.epochs}; it must be above 0")


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

    @property
    def directory(self) -> Path:
        """Where the corpus is built, resolved."""
        return Path(self.output or f"data/{self.name}").expanduser()


def parse_size(text: str, key: str) -> int:
    """Bytes from "50 MB"; ValueError, naming `key`, for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]b)\s*", text, re.IGNORECASE)
    if not match:
        raise ValueError(f'{key} is {text!r}; write a number and a unit, "50 MB"')
    return round(float(match[1]) * UNITS[match[2].lower()])
