"""What a build did, in numbers: `report.json`, whose presence says that a corpus is whole."""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bluejay.files import write_text
from bluejay.pile.document import Document, SetAside
from bluejay.pile.recipe import Component

NAME = "report.json"


@dataclass
class Part:
    """One component in one of train, valid and test."""

    documents: int = 0
    bytes: int = 0
    """UTF-8 bytes of their text."""
    tokens: int = 0
    """Tokens in the shard: each document as often as the component's epochs say, <|endoftext|> included."""

    def count(self, document: Document) -> None:
        """Count one more document."""
        self.documents += 1
        self.bytes += len(document.text.encode())


@dataclass
class Report:
    """Counts of one build, filled in as it goes."""

    name: str
    recipe_sha256: str
    """Hash of the recipe, by which a later build knows that this one did its work."""
    vocab_size: int = 0
    tokenizer_sha256: str = ""
    parts: dict[str, dict[str, Part]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(Part)))
    """By component and split."""
    duplicates: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Documents dropped because an equal text came earlier, by component."""
    set_aside: dict[str, list[SetAside]] = field(default_factory=lambda: defaultdict(list))
    """Files that gave no document, with the reason, by component."""

    def total(self, split: str) -> Part:
        """A split over all components."""
        parts = [splits[split] for splits in self.parts.values() if split in splits]
        return Part(sum(p.documents for p in parts), sum(p.bytes for p in parts), sum(p.tokens for p in parts))

    def require_documents(self, component: Component) -> None:
        """Raises ValueError where a component gave no document, saying what became of its files."""
        if self.parts[component.name]:
            return
        aside = self.set_aside[component.name]
        why = f"; {len(aside)} files were set aside, the first, {aside[0].name}, as {aside[0].reason}" if aside else ""
        copies = self.duplicates[component.name]
        why += f"; {copies} documents are in earlier components already" if copies else ""
        raise ValueError(f"component {component.name} has no documents{why}")

    def save(self, directory: Path) -> None:
        """Write `report.json`, atomically."""
        write_text(directory / NAME, json.dumps(asdict_plain(self), indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path) -> "Report | None":
        """The report of a corpus; None where there is no whole corpus."""
        try:
            values = json.loads((directory / NAME).read_text(encoding="utf-8"))
            values["parts"] = {
                name: {split: Part(**part) for split, part in parts.items()} for name, parts in values["parts"].items()
            }
            values["set_aside"] = {
                name: [SetAside(**entry) for entry in entries] for name, entries in values["set_aside"].items()
            }
            return cls(**values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


def asdict_plain(report: Report) -> dict[str, Any]:
    """The report as JSON's types. (`dataclasses.asdict` cannot rebuild a defaultdict.)"""
    return {
        **{key: value for key, value in vars(report).items() if isinstance(value, (str, int))},
        "parts": {
            name: {split: asdict(part) for split, part in splits.items()} for name, splits in report.parts.items()
        },
        "duplicates": dict(report.duplicates),
        "set_aside": {name: [asdict(entry) for entry in entries] for name, entries in report.set_aside.items()},
    }
