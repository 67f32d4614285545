"""The stages of a build in their order, each fed with what the one before has left, and the counts of all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bluejay.pile.copies import KEPT, Band, Choosing, Column, Exact, band_edges, choose, exact_copies, leading
from bluejay.pile.encode import REASONS, Encoding, encode_part
from bluejay.pile.engine import Engine
from bluejay.pile.mix import SPLITS, epochs_of, split_of
from bluejay.pile.read import Part, parts_of, read_part
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.report import ComponentReport, Report, count, most
from bluejay.pile.shards import Bucket, buckets, gather_bucket
from bluejay.pile.sift import Cleaning, Holding, Signing, clean_part, contaminated_part, sign_part
from bluejay.pile.sources.fetch import sha256_of
from bluejay.pile.sources.open import local, matching
from bluejay.pile.stage import Task, finish, key_of
from bluejay.pile.vocabulary import Vocabulary, make_tokenizer
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import dtype_for


class Argument(Protocol):
    """What a stage's function works on."""

    def decisive(self) -> list[Any]:
        """What the result follows from, as JSON's types."""
        ...


@dataclass
class Stages:
    """One build on its way: `run` leaves the directories from which the corpus is put together."""

    recipe: PileRecipe
    engine: Engine
    work: Path
    report: Report
    used: set[Path] = field(default_factory=set)
    """Every directory that this build stands on."""
    parts: list[Part] = field(default_factory=list)
    raw: list[Path] = field(default_factory=list)
    """Of each part, what was read; and so on."""
    clean: list[Path] = field(default_factory=list)
    encoded: list[Path] = field(default_factory=list)
    buckets: dict[str, list[Path]] = field(default_factory=dict)
    """Of each split, its stretches in order."""
    tokenizer: Path = field(default_factory=Path)

    def run(self) -> None:
        """All stages."""
        self.read()
        self.sift()
        chosen = self.choose()
        self.encode(chosen)

    def finish(
        self,
        label: str,
        function: Callable[[Any, Path], dict[str, Any]],
        arguments: Sequence[Argument],
        sizes: Sequence[int],
    ) -> tuple[list[Path], list[dict[str, Any]]]:
        """Have a function done on each argument; where the results are, and the counts."""
        tasks = [
            Task(self.work / label / key_of(*argument.decisive()), argument, size)
            for argument, size in zip(arguments, sizes, strict=True)
        ]
        self.used.update(task.directory for task in tasks)
        counts = finish(self.engine, label, function, tasks)
        return [task.directory for task in tasks], counts

    def read(self) -> None:
        """Sources to documents. Raises ValueError: a component has none."""
        for component in self.recipe.component:
            entry = self.report.components[component.name] = ComponentReport(unavailable=component.unavailable)
            if component.unavailable is None:
                parts, entry.missing = parts_of(component)
                self.parts += parts
        self.raw, counts = self.finish("read", read_part, self.parts, [part.size for part in self.parts])
        for part, counted in zip(self.parts, counts, strict=True):
            entry = self.report.components[part.component.name]
            entry.read += counted["documents"]
            entry.found += counted["documents"] + sum(counted["set_aside"].values())
            count(entry.set_aside, counted["set_aside"])
            entry.inputs += counted["inputs"]
        self.require_conserved({name: entry.read for name, entry in self.report.components.items()})

    def sift(self) -> None:
        """Documents to clean documents."""
        arguments = [Cleaning(raw, part.component, self.recipe.seed) for part, raw in zip(self.parts, self.raw, strict=True)]
        self.clean, counts = self.finish("clean", clean_part, arguments, sizes_of(self.raw))
        kept = dict.fromkeys(self.report.components, 0)
        for part, counted in zip(self.parts, counts, strict=True):
            entry = self.report.components[part.component.name]
            kept[part.component.name] += counted["documents"]
            count(entry.dropped, counted["dropped"])
            count(entry.replaced, counted["replaced"])
        self.require_conserved(kept)

    def choose(self) -> Path:
        """Which clean documents stay; a directory with a file for each part."""
        near, sizes = self.recipe.dedup.near, sizes_of(self.clean)
        ids = Column.of([clean / "ids.npy" for clean in self.clean])
        (exact,), _ = self.finish("exact", exact_copies, [Exact(ids)], [32 * len(ids)])
        edges: list[Path] = []
        if near:
            signed, _ = self.finish("sign", sign_part, [Signing(clean, near) for clean in self.clean], sizes)
            signatures = Column.of([path / "signatures.npy" for path in signed])
            keys = tuple(path / "bands.npy" for path in signed)
            bands = [Band(number, keys, signatures, near, exact) for number in range(near.bands)]
            edges, counts = self.finish("near", band_edges, bands, [8 * len(ids)] * len(bands))
            self.report.near = {key: sum(counted[key] for counted in counts) for key in ("candidates", "pairs")}
        reasons = self.contaminated(sizes)
        names = [component.name for component in self.recipe.component]
        priority = np.array([names.index(part.component.name) for part in self.parts], np.int64)
        files = tuple(path / "edges.npy" for path in edges)
        choosing = Choosing(ids, priority, exact, files, self.recipe.dedup.remove, reasons)
        (chosen,), (counted,) = self.finish("choose", choose, [choosing], [32 * len(ids)])
        if near:
            self.report.near |= {"members": counted["members"], "clusters": counted["clusters"]}
        return chosen

    def contaminated(self, sizes: list[int]) -> tuple[Path, ...]:
        """For each part the file of reasons, where there are test sets."""
        choice = self.recipe.decontaminate
        if choice is None:
            return ()
        tests = tuple(unit for path in choice.against for unit in matching(path))
        checksums = tuple(sha256_of(local(test)) for test in tests)
        arguments = [Holding(clean, choice, tests, checksums) for clean in self.clean]
        directories, _ = self.finish("contaminated", contaminated_part, arguments, sizes)
        return tuple(directory / "reasons.parquet" for directory in directories)

    def encode(self, chosen: Path) -> None:
        """Documents that stay to tokens, and these to stretches of the shards."""
        fates = [chosen / f"{number}.npz" for number in range(len(self.parts))]
        epochs = self.mix(fates)
        vocabulary = Vocabulary(self.recipe, tuple(self.clean), tuple(fates))
        (self.tokenizer,), _ = self.finish("tokenizer", make_tokenizer, [vocabulary], [1])
        vocab_size = self.describe_tokenizer()
        arguments = [
            Encoding(
                clean=clean,
                fates=fate,
                checksum=sha256_of(fate),
                component=part.component.name,
                tokenizer=self.tokenizer,
                epochs=epochs[part.component.name],
                split=self.recipe.split,
                seed=self.recipe.seed,
                text=self.recipe.jsonl,
                parallel=self.engine.alone,
            )
            for part, clean, fate in zip(self.parts, self.clean, fates, strict=True)
        ]
        self.encoded, counts = self.finish("encode", encode_part, arguments, sizes_of(self.clean))
        for part, counted in zip(self.parts, counts, strict=True):
            entry = self.report.components[part.component.name]
            entry.epochs = epochs[part.component.name]
            entry.add(counted)
        self.require_conserved({name: entry.kept for name, entry in self.report.components.items()})
        self.shuffle(counts, dtype_for(vocab_size))

    def shuffle(self, counts: list[dict[str, Any]], dtype: str) -> None:
        """Tokens of parts to stretches of the shards."""
        arguments = []
        for split in SPLITS:
            n = buckets(split, counts, self.recipe.jsonl)
            arguments += [Bucket(split, i, n, tuple(self.encoded), dtype, self.recipe.jsonl) for i in range(n)]
        total = sum(self.report.total(split).tokens for split in SPLITS)
        sizes = [np.dtype(dtype).itemsize * total // len(arguments)] * len(arguments)
        directories, _ = self.finish("shuffle", gather_bucket, arguments, sizes)
        for bucket, directory in zip(arguments, directories, strict=True):
            self.buckets.setdefault(bucket.split, []).append(directory)

    def mix(self, fates: list[Path]) -> dict[str, float]:
        """How often each component is read. Raises ValueError: one has no documents, or none fell in the training part."""
        kept = dict.fromkeys(self.report.components, 0)
        sizes = {name: [0, 0, 0] for name in kept}
        for part, clean, file in zip(self.parts, self.clean, fates, strict=True):
            chosen = np.load(file)
            stays, split = chosen["fate"] == KEPT, split_of(leading(chosen["stands"]), self.recipe.split, self.recipe.seed)
            kept[part.component.name] += int(stays.sum())
            bytes_ = np.load(clean / "sizes.npy")
            for number in range(len(SPLITS)):
                sizes[part.component.name][number] += int(bytes_[stays & (split == number)].sum())
            for fate, reason in REASONS.items():
                n = int((chosen["fate"] == fate).sum())
                if n:
                    count(self.report.components[part.component.name].dropped, {reason: n})
        self.require_conserved(kept)
        for component in self.recipe.built:
            self.require_documents(component.name, kept[component.name])
        return epochs_of(self.recipe.built, {name: size[0] for name, size in sizes.items()}, self.recipe.mix)

    def describe_tokenizer(self) -> int:
        """Put the tokenizer in the report; its vocabulary's size."""
        tokenizer = Tokenizer.load(self.tokenizer)
        self.report.vocab_size, self.report.tokenizer_sha256 = tokenizer.vocab_size, tokenizer.sha256
        return tokenizer.vocab_size

    def require_conserved(self, kept: dict[str, int]) -> None:
        """At the end of each stage every document that was found is kept, dropped or set aside, or we are wrong."""
        for name, entry in self.report.components.items():
            entry.require_conserved(name, kept[name])

    def require_documents(self, name: str, kept: int) -> None:
        """Raises ValueError where a component has no document left, saying what became of them."""
        if kept:
            return
        entry = self.report.components[name]
        why = [f"{n:,} dropped as {reason}" for reason, n in most(entry.dropped, 3)]
        why += [f"{n:,} pieces set aside as {reason}" for reason, n in most(entry.set_aside, 3)]
        raise ValueError(f"component {name} has no documents; {', '.join(why) or 'its sources are empty'}")


def sizes_of(directories: Sequence[Path]) -> list[int]:
    """The bytes of the documents in each directory, as they are stored."""
    return [(directory / "documents.parquet").stat().st_size for directory in directories]
