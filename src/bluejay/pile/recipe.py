"""The recipe of a corpus: its sources, how documents are cleaned, mixed and split, and its tokenizer."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bluejay.fields import parse_size
from bluejay.files import replaced_of, unfinished_of
from bluejay.pile.sources import Source
from bluejay.pile.text.minhash import MinHashSettings
from bluejay.recipe import STRICT, NotEmpty, PathText, at_home
from bluejay.testsets.catalogue import PREFIX, named

MIN_VOCAB_SIZE, MAX_VOCAB_SIZE = 257, 10_000_000
"""The 256 bytes and <|endoftext|>; and more than any text gives, for which the trainer allocates memory at once."""
MAX_EPOCHS = 100_000
"""More copies of each document than anybody wants."""


@dataclass(frozen=True)
class TrainTokenizer:
    """A new byte-level BPE, trained on the training split of the corpus."""

    __pydantic_config__ = STRICT
    vocab_size: int = 8192
    """Size of the vocabulary, <|endoftext|> included."""
    sample: str = "50 MB"
    """Amount of text to train on, at most: a number and kB, MB, GB or TB (powers of 1000)."""

    def __post_init__(self) -> None:
        if not MIN_VOCAB_SIZE <= self.vocab_size <= MAX_VOCAB_SIZE:
            limits = f"at least {MIN_VOCAB_SIZE} and at most {MAX_VOCAB_SIZE:,}"
            raise ValueError(f"tokenizer.train.vocab_size is {self.vocab_size}; it must be {limits}")
        if not self.sample_bytes:
            raise ValueError(f"tokenizer.train.sample is {self.sample!r}, which is not a text to train on")

    @property
    def sample_bytes(self) -> int:
        """`sample` in bytes."""
        return parse_size(self.sample, "tokenizer.train.sample")


@dataclass(frozen=True)
class TokenizerChoice:
    """The tokenizer of the corpus: a new one or an existing one."""

    __pydantic_config__ = STRICT
    train: TrainTokenizer | None = None
    """Train a new tokenizer."""
    path: PathText | None = None
    """An existing tokenizer: a `tokenizer.json`, a directory that holds one, or "gpt2"."""

    def __post_init__(self) -> None:
        if (self.train is None) == (self.path is None):
            raise ValueError('tokenizer needs one of train = { vocab_size = 8192 } and path = "gpt2"')


@dataclass(frozen=True)
class Split:
    """The held-out splits. The split of a document follows from its text and the seed alone, unless it is cut."""

    __pydantic_config__ = STRICT
    valid: float = 0.005
    """Share of the documents held out for validation."""
    test: float = 0.005
    """Share of the documents held out for tests."""
    least: str = "64 kB"
    """Least text of each component in a split that has a share, and at least 0.5 % of it. What is missing is cut out of
    training documents at the ends of paragraphs or lines; "0 kB" cuts nothing."""

    def __post_init__(self) -> None:
        if not (self.valid >= 0 and self.test >= 0 and self.valid + self.test < 1):
            raise ValueError("split.valid and split.test are shares from 0, and together below 1")
        parse_size(self.least, "split.least")

    @property
    def least_bytes(self) -> int:
        """`least` in bytes."""
        return parse_size(self.least, "split.least")


@dataclass(frozen=True)
class Substring:
    """Remove repeated passages from every document but the first (Lee et al. 2022)."""

    __pydantic_config__ = STRICT
    length: int = 200
    """Characters of the shortest passage that is removed; the default is about the paper's 50 tokens."""

    def __post_init__(self) -> None:
        if self.length < 20:
            raise ValueError(f"dedup.substring.length is {self.length}; it must be at least 20 characters")


@dataclass(frozen=True)
class Dedup:
    """De-duplication. Documents of equal text are always copies."""

    __pydantic_config__ = STRICT
    near: MinHashSettings | None = None
    """Settings for finding near-copies; without them, only equal texts are copies."""
    remove: bool = True
    """Keep one document of each cluster of near-copies; if false, keep all of a cluster, in the same split."""
    substring: Substring | None = None
    """Settings for removing repeated passages; without them, passages stay."""


@dataclass(frozen=True)
class Decontaminate:
    """Drop documents that share a passage with a test set."""

    __pydantic_config__ = STRICT
    against: tuple[str, ...]
    """Files of test sets, or patterns of files, also compressed: .jsonl, .json, .parquet or plain text; or the names of
    known ones: eval:hellaswag."""
    ngram: int = 13
    """Words of the shortest passage that counts; the default is GPT-3's."""

    def __post_init__(self) -> None:
        if self.ngram < 1 or not self.against:
            raise ValueError("decontaminate needs against = [FILES], and ngram from 1")
        for name in self.against:
            if name.startswith(PREFIX):
                named(name.removeprefix(PREFIX))


@dataclass(frozen=True)
class Mix:
    """How often components that do not set `epochs` are read."""

    __pydantic_config__ = STRICT
    temperature: float = 1.0
    """Shares are proportional to size ** (1 / temperature), as in T5: above 1, small components gain."""
    most_epochs: float = 4.0
    """Limit on the epochs that follow from temperature or weights; four are harmless (Muennighoff et al. 2023)."""

    def __post_init__(self) -> None:
        if not (self.temperature >= 1 and self.most_epochs >= 1):
            raise ValueError("mix.temperature and mix.most_epochs are from 1")


@dataclass(frozen=True)
class Component:
    """One kind of text, counted and weighted by itself (The Pile, table 1)."""

    __pydantic_config__ = STRICT
    name: str
    """The name of the component, which no other of the corpus has."""
    source: tuple[Source, ...] = ()
    """The sources of its documents; of equal documents, the first stays."""
    licence: str = "from-metadata"
    """An SPDX expression for the whole component, or "from-metadata": the licence that each source gives."""
    epochs: float | None = None
    """How often the training split holds each document: 2 means twice, 0.5 a random half of them."""
    weight: float | None = None
    """Share of the training text, relative to the weights of the other components; excludes `epochs`."""
    filters: tuple[str, ...] = ()
    """Filters that drop documents, in order: "language:en", "gopher", "c4" (docs/filters.md lists all)."""
    clean: tuple[Literal["unicode", "personal-data"], ...] = ()
    """unicode: NFC, control characters and line ends; personal-data: e-mail, phone and IP addresses replaced."""
    size: str | None = None
    """The published or expected size, "227.12 GiB", which only `bluejay pile plan` uses."""
    unavailable: str | None = None
    """Why the text is not available any more: the component is listed in the plan and the card, but not built."""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError('a component has an empty name; give it one, as in name = "Books"')
        if not self.source and self.unavailable is None:
            raise ValueError(f"component {self.name} has no source")
        if self.epochs is not None and self.weight is not None:
            raise ValueError(f"component {self.name} has epochs and weight; one follows from the other, so give one")
        for key, value in (("epochs", self.epochs), ("weight", self.weight)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"component {self.name} has {key} {value}; it must be above 0")
        if self.epochs is not None and self.epochs > MAX_EPOCHS:
            raise ValueError(f"component {self.name} has epochs {self.epochs:g}; it must be at most {MAX_EPOCHS:,}")
        if self.size is not None:
            parse_size(self.size, f"size of component {self.name}")

    @property
    def size_bytes(self) -> int | None:
        """`size` in bytes."""
        return None if self.size is None else parse_size(self.size, "size")


@dataclass(frozen=True)
class PileRecipe:
    """A whole corpus."""

    __pydantic_config__ = STRICT
    name: str
    """Name of the corpus: letters, digits, dots, dashes and underscores."""
    component: tuple[Component, ...]
    """The kinds of text of the corpus."""
    tokenizer: TokenizerChoice
    split: Split = field(default_factory=Split)
    dedup: Dedup = field(default_factory=Dedup)
    decontaminate: Decontaminate | None = None
    mix: Mix = field(default_factory=Mix)
    jsonl: bool = False
    """Also write the documents in their final order as .jsonl.zst, as The Pile was published."""
    index: bool = False
    """Also index the corpus, so that texts can be traced in it (`bluejay index`); it takes 3.6 bytes a token."""
    seed: int = 42
    """Seed of the split, the tokenizer's sample and the order of the documents."""
    output: str | None = None
    """The folder of the corpus; `data/NAME` when not given."""
    storage: NotEmpty | None = None
    """A place in object storage, s3://BUCKET/FOLDER, to which the corpus and the outputs of all steps are copied. A
    build goes on from there on any machine, and the workers of a cluster need no common disk."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(f"name is {self.name!r}; it may hold letters, digits, dots, dashes and underscores")
        if self.directory.name in ("", ".."):
            raise ValueError(f"output is {self.output!r}, which has no name; name a folder, such as data/{self.name}")
        names = [component.name for component in self.component]
        if not names:
            raise ValueError("the recipe has no [[component]]")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two components are named {name}")
        weighted = [component.name for component in self.component if component.weight is not None]
        if weighted and any(component.weight is None for component in self.built):
            raise ValueError(f"component {weighted[0]} has a weight, so every component needs one")

    @property
    def built(self) -> tuple[Component, ...]:
        """The components that are available."""
        return tuple(component for component in self.component if component.unavailable is None)

    @property
    def directory(self) -> Path:
        """The folder of the corpus."""
        return Path(at_home(self.output or f"data/{self.name}"))

    @property
    def stages(self) -> Path:
        """The folder of the outputs of the steps."""
        return self.directory.with_name(f"{self.directory.name}.stages")

    @property
    def written(self) -> tuple[Path, ...]:
        """The folders that builds write, those that are there only for a time, too."""
        return self.directory, self.stages, unfinished_of(self.directory), replaced_of(self.directory)
