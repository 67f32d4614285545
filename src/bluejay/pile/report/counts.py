"""What a build did, in numbers: `report.json`, whose presence says that a corpus is whole."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bluejay.files import write_text
from bluejay.pile.steps.mix import SPLITS

NAME = "report.json"


@dataclass
class Part:
    """One component in one of train, valid and test."""

    documents: int = 0
    bytes: int = 0
    """UTF-8 bytes of their text."""
    tokens: int = 0
    """Tokens in the shard: each document as often as the component's epochs say, <|endoftext|> included."""


@dataclass
class ComponentReport:
    """What became of one component's text."""

    unavailable: str | None = None
    """Why it is not built."""
    missing: list[str] = field(default_factory=list)
    """Why optional sources are not there."""
    found: int = 0
    """Documents, and pieces that gave none: kept + dropped + set aside."""
    read: int = 0
    """Documents that the sources gave."""
    set_aside: dict[str, int] = field(default_factory=dict)
    """Pieces of sources that gave no document, by reason."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Documents that are in no split, by reason."""
    replaced: dict[str, int] = field(default_factory=dict)
    """Personal data replaced by placeholders, by kind."""
    epochs: float = 1.0
    splits: dict[str, Part] = field(default_factory=lambda: {name: Part() for name in SPLITS})
    licences: dict[str, int] = field(default_factory=dict)
    """Kept documents by licence."""
    languages: dict[str, int] = field(default_factory=dict)
    """A sample of the kept documents by language."""
    lengths: dict[str, int] = field(default_factory=dict)
    """Kept documents by the power of two below their bytes."""
    samples: list[tuple[float, str, str]] = field(default_factory=list)
    """Beginnings of a few documents: a number by which they were drawn, where they are from, their text."""
    inputs: list[dict[str, str]] = field(default_factory=list)
    """Name and sha256 of the files it was read from."""

    @property
    def kept(self) -> int:
        """Documents in all splits."""
        return sum(part.documents for part in self.splits.values())

    def require_conserved(self, name: str, kept: int) -> None:
        """Every document that was read is kept, dropped or set aside; anything else is a mistake of ours."""
        accounted = kept + sum(self.dropped.values()) + sum(self.set_aside.values())
        assert self.found == accounted, f"{name}: {self.found} found, {accounted} accounted for"

    def add(self, counts: dict[str, Any]) -> None:
        """Count one encoded part."""
        for split, part in counts["splits"].items():
            for key in ("documents", "bytes", "tokens"):
                setattr(self.splits[split], key, getattr(self.splits[split], key) + part[key])
        if counts["cut"]:
            count(self.dropped, {"repeated passages, nothing else": counts["cut"]})
        for key in ("licences", "languages", "lengths"):
            count(getattr(self, key), counts[key])
        self.samples = sorted([*self.samples, *map(tuple, counts["samples"])])[:2]


@dataclass
class Report:
    """Counts of one build, filled in as it goes."""

    name: str
    recipe_sha256: str
    """Hash of the recipe, by which a later build knows that this one did its work."""
    vocab_size: int = 0
    tokenizer_sha256: str = ""
    components: dict[str, ComponentReport] = field(default_factory=dict)
    near: dict[str, int] = field(default_factory=dict)
    """Of near-copies: candidates (counted once per band), pairs, members, clusters."""
    passages: dict[str, int] = field(default_factory=dict)
    """Of repeated passages: how many were cut out, and their characters."""

    def total(self, split: str) -> Part:
        """A split over all components."""
        parts = [component.splits[split] for component in self.components.values()]
        return Part(sum(p.documents for p in parts), sum(p.bytes for p in parts), sum(p.tokens for p in parts))

    def save(self, directory: Path) -> None:
        """Write `report.json`, atomically."""
        write_text(directory / NAME, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path) -> "Report | None":
        """The report of a corpus; None where there is no whole corpus."""
        try:
            values = json.loads((directory / NAME).read_text(encoding="utf-8"))
            components = {name: component_of(entry) for name, entry in values.pop("components").items()}
            return cls(components=components, **values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


def component_of(values: dict[str, Any]) -> ComponentReport:
    """A component's report from JSON's types."""
    splits = {split: Part(**part) for split, part in values.pop("splits").items()}
    samples = [tuple(sample) for sample in values.pop("samples")]
    return ComponentReport(splits=splits, samples=samples, **values)


def count(into: dict[str, int], more: dict[str, int]) -> None:
    """Add counts to counts."""
    for key, n in more.items():
        into[key] = into.get(key, 0) + n


def most(counts: dict[str, int], n: int) -> Iterable[tuple[str, int]]:
    """The n largest counts, equal ones by name."""
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:n]
