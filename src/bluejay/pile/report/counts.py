"""The counts of a build: `report.json`, whose presence says that the corpus is complete."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bluejay.files import parse_json, write_text
from bluejay.pile.steps import passages
from bluejay.pile.steps.mix import SPLITS

NAME = "report.json"
"""The name of the file with the report, in the folder of the corpus."""


@dataclass
class SplitCounts:
    """Counts of one component in one split."""

    documents: int = 0
    bytes: int = 0
    """UTF-8 bytes of the text."""
    tokens: int = 0
    """Tokens in the shard: each document as often as the component's epochs say, <|endoftext|> included."""


@dataclass
class ComponentReport:
    """Counts of one component."""

    unavailable: str | None = None
    """Why the component is not built."""
    missing: list[str] = field(default_factory=list)
    """Why optional sources are missing."""
    found: int = 0
    """Documents and skipped pieces: kept + dropped + skipped - added."""
    read: int = 0
    """Documents that the sources gave."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Pieces of sources that gave no document, by reason."""
    added: int = 0
    """Documents more than before that came of dividing some between training and held-out text."""
    held_out: dict[str, int] = field(default_factory=dict)
    """Bytes that were cut out of training documents, by split."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Documents that are in no split, by reason."""
    replaced: dict[str, int] = field(default_factory=dict)
    """Personal data replaced by placeholders, by kind."""
    epochs: float = 1.0
    """How often the training split holds each document, on average."""
    splits: dict[str, SplitCounts] = field(default_factory=lambda: {name: SplitCounts() for name in SPLITS})
    licences: dict[str, int] = field(default_factory=dict)
    """Kept documents by licence."""
    languages: dict[str, int] = field(default_factory=dict)
    """A random sample of the kept documents by language."""
    lengths: dict[str, int] = field(default_factory=dict)
    """Kept documents by the power of two below their bytes."""
    samples: list[tuple[float, str, str]] = field(default_factory=list)
    """The beginnings of a few documents: the random number that drew each, its URL and its text."""
    inputs: list[dict[str, str]] = field(default_factory=list)
    """Name and sha256 of the files that were read."""

    @property
    def kept(self) -> int:
        """Documents in all splits."""
        return sum(counts.documents for counts in self.splits.values())

    def require_conserved(self, name: str, kept: int) -> None:
        """Assert that every document found is kept, dropped or skipped; `name` is the component's."""
        accounted = kept + sum(self.dropped.values()) + sum(self.skipped.values())
        assert self.found + self.added == accounted, f"{name}: {self.found} found, {accounted} accounted for"

    def add(self, encoded: dict[str, Any]) -> None:
        """Add the counts of one encoded part."""
        for split, counts in encoded["splits"].items():
            for key in ("documents", "bytes", "tokens"):
                setattr(self.splits[split], key, getattr(self.splits[split], key) + counts[key])
        if encoded["emptied"]:
            add_counts(self.dropped, {passages.REASON: encoded["emptied"]})
        for key in ("licences", "languages", "lengths"):
            add_counts(getattr(self, key), encoded[key])
        self.samples = sorted([*self.samples, *map(tuple, encoded["samples"])])[:2]


@dataclass
class Report:
    """Counts of one build, filled in as its steps finish."""

    name: str
    recipe_sha256: str
    """Hash of the recipe, by which a later build finds that the corpus is complete and up to date."""
    vocab_size: int = 0
    tokenizer_sha256: str = ""
    components: dict[str, ComponentReport] = field(default_factory=dict)
    near: dict[str, int] = field(default_factory=dict)
    """Near-copies: candidates and pairs (both counted once per band), members of clusters, clusters."""
    passages: dict[str, int] = field(default_factory=dict)
    """Repeated passages that were cut out: how many, and their characters."""

    def total(self, split: str) -> SplitCounts:
        """The counts of a split over all components."""
        parts = [component.splits[split] for component in self.components.values()]
        return SplitCounts(sum(p.documents for p in parts), sum(p.bytes for p in parts), sum(p.tokens for p in parts))

    def save(self, directory: Path) -> None:
        """Write `report.json`, atomically."""
        write_text(directory / NAME, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path) -> "Report | None":
        """The report of a corpus; None where there is no complete corpus."""
        try:
            values = parse_json((directory / NAME).read_text(encoding="utf-8"))
            components = {name: component_of(entry) for name, entry in values.pop("components").items()}
            return cls(components=components, **values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


def component_of(values: dict[str, Any]) -> ComponentReport:
    """A component's report from JSON types."""
    splits = {split: SplitCounts(**counts) for split, counts in values.pop("splits").items()}
    samples = [tuple(sample) for sample in values.pop("samples")]
    return ComponentReport(splits=splits, samples=samples, **values)


def add_counts(totals: dict[str, int], counts: dict[str, int]) -> None:
    """Add counts to totals, in place."""
    for key, n in counts.items():
        totals[key] = totals.get(key, 0) + n


def largest(counts: dict[str, int], n: int) -> Iterable[tuple[str, int]]:
    """The n largest counts; equal counts in the order of their names."""
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:n]
