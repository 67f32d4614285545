"""Which corpora a model was trained on, and where they are now.

A run's checkpoints name the content of each set by a hash. A shard of that content is looked for where the recipe names
it (from here, and from every folder above the run, so that a project may move as a whole), in the corpus that --corpus
names, and where `bluejay index` last saw that content.
"""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bluejay.gpt.formats.locate import locate
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import corpus_of
from bluejay.trace.example_index import ExampleSearcher
from bluejay.trace.index import Index
from bluejay.trace.indexing import remembered
from bluejay.trace.reading import ReadRun, ShardSequences, run_of
from bluejay.trace.suffix_arrays import FOLDER
from bluejay.trace.tracing import Source, Tracer
from bluejay.train.recipe import is_pairs

MOST_BASES = 8
"""Models behind a model that are followed by `init`."""


@dataclass(frozen=True)
class Found:
    """The sources of a model."""

    sources: list[Source]
    notes: list[str]
    """What of its data is not traced, and what would help, each in one sentence."""
    tokenizer: Tokenizer


def is_corpus(path: Path) -> bool:
    """Whether a path is a corpus: a folder with token shards."""
    return any((path / "tokens").glob("*.idx"))


def open_tracer(target: str, corpora: Sequence[Path] = ()) -> Tracer:
    """A tracer for a corpus, or for a model in all that it was trained on.

    Raises FileNotFoundError: there is no such corpus, model, or index; ValueError: nothing that the model was trained
    on can be traced, or an index is damaged or of another tokenizer.
    """
    if is_corpus(Path(target)):
        index = Index(target)
        return Tracer([Source(index), *(Source(Index(corpus)) for corpus in corpora)], index.tokenizer)
    model = locate(target)
    tokenizer = Tokenizer.load(tokenizer_folder(model))
    found = sources_of(model, tokenizer, corpora)
    if not found.sources:
        raise ValueError("; ".join([f"nothing that {target} was trained on can be traced", *found.notes]))
    return Tracer(found.sources, tokenizer, found.notes)


def tokenizer_folder(model: Path) -> Path:
    """The folder of a model's tokenizer; the folder of a run stands for its model."""
    return model / "model" if (model / "checkpoints").is_dir() else model


def sources_of(model: Path, tokenizer: Tokenizer, corpora: Sequence[Path]) -> Found:
    """What a model was trained on, and the models that it began from."""
    sources: list[Source] = []
    notes: list[str] = []
    used: set[Path] = set()
    for name in chain(model, notes):
        run = name[1]
        for searcher, parts in sets_of(run, corpora, tokenizer, notes):
            sources.append(Source(searcher, run, parts))
            if isinstance(searcher, Index):
                used.add(searcher.corpus.resolve())
    for corpus in corpora:  # of a model whose run is not known, or that did not read it
        if corpus.resolve() not in used:
            index = Index(corpus)
            require_tokenizer(index, tokenizer)
            notes.append(f"no run that read {corpus} is known, so its documents have no steps")
            sources.append(Source(index))
    return Found(sources, notes, tokenizer)


def chain(model: Path, notes: list[str]) -> Iterator[tuple[Path, ReadRun]]:
    """The run of a model, of the model that it began from, and so on."""
    for _ in range(MOST_BASES):
        place = run_of(model)
        if place is None:
            notes.append(f"no run is beside {model} that says what it read; name its corpus with --corpus")
            return
        try:
            run = ReadRun(*place)
        except FileNotFoundError as error:
            notes.append(str(error))
            return
        yield model, run
        if run.recipe.init is None:
            return
        try:
            model = moved(run.recipe.init, run.directory) or locate(run.recipe.init)
        except FileNotFoundError:
            notes.append(f"{run.recipe.init}, from which the run in {run.directory} began, is not there any more")
            return


def sets_of(
    run: ReadRun, corpora: Sequence[Path], tokenizer: Tokenizer, notes: list[str]
) -> Iterator[tuple[Index | ExampleSearcher, dict[str, tuple[int, ...]]]]:
    """The sets of a run's recipe that can be traced, and which numbers each shard has among them."""
    opened: dict[Path, Index] = {}
    parts: dict[Path, dict[str, tuple[int, ...]]] = {}
    for number, part in enumerate(run.recipe.data.train):
        shards = part.names[0]
        if len(part.names) > 1 or glob.has_magic(shards):
            notes.append(f"data.train.{number} is many shards that the run in {run.directory} read as one; not traced")
            continue
        if is_pairs(shards):
            path = moved(shards, run.directory)
            if path is None:
                notes.append(f"{shards}, which the run in {run.directory} read, is not there any more")
                continue
            examples = ExampleSearcher(path, shards, run.recipe.data, tokenizer)
            if run.inputs.get(f"data.train.{number}", examples.content) != examples.content:
                notes.append(f"{path} was changed since the run in {run.directory} read it")
                continue
            run.sets[number] = examples.sequences
            yield examples, {examples.shard: (number,)}
            continue
        index = find_index(run, number, shards, corpora, opened, notes)
        if index is None:
            continue
        require_tokenizer(index, tokenizer)
        name = Path(shards).name
        tokens = sum(len(shard.tokens) for shard in index.shards if shard.shard == name)
        run.sets[number] = ShardSequences(tokens, run.recipe.data.sequence_length)
        numbers = parts.setdefault(index.corpus, {})
        numbers[name] = (*numbers.get(name, ()), number)
        opened[index.corpus] = index
    for corpus, index in opened.items():
        yield index, parts[corpus]


def find_index(
    run: ReadRun, number: int, prefix: str, corpora: Sequence[Path], opened: dict[Path, Index], notes: list[str]
) -> Index | None:
    """The index of the corpus that holds a set of a run; None, with a note that says why, if it is not found."""
    content = run.inputs.get(f"data.train.{number}")
    original = moved(f"{prefix}.idx", run.directory)
    places = [*corpora, *([corpus_of(original)] if original else [])]
    if content and (there := remembered(content)):
        places.append(there)
    without = None
    for corpus in dict.fromkeys(places):
        if not is_corpus(corpus):
            continue
        if not (corpus / FOLDER).is_dir():
            without = without or corpus
            continue
        index = opened.get(corpus) or Index(corpus)
        if content is None or index.content.get(Path(prefix).name) == content:
            return index
    if without is not None:
        notes.append(f"{without} has no index; run bluejay index {without}")
    else:
        notes.append(f"{prefix}, which the run in {run.directory} read, is not found; name its corpus with --corpus")
    return None


def moved(name: str, run: Path) -> Path | None:
    """A file or folder of a recipe: as named, or from a folder above the run, which may have moved with it."""
    path = Path(name)
    places = [path] if path.is_absolute() else [path, *(folder / path for folder in run.resolve().parents)]
    return next((place for place in places if place.exists()), None)


def require_tokenizer(index: Index, tokenizer: Tokenizer) -> None:
    """Raise ValueError if a corpus has other tokens than the model."""
    theirs = index.tokenizer.token_bytes()
    if tokenizer.token_bytes()[: len(theirs)] != theirs:
        raise ValueError(f"{index.corpus} was made with another tokenizer than the model's")
