"""The stages of a build in their order, each fed with what the one before has left, and the counts of all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bluejay.files import sha256_of
from bluejay.pile.pipeline.executor import Engine
from bluejay.pile.pipeline.task import Argument, Task, finish
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.report.counts import ComponentReport, Report, count, most
from bluejay.pile.sources.io.open import local, matching
from bluejay.pile.steps.clean import Cleaning, Holding, Signing, clean_part, contaminated_part, sign_part
from bluejay.pile.steps.dedup import KEPT, Band, Choosing, Column, Exact, band_edges, choose, exact_copies, leading
from bluejay.pile.steps.encode import REASONS, Encoding, encode_part
from bluejay.pile.steps.mix import SPLITS, epochs_of, split_of
from bluejay.pile.steps.passages import Passages, find_passages
from bluejay.pile.steps.read import Part, parts_of, read_part
from bluejay.pile.steps.shuffle import Bucket, buckets, gather_bucket
from bluejay.pile.steps.tokenizer import Vocabulary, make_tokenizer
from bluejay.progress import say
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import dtype_for


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
    signed: list[Path] = field(default_factory=list)
    held: list[Path] = field(default_factory=list)
    encoded: list[Path] = field(default_factory=list)
    buckets: dict[str, list[Task]] = field(default_factory=dict)
    """Of each split, its stretches in order."""
    tokenizer: Path = field(default_factory=Path)

    def run(self) -> None:
        """All stages."""
        self.gather()
        self.encode(self.choose())

    def task(self, name: str, function: Callable[[Any, Path], dict[str, Any]], argument: Argument) -> Task:
        """A task of this build."""
        task = Task(self.work, name, function, argument)
        self.used.add(task.directory)
        return task

    def finish(self, label: str, tasks: Sequence[Task], sizes: Sequence[int]) -> list[dict[str, Any]]:
        """Have tasks done that need nothing of each other; their counts."""
        finish(self.engine, label, [[task] for task in tasks], sizes)
        return [task.counts() for task in tasks]

    def gather(self) -> None:
        """Sources to clean documents, and to all that can be said of each part alone.

        Raises ValueError: a component's sources have nothing.
        """
        for component in self.recipe.component:
            entry = self.report.components[component.name] = ComponentReport(unavailable=component.unavailable)
            if component.unavailable is None:
                parts, entry.missing = parts_of(component)
                self.parts += parts
        near, choice, seed = self.recipe.dedup.near, self.recipe.decontaminate, self.recipe.seed
        read = [self.task("read", read_part, part) for part in self.parts]
        clean = [
            self.task("clean", clean_part, Cleaning(task.directory, part.component, seed))
            for task, part in zip(read, self.parts, strict=True)
        ]
        sign = [self.task("sign", sign_part, Signing(task.directory, near)) for task in clean] if near else []
        hold = []
        if choice:
            tests = tuple(unit for path in choice.against for unit in matching(path))
            sums = tuple(sha256_of(local(test)) for test in tests)
            holdings = [Holding(task.directory, choice, tests, sums) for task in clean]
            hold = [self.task("contaminated", contaminated_part, holding) for holding in holdings]
        chains = [list(chain) for chain in zip(*(tasks for tasks in (read, clean, sign, hold) if tasks), strict=True)]
        finish(self.engine, "documents", chains, [part.size for part in self.parts])
        self.raw, self.clean, self.signed, self.held = (
            [task.directory for task in tasks] for tasks in (read, clean, sign, hold)
        )
        self.count_gathered([task.counts() for task in read], [task.counts() for task in clean])

    def count_gathered(self, read: list[dict[str, Any]], clean: list[dict[str, Any]]) -> None:
        """What became of the documents in the first two stages."""
        kept = dict.fromkeys(self.report.components, 0)
        for part, counted in zip(self.parts, read, strict=True):
            entry = self.report.components[part.component.name]
            entry.read += counted["documents"]
            entry.found += counted["documents"] + sum(counted["set_aside"].values())
            count(entry.set_aside, counted["set_aside"])
            entry.inputs += counted["inputs"]
        self.require_conserved({name: entry.read for name, entry in self.report.components.items()})
        for part, counted in zip(self.parts, clean, strict=True):
            entry = self.report.components[part.component.name]
            kept[part.component.name] += counted["documents"]
            count(entry.dropped, counted["dropped"])
            count(entry.replaced, counted["replaced"])
        self.require_conserved(kept)

    def choose(self) -> list[Path]:
        """Which clean documents stay; a file for each part."""
        near = self.recipe.dedup.near
        ids = Column.of([clean / "ids.npy" for clean in self.clean])
        exact = self.task("exact", exact_copies, Exact(ids))
        self.finish("copies", [exact], [32 * len(ids)])
        edges: list[Path] = []
        if near:
            signatures = Column.of([path / "signatures.npy" for path in self.signed])
            keys = tuple(path / "bands.npy" for path in self.signed)
            bands = [
                self.task("near", band_edges, Band(number, keys, signatures, near, exact.directory))
                for number in range(near.bands)
            ]
            counts = self.finish("near-copies", bands, [8 * len(ids)] * len(bands))
            self.report.near = {key: sum(counted[key] for counted in counts) for key in ("candidates", "pairs")}
            edges = [band.directory / "edges.npy" for band in bands]
        reasons = [path / "reasons.parquet" for path in self.held]
        names = [component.name for component in self.recipe.component]
        priority = np.array([names.index(part.component.name) for part in self.parts], np.int64)
        choosing = Choosing(ids, priority, exact.directory, tuple(edges), self.recipe.dedup.remove, tuple(reasons))
        chosen = self.task("choose", choose, choosing)
        (counted,) = self.finish("choice", [chosen], [32 * len(ids)])
        if near:
            self.report.near |= {"members": counted["members"], "clusters": counted["clusters"]}
        return [chosen.directory / f"{number}.npz" for number in range(len(self.parts))]

    def encode(self, fates: list[Path]) -> None:
        """Documents that stay to tokens, and these to stretches of the shards."""
        epochs = self.mix(fates)
        vocabulary = self.task("tokenizer", make_tokenizer, Vocabulary(self.recipe, tuple(self.clean), tuple(fates)))
        self.finish("tokenizer", [vocabulary], [1])
        self.tokenizer = vocabulary.directory
        vocab_size = self.describe_tokenizer()
        encodings = [
            Encoding(
                clean=clean,
                fates=fate,
                checksum=sha256_of(fate),
                cuts=cuts,
                component=part.component.name,
                tokenizer=self.tokenizer,
                epochs=epochs[part.component.name],
                split=self.recipe.split,
                seed=self.recipe.seed,
                text=self.recipe.jsonl,
                parallel=self.engine.alone,
            )
            for part, clean, fate, cuts in zip(self.parts, self.clean, fates, self.passages(fates), strict=True)
        ]
        tasks = [self.task("encode", encode_part, encoding) for encoding in encodings]
        counts = self.finish("tokens", tasks, sizes_of(self.clean))
        self.encoded = [task.directory for task in tasks]
        for part, counted in zip(self.parts, counts, strict=True):
            entry = self.report.components[part.component.name]
            entry.epochs = epochs[part.component.name]
            entry.add(counted)
        self.require_conserved({name: entry.kept for name, entry in self.report.components.items()})
        self.shuffle(counts, dtype_for(vocab_size))

    def passages(self, fates: list[Path]) -> list[Path | None]:
        """For each part the file of passages to cut out of it, where the recipe asks for that."""
        choice = self.recipe.dedup.substring
        if choice is None:
            return [None] * len(self.parts)
        task = self.task("passages", find_passages, Passages(tuple(self.clean), tuple(fates), choice.length))
        (self.report.passages,) = self.finish("passages", [task], [2 * sum(sizes_of(self.clean))])
        return [task.directory / f"{number}.npy" for number in range(len(self.parts))]

    def shuffle(self, counts: list[dict[str, Any]], dtype: str) -> None:
        """Tokens of parts to stretches of the shards."""
        tasks = []
        for split in SPLITS:
            n = buckets(split, counts, self.recipe.jsonl)
            stretches = [Bucket(split, i, n, tuple(self.encoded), dtype, self.recipe.jsonl) for i in range(n)]
            self.buckets[split] = [self.task("shuffle", gather_bucket, stretch) for stretch in stretches]
            tasks += self.buckets[split]
        total = sum(self.report.total(split).tokens for split in SPLITS)
        self.finish("shuffle", tasks, [np.dtype(dtype).itemsize * total // len(tasks)] * len(tasks))

    def mix(self, fates: list[Path]) -> dict[str, float]:
        """How often each component is read. Raises ValueError: one has no documents, or the training part none."""
        sizes = {name: np.zeros(len(SPLITS), np.int64) for name in self.report.components}
        kept = {name: np.zeros(len(SPLITS), np.int64) for name in sizes}
        for part, clean, file in zip(self.parts, self.clean, fates, strict=True):
            name, chosen = part.component.name, np.load(file)
            split = split_of(leading(chosen["stands"]), self.recipe.split, self.recipe.seed)
            stays, bytes_ = chosen["fate"] == KEPT, np.load(clean / "sizes.npy")
            kept[name] += np.bincount(split[stays], minlength=len(SPLITS))
            sizes[name] += np.bincount(split[stays], bytes_[stays], len(SPLITS)).astype(np.int64)
            dropped = {reason: int((chosen["fate"] == fate).sum()) for fate, reason in REASONS.items()}
            count(self.report.components[name].dropped, {reason: n for reason, n in dropped.items() if n})
        self.require_conserved({name: int(counts.sum()) for name, counts in kept.items()})
        self.require_documents({name: int(counts.sum()) for name, counts in kept.items()})
        require_training_text(self.recipe, np.sum(list(kept.values()), axis=0).tolist())
        return epochs_of(self.recipe.built, {name: int(size[0]) for name, size in sizes.items()}, self.recipe.mix)

    def describe_tokenizer(self) -> int:
        """Put the tokenizer in the report; its vocabulary's size."""
        tokenizer = Tokenizer.load(self.tokenizer)
        self.report.vocab_size, self.report.tokenizer_sha256 = tokenizer.vocab_size, tokenizer.sha256
        return tokenizer.vocab_size

    def require_conserved(self, kept: dict[str, int]) -> None:
        """At the end of each stage every document that was found is kept, dropped or set aside, or we are wrong."""
        for name, entry in self.report.components.items():
            entry.require_conserved(name, kept[name])

    def require_documents(self, kept: dict[str, int]) -> None:
        """Raises ValueError where a component has no document left, saying what became of them."""
        for component in self.recipe.built:
            if kept[component.name]:
                continue
            entry = self.report.components[component.name]
            why = [f"{n:,} dropped as {reason}" for reason, n in most(entry.dropped, 3)]
            why += [f"{n:,} pieces set aside as {reason}" for reason, n in most(entry.set_aside, 3)]
            raise ValueError(
                f"component {component.name} has no documents; {', '.join(why) or 'its sources are empty'}"
            )


def require_training_text(recipe: PileRecipe, documents: list[int]) -> None:
    """Raises ValueError where nothing is left to train on; says which held-out part is empty."""
    if not documents[0]:
        raise ValueError("no document fell in the training part; give more text or lower split.valid and split.test")
    for split, share, n in zip(SPLITS[1:], (recipe.split.valid, recipe.split.test), documents[1:], strict=True):
        if share and not n:
            say(f"no document fell in the {split} part; give more text or raise split.{split}")


def sizes_of(directories: Sequence[Path]) -> list[int]:
    """The bytes of the documents in each directory, as they are stored."""
    return [(directory / "documents.parquet").stat().st_size for directory in directories]
