"""The graph of a build: which step runs on which outputs, and the counts of all steps."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bluejay.pile.pipeline.runner import Runner, merge_groups
from bluejay.pile.pipeline.task import Task
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.report.counts import ComponentReport, Report, add_counts, largest
from bluejay.pile.steps import dedup, passages, shuffle
from bluejay.pile.steps.assemble import Corpus
from bluejay.pile.steps.clean import Clean
from bluejay.pile.steps.count import CountRecords, placed
from bluejay.pile.steps.dedup import DROP_REASONS, Decide, Decisions, FindExactCopies, FindNearCopies
from bluejay.pile.steps.encode import Encode
from bluejay.pile.steps.hold_out import HoldOut, held_out_bytes
from bluejay.pile.steps.match_tests import MatchTests, test_files, test_reasons
from bluejay.pile.steps.mix import SPLITS, epochs_of
from bluejay.pile.steps.passages import FindRepeats, HashPassages, LocatePassages
from bluejay.pile.steps.read import PIECE_CHARACTERS, Part, Read, parts_of, reason_class
from bluejay.pile.steps.shuffle import MergeEncoded, Shuffle
from bluejay.pile.steps.sign import Sign
from bluejay.pile.steps.tokenizer import MakeTokenizer
from bluejay.pile.text.document_table import read_batches
from bluejay.progress import counted, say
from bluejay.storage import ensure_local
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import dtype_for

PARTS_AT_ONCE = 16
"""Parts whose repeated passages are located by one task."""
MAX_REASON = 300
"""Characters of a reason that an error shows."""


@dataclass
class PartFiles:
    """One part of the sources, or a piece of it, and the outputs of the steps that ran on it."""

    part: Part
    piece: int
    """Which piece of a part of much text; 0 for the first, mostly the only one."""
    raw: Task
    clean: Task
    signatures: Task | None
    """None where near-copies are not looked for."""
    test_hits: Task | None
    """None where there are no test sets."""
    decisions: Path = Path()
    """The `Decisions` about the part's documents."""
    documents: Path = Path()
    """The directory of its clean documents, of which some may have been divided to hold out text."""
    passages: Path | None = None
    """The file that `LocatePassages` wrote for the part; None where passages stay."""
    encoded: Path = Path()

    @property
    def chain(self) -> list[Task]:
        """The tasks that need nothing but this part, in order."""
        return [task for task in (self.raw, self.clean, self.signatures, self.test_hits) if task]


@dataclass
class Pipeline:
    """One build in progress; `run` gives the outputs from which the corpus is assembled."""

    recipe: PileRecipe
    runner: Runner
    report: Report
    """Filled in as the steps finish."""
    parts: list[PartFiles] = field(default_factory=list)
    test_reasons: tuple[str, ...] = ()
    """The reasons for which documents may be contaminated."""

    def run(self) -> Corpus:
        """Run all steps, in the order of the picture in docs/design.md.

        Raises ValueError: a component has no documents, the training split is empty, or a filter or a test set cannot
        be used.
        """
        self.prepare()  # per part: Read -> Clean -> Sign -> MatchTests
        self.deduplicate()  # per bucket of hashes: FindExactCopies, FindNearCopies; all copies: Decide
        self.hold_out()  # per component: HoldOut
        epochs = self.mix()
        tokenizer = self.make_tokenizer()  # all texts: MakeTokenizer
        self.find_passages()  # per part: HashPassages; per bucket: FindRepeats; per few parts: LocatePassages
        counts = self.encode(tokenizer, epochs)  # per part: Encode
        buckets = self.shuffle(counts)  # per few buckets: Shuffle
        return self.corpus(tokenizer, buckets)

    def entry(self, files: PartFiles) -> ComponentReport:
        """The report of the component that a part belongs to."""
        return self.report.components[files.part.component.name]

    def prepare(self) -> None:
        """Read, clean and sign each part, and match it with the test sets."""
        parts: list[Part] = []
        for component in self.recipe.component:
            entry = self.report.components[component.name] = ComponentReport(unavailable=component.unavailable)
            if component.unavailable is None:
                found, entry.missing = parts_of(component, self.recipe.written)
                parts += found
        ranges = [part for part in parts if part.place]
        counted = self.runner.finish("large files", [CountRecords(part) for part in ranges], [p.size for p in ranges])
        parts = placed(parts, [task.counts for task in counted])
        tests = test_files(self.recipe.decontaminate) if self.recipe.decontaminate else ()
        self.test_reasons = test_reasons(tests)
        first = [self.part_files(part, tests) for part in parts]
        self.runner.run("documents", [files.chain for files in first], [part.size for part in parts])
        # How much text a large file holds is known only now; its other pieces are as many tasks.
        for files in first:
            others = range(1, files.raw.counts["pieces"])
            self.parts += [files, *(self.part_files(files.part, tests, piece) for piece in others)]
        others = [files.chain for files in self.parts if files.piece]
        self.runner.run("documents of large files", others, [PIECE_CHARACTERS] * len(others))
        kept = dict.fromkeys(self.report.components, 0)
        for files in self.parts:
            entry = self.entry(files)
            if not files.piece:
                counts = files.raw.counts
                entry.read += counts["documents"]
                entry.found += counts["documents"] + sum(counts["skipped"].values())
                add_counts(entry.skipped, counts["skipped"])
                entry.inputs += counts["inputs"]
            counts = files.clean.counts
            kept[files.part.component.name] += counts["documents"]
            add_counts(entry.dropped, counts["dropped"])
            add_counts(entry.replaced, counts["replaced"])
        self.require_conserved(kept)

    def part_files(self, part: Part, tests: tuple[tuple[str, str], ...], piece: int = 0) -> PartFiles:
        """The tasks that prepare a part, or one of several pieces of it."""
        near, decontaminate = self.recipe.dedup.near, self.recipe.decontaminate
        raw = self.runner.task(Read(part))
        clean = self.runner.task(Clean(raw.directory, part.component, self.recipe.seed, piece))
        signatures = self.runner.task(Sign(clean.directory, near)) if near else None
        test_hits = self.runner.task(MatchTests(clean.directory, tests, decontaminate.ngram)) if decontaminate else None
        return PartFiles(part, piece, raw, clean, signatures, test_hits)

    def deduplicate(self) -> None:
        """Decide which of the clean documents stay."""
        near, documents = self.recipe.dedup.near, sum(files.clean.counts["documents"] for files in self.parts)
        n_buckets = dedup.bucket_count(documents)
        clean = [files.clean.directory for files in self.parts]
        listing = self.runner.gathered("copies", clean, 44 * documents, ("exact.npy",))
        steps = [FindExactCopies(listing, bucket, n_buckets) for bucket in range(n_buckets)]
        exact = self.runner.finish("copies", steps, [32 * documents // n_buckets] * n_buckets)
        edges: list[Task] = []
        if near:
            signed = [files.signatures.directory for files in self.parts if files.signatures]
            size = (8 + near.bands * (12 + 4 * near.rows)) * documents
            arrays = ("signatures.npy", "texts.npy")
            listing = self.runner.gathered("near-copies", signed, size, ("bands.npy",), arrays)
            places = itertools.product(range(near.bands), range(n_buckets))
            steps = [FindNearCopies(listing, bucket, n_buckets, band, near) for band, bucket in places]
            edges = self.runner.finish("near-copies", steps, [8 * documents // n_buckets] * len(steps))
            self.report.near = {key: sum(task.counts[key] for task in edges) for key in ("candidates", "pairs")}
        names = [files.part.component.name for files in self.parts]
        hits = [files.test_hits.directory for files in self.parts if files.test_hits]
        decide = Decide(
            clean=self.runner.listing(clean),
            parts=tuple(names.count(component.name) for component in self.recipe.component),
            exact=self.runner.listing([task.directory for task in exact]),
            edges=self.runner.listing([task.directory for task in edges]),
            remove=self.recipe.dedup.remove,
            tests=self.runner.listing(hits) if hits else None,
            test_reasons=self.test_reasons,
        )
        (decided,) = self.runner.finish("decisions", [decide], [32 * documents])
        if near:
            self.report.near |= decided.counts
        for number, files in enumerate(self.parts):
            files.decisions, files.documents = decided.directory / f"{number}.npz", files.clean.directory

    def hold_out(self) -> None:
        """Cut held-out text out of documents, for components that have too little."""
        names = [component.name for component in self.recipe.built]
        parts = [[files for files in self.parts if files.part.component.name == name] for name in names]
        steps = [
            HoldOut(
                self.runner.listing([files.documents for files in group]),
                self.runner.listing([files.decisions for files in group]),
                self.recipe.split,
                self.recipe.seed,
            )
            for group in parts
        ]
        tasks = self.runner.finish(
            "held-out text", steps, [sum(stored_bytes(f.clean) for f in group) for group in parts]
        )
        for name, group, task in zip(names, parts, tasks, strict=True):
            entry, counts = self.report.components[name], task.counts
            entry.added, entry.held_out = counts["added"], counts["bytes"]
            if counts["cut"]:
                cut, documents = " and ".join(held_out_bytes(counts)), counted(counts["cut"], "training document")
                say(f"{name}: {cut} was cut out of {documents}; whole ones gave too little")
            for files in group:
                divided = task.directory / files.documents.name
                if divided.name in counts["parts"]:
                    files.documents, files.decisions = divided, divided / "decisions.npz"

    def mix(self) -> dict[str, float]:
        """How often each component is read.

        Raises ValueError: a component has no documents, or the training split has none.
        """
        sizes = dict.fromkeys(self.report.components, 0)
        kept = {name: np.zeros(len(SPLITS), np.int64) for name in sizes}
        for files in self.parts:
            name, decisions = files.part.component.name, Decisions.load(files.decisions)
            splits = decisions.splits(self.recipe.split, self.recipe.seed)
            kept[name] += np.bincount(splits[decisions.kept], minlength=len(SPLITS))
            each = np.load(ensure_local(files.documents / "sizes.npy"))
            sizes[name] += int(each[decisions.kept & (splits == 0)].sum())
            reasons = (*DROP_REASONS, *self.test_reasons)
            _, *dropped = np.bincount(decisions.decision, minlength=1 + len(reasons)).tolist()
            add_counts(self.entry(files).dropped, {reason: n for reason, n in zip(reasons, dropped, strict=True) if n})
        self.require_conserved({name: int(counts.sum()) for name, counts in kept.items()})
        self.require_documents({name: int(counts.sum()) for name, counts in kept.items()})
        require_training_text(self.recipe, np.sum(list(kept.values()), axis=0).tolist())
        return epochs_of(self.recipe.built, sizes, self.recipe.mix)

    def make_tokenizer(self) -> Path:
        """Make the tokenizer, and report it; gives its directory."""
        documents = self.runner.listing([files.documents for files in self.parts])
        decisions = self.runner.listing([files.decisions for files in self.parts])
        (task,) = self.runner.finish("tokenizer", [MakeTokenizer(self.recipe, documents, decisions)], [1])
        tokenizer = Tokenizer.load(ensure_local(task.directory))
        self.report.vocab_size, self.report.tokenizer_sha256 = tokenizer.vocab_size, tokenizer.sha256
        return task.directory

    def find_passages(self) -> None:
        """Find repeated passages, where the recipe asks for that."""
        substring = self.recipe.dedup.substring
        if substring is None:
            return
        sizes = [stored_bytes(files.clean) for files in self.parts]
        steps = [HashPassages(files.documents, files.decisions, substring.length) for files in self.parts]
        hashed = self.runner.finish("passages", steps, sizes)
        counts = [task.counts["passages"] for task in hashed]
        listing = self.runner.gathered(
            "passages", [task.directory for task in hashed], 12 * sum(counts), ("passages.npy",)
        )
        n_buckets = passages.bucket_count(sum(counts))
        steps = [FindRepeats(listing, bucket, n_buckets) for bucket in range(n_buckets)]
        found = self.runner.finish("repeated passages", steps, [12 * sum(counts) // n_buckets] * n_buckets)
        size = 8 * sum(task.counts["repeats"] for task in found)
        repeats = self.runner.gathered("repeated passages", [task.directory for task in found], size, ("repeats.npy",))
        starts = [0, *itertools.accumulate(counts)]
        groups = [range(len(self.parts))[at : at + PARTS_AT_ONCE] for at in range(0, len(self.parts), PARTS_AT_ONCE)]
        steps = [
            LocatePassages(
                tuple(hashed[number].directory for number in group),
                tuple(self.parts[number].documents for number in group),
                tuple(self.parts[number].decisions for number in group),
                starts[group[0]],
                repeats,
                substring.length,
            )
            for group in groups
        ]
        tasks = self.runner.finish(
            "places of passages", steps, [sum(sizes[number] for number in group) for group in groups]
        )
        self.report.passages = {key: sum(task.counts[key] for task in tasks) for key in ("passages", "characters")}
        for group, task in zip(groups, tasks, strict=True):
            for place, number in enumerate(group):
                self.parts[number].passages = task.directory / f"{place}.npy"

    def encode(self, tokenizer: Path, epochs: dict[str, float]) -> list[dict[str, Any]]:
        """Tokenize each part; gives its counts."""
        recipe, steps = self.recipe, []
        for files in self.parts:
            name, mix = files.part.component.name, (recipe.split, recipe.seed, self.test_reasons, recipe.jsonl)
            inputs = files.documents, files.decisions, files.passages
            steps.append(Encode(*inputs, name, tokenizer, epochs[name], *mix, self.runner.executor.in_process))
        tasks = self.runner.finish("tokens", steps, [stored_bytes(files.clean) for files in self.parts])
        counts = [task.counts for task in tasks]
        for files, task, found in zip(self.parts, tasks, counts, strict=True):
            files.encoded = task.directory
            self.entry(files).epochs = epochs[files.part.component.name]
            self.entry(files).add(found)
        warn_of_no_copies(self.report)
        self.require_conserved({name: entry.kept for name, entry in self.report.components.items()})
        return counts

    def shuffle(self, counts: list[dict[str, Any]]) -> dict[str, list[Path]]:
        """Sort the copies of each split; gives the folders of its buckets, in order."""
        dtype, jsonl = dtype_for(self.report.vocab_size), self.recipe.jsonl
        buckets = {split: shuffle.bucket_count(split, counts, jsonl) for split in SPLITS}
        size = np.dtype(dtype).itemsize * sum(self.report.total(split).tokens for split in SPLITS)
        outputs = [files.encoded for files in self.parts]
        while groups := merge_groups(len(outputs)):
            pieces = [[shuffle.bucket_count(split, counts[a:b], jsonl) for split in SPLITS] for a, b in groups]
            listings = [self.runner.listing(outputs[a:b]) for a, b in groups]
            steps = [MergeEncoded(listing, tuple(n), dtype) for listing, n in zip(listings, pieces, strict=True)]
            tasks = self.runner.finish("shuffle", steps, [size // len(steps)] * len(steps))
            outputs, counts = [task.directory for task in tasks], [task.counts for task in tasks]
        listing = self.runner.listing(outputs)
        steps = [
            Shuffle(listing, split, first, min(first + shuffle.BUCKETS_AT_ONCE, n), n, dtype, jsonl)
            for split, n in buckets.items()
            for first in range(0, n, shuffle.BUCKETS_AT_ONCE)
        ]
        total = sum(buckets.values())
        tasks = self.runner.finish("shuffle", steps, [size * (step.end - step.first) // total for step in steps])
        folders: dict[str, list[Path]] = {split: [] for split in SPLITS}
        for step, task in zip(steps, tasks, strict=True):
            folders[step.split] += step.folders(task.directory)
        return folders

    def corpus(self, tokenizer: Path, buckets: dict[str, list[Path]]) -> Corpus:
        """The outputs that the corpus is assembled from."""
        raw = [files.raw.directory for files in self.parts if not files.piece]
        clean = [files.clean.directory for files in self.parts]
        encoded = [files.encoded for files in self.parts]
        tables = {split: [path / f"{split}.parquet" for path in encoded] for split in SPLITS}
        tables["dropped"] = [path / "dropped.parquet" for path in (*clean, *encoded)]
        tables["skipped"] = [path / "skipped.parquet" for path in raw]
        return Corpus(tables, buckets, tokenizer, self.recipe.jsonl)

    def require_conserved(self, kept: dict[str, int]) -> None:
        """Assert, at the end of each stage, that every document found is kept, dropped or skipped."""
        for name, entry in self.report.components.items():
            entry.require_conserved(name, kept[name])

    def require_documents(self, kept: dict[str, int]) -> None:
        """Raise ValueError where a component has no document left, and say what became of its documents."""
        for component in self.recipe.built:
            if kept[component.name]:
                continue
            entry = self.report.components[component.name]
            why = [f"{n:,} dropped as {reason}" for reason, n in largest(entry.dropped, 3)]
            whole, skipped = self.reasons(component.name), largest(entry.skipped, 3)
            why += [f"{counted(n, 'piece')} skipped as {whole.get(kind, kind)}" for kind, n in skipped]
            raise ValueError(
                f"component {component.name} has no documents; {', '.join(why) or 'its sources are empty'}"
            )

    def reasons(self, component: str) -> dict[str, str]:
        """For each kind of reason for which pieces of a component were skipped, the whole first such reason."""
        found: dict[str, str] = {}
        for files in self.parts:
            if files.part.component.name == component:
                for batch in read_batches(files.raw.directory / "skipped.parquet", ["reason"]):
                    for reason in batch["reason"].to_pylist():
                        found.setdefault(reason_class(reason), reason[:MAX_REASON])
        return found


def require_training_text(recipe: PileRecipe, documents: list[int]) -> None:
    """Raise ValueError where the training split has no documents; warn where another split has none."""
    if not documents[0]:
        raise ValueError("no document fell in the training part; give more text or lower split.valid and split.test")
    for split, share, n in zip(SPLITS[1:], (recipe.split.valid, recipe.split.test), documents[1:], strict=True):
        if share and not n:
            say(f"no document fell in the {split} part; give more text or raise split.{split}")


def warn_of_no_copies(report: Report) -> None:
    """Warn where no document of a component is in the training split, once its epochs are counted."""
    if not report.total("train").tokens:
        say("the training part is empty: the epochs of every component leave none of its documents; give larger ones")
        return
    for name, entry in report.components.items():
        train = entry.splits["train"]
        if train.documents and not train.tokens:
            say(f"component {name} is not in the training part: epochs of {entry.epochs:g} leave none of its documents")


def stored_bytes(task: Task) -> int:
    """The size of the table of documents in a task's output."""
    return task.counts["stored"]
