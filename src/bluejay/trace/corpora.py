"""Which corpora a model was trained on, and where they are now.

A run's checkpoints name the content of each set by a hash. A shard of that content is looked for where the recipe names
it (from here, and from every folder above the run, so that a project may move as a whole), in the corpus that --corpus
names, and where `bluejay index` last saw that content.
"""

import contextlib
import glob
import hashlib
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bluejay import recipe as recipes
from bluejay.gpt.formats.layouts import open_model
from bluejay.gpt.formats.locate import locate
from bluejay.gpt.formats.tensors import tokenizer_of
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import corpus_of, is_corpus, shards_named, suffixed
from bluejay.trace.example_index import ExampleSearcher
from bluejay.trace.index import Index, NotIndexed
from bluejay.trace.indexing import remembered
from bluejay.trace.reading import ReadRun, ShardSequences, read_run
from bluejay.trace.sections import to_index
from bluejay.trace.suffix_arrays import FOLDER, no_corpus
from bluejay.trace.tracing import Placed, Source, Tracer
from bluejay.train.checkpoint.trained_on import TrainedOn
from bluejay.train.data.content import WHOLE_BYTES, hash_of_shards
from bluejay.train.recipe import is_examples

REPORT = "report.json"
"""What `bluejay pile build` writes beside the token shards of a corpus."""
MOST_BASES = 8
"""Models behind a model that are followed by `init`."""


@dataclass(frozen=True)
class Search:
    """A search for what a model, and those that it began from, were trained on."""

    corpora: Sequence[Path]
    """The corpora that --corpus names."""
    notes: list[str] = field(default_factory=list)
    """What of the data is not traced, and what would help, each in one sentence."""
    unindexed: list[Path] = field(default_factory=list)
    """Corpora that were read, and that have no index."""
    indexes: dict[Path, Index] = field(default_factory=dict)
    """The index of each corpus, by its resolved path: opened once, however many models read it."""
    examples: dict[tuple[Path, str], ExampleSearcher] = field(default_factory=dict)
    """Files of examples by `ExampleSearcher.identity`, each once likewise."""

    def index(self, corpus: Path) -> Index:
        """The index of a corpus. Raises as `Index`."""
        path = corpus.resolve()
        if path not in self.indexes:
            self.indexes[path] = Index(corpus)
        return self.indexes[path]


def open_tracer(target: str, corpora: Sequence[Path] = ()) -> Tracer:
    """A tracer for a corpus, or for a model in all that it was trained on.

    Raises FileNotFoundError: there is no such corpus, model, or index; ValueError: nothing that the model was trained
    on can be traced, or an index is damaged or of another tokenizer.
    """
    if is_corpus(Path(target)):
        index, *others = dict.fromkeys(map(Search(corpora).index, [Path(target), *corpora]))
        for other in others:
            require_tokenizer(other, index.tokenizer)
        return Tracer([Source(one) for one in (index, *others)], index.tokenizer)
    model = locate(target)
    if not target or not (model.is_file() or any(tokenizer_folder(model).glob("*.json"))):
        raise FileNotFoundError(f"{target or 'the empty name'} is neither a model or its run, nor a corpus")
    if (model / REPORT).is_file() and not (tokenizer_folder(model) / "config.json").is_file():
        raise FileNotFoundError(no_corpus(model))
    tokenizer = own_tokenizer(model)
    search = Search(corpora)
    sources = sources_of(search, model, tokenizer)
    if not sources:
        message = "; ".join([f"nothing that {target} was trained on can be traced", *search.notes])
        raise NotIndexed(message, search.unindexed) if search.unindexed else ValueError(message)
    return Tracer(sources, tokenizer, search.notes)


def own_tokenizer(model: Path) -> Tokenizer:
    """The tokenizer of a model, which a GGUF file holds itself."""
    return tokenizer_of(open_model(model), model) if model.is_file() else Tokenizer.load(tokenizer_folder(model))


def tokenizer_folder(model: Path) -> Path:
    """The folder of a model's tokenizer; the folder of a run stands for its model."""
    return model / "model" if (model / "checkpoints").is_dir() else model


def sources_of(search: Search, model: Path, tokenizer: Tokenizer) -> list[Source]:
    """What a model was trained on, and the models that it began from."""
    sources = [
        Source(searcher, run, parts)
        for run in runs_of(model, search.notes)
        for searcher, parts in sets_of(search, run, tokenizer)
    ]
    for corpus in search.corpora:  # of a model whose run is not known, or that did not read it
        index = search.index(corpus)
        require_tokenizer(index, tokenizer)
        if all(index is not source.searcher for source in sources):
            search.notes.append(f"no run that read {corpus} is known, so its documents have no steps")
            sources.append(Source(index))
    return sources


def runs_of(model: Path, notes: list[str]) -> Iterator[ReadRun]:
    """The run of a model, of the model that it began from, and so on: each as the folder of its run has it, or else as
    the model itself does."""
    try:
        run = read_run(model)
    except FileNotFoundError as error:
        notes.append(str(error))
        return
    if run is None:
        notes.append(f"no run is beside {model} that says what it read; name its corpus with --corpus")
        return
    for _ in range(MOST_BASES):
        yield run
        if run.recipe.init is None:
            return
        base = None
        with contextlib.suppress(FileNotFoundError):
            model = moved(run.recipe.init, run.directory) or locate(run.recipe.init)
            base = read_run(model)
        if base is None and run.base is not None:
            base = ReadRun(run.directory, record=recipes.check(TrainedOn, run.base, str(run.directory)))
        if base is None:
            notes.append(f"what {run.recipe.init} read, from which the run in {run.directory} began, is not known")
            return
        run = base


def sets_of(
    search: Search, run: ReadRun, tokenizer: Tokenizer
) -> Iterator[tuple[Index | ExampleSearcher, dict[str, tuple[Placed, ...]]]]:
    """What of the sets of a run's recipe can be traced, and where each of its shards is in them. Also tells the run how
    long the sequences of these sets are (`ReadRun.sets`)."""
    parts: dict[Index | ExampleSearcher, dict[str, tuple[Placed, ...]]] = {}
    for number, part in enumerate(run.recipe.data.train):
        content = run.inputs.get(f"data.train.{number}")
        if is_examples(part.names[0]):
            examples = examples_of(search, run, part.names[0], content, tokenizer)
            if examples is not None:
                run.sets[number] = examples.sequences
                searcher = search.examples.setdefault(examples.identity, examples)
                place(parts, searcher, examples.shard, Placed(number, 0))
            continue
        prefixes = [prefix for name in part.names for prefix in prefixes_of(name, run.directory, search.corpora)]
        indexes = indexes_of(search, run, prefixes, content)
        if indexes is not None:
            first = 0
            for index, name in zip(indexes, names_of(prefixes), strict=True):
                require_tokenizer(index, tokenizer)
                place(parts, index, name, Placed(number, first))
                first += index.tokens_in(name)
            run.sets[number] = ShardSequences(first, run.recipe.data.sequence_length)
    yield from parts.items()


def names_of(prefixes: Sequence[str]) -> list[str]:
    """The names of token shards in their corpora."""
    return [Path(prefix).name for prefix in prefixes]


def indexes_of(search: Search, run: ReadRun, prefixes: Sequence[str], content: str | None) -> list[Index] | None:
    """The index of the corpus of each token shard of a set, which has this content if that is known; None, with a note,
    if one is not found, or the set was changed."""
    alone, found = content if len(prefixes) == 1 else None, list[Index | None]()
    for prefix in prefixes:
        before = (index for index, other in zip(found, prefixes, strict=False) if same_name(prefix, other))
        used = {index.corpus.resolve() for index in before if index is not None}
        found.append(find_index(search, run, prefix, alone, used))
    indexes = [index for index in found if index is not None]
    if len(indexes) < len(found):
        return None
    if content and not alone and content != content_of(indexes, names_of(prefixes)):
        more = len(prefixes) - 1
        search.notes.append(f"{prefixes[0]} and {more:,} more were changed since the run in {run.directory}")
        return None
    return indexes


def place(
    parts: dict[Index | ExampleSearcher, dict[str, tuple[Placed, ...]]],
    searcher: Index | ExampleSearcher,
    shard: str,
    placed: Placed,
) -> None:
    """Note where a token shard is in the sets of a run, besides where it is already."""
    of = parts.setdefault(searcher, {})
    of[shard] = (*of.get(shard, ()), placed)


def examples_of(
    search: Search, run: ReadRun, name: str, content: str | None, tokenizer: Tokenizer
) -> ExampleSearcher | None:
    """The examples of a file; None, with a note, if they are not those that the run read."""
    path = moved(name, run.directory)
    if path is None:
        search.notes.append(f"{name}, which the run in {run.directory} read, is not there any more")
        return None
    examples = ExampleSearcher(path, name, run.recipe.data, tokenizer)
    if content not in (None, examples.content):
        search.notes.append(f"{path} was changed since the run in {run.directory} read it")
        return None
    return examples


def prefixes_of(name: str, run: Path, corpora: Sequence[Path]) -> list[str]:
    """The token shards that a name of a recipe stands for: those of a pattern, where they are now."""
    if not glob.has_magic(name):
        return [name]
    folder = moved(str(Path(name).parent), run)
    for place in [*(corpus / "tokens" for corpus in likeliest(corpora, name)), *([folder] if folder else [])]:
        with contextlib.suppress(FileNotFoundError):
            return shards_named(str(place / Path(name).name))
    return [name]


def content_of(indexes: Sequence[Index], names: Sequence[str]) -> str:
    """The hash of token shards that are one set, as the checkpoints hold it (`hash_of_shards`)."""
    prefixes = [index.corpus / "tokens" / name for index, name in zip(indexes, names, strict=True)]
    if all(suffixed(one, ".bin").stat().st_size <= WHOLE_BYTES // len(names) for one in prefixes):  # they are known
        known = "".join(index.content[name] for index, name in zip(indexes, names, strict=True))
        return hashlib.sha256(known.encode()).hexdigest()
    return hash_of_shards([str(prefix) for prefix in prefixes])


def find_index(search: Search, run: ReadRun, prefix: str, content: str | None, used: Collection[Path]) -> Index | None:
    """The index of the corpus that holds a token shard of a run, of this content if that is known; None, with a note
    that says why, if it is not found. `used` are the corpora, resolved, whose shard of that name is another one of the
    same set."""
    original = moved(f"{prefix}.idx", run.directory)
    own = corpus_of(original) if original else None
    places = [*likeliest(search.corpora, prefix), *([own] if own else [])]
    if content and (there := remembered(content)):
        places.append(there)
    without, changed = None, None
    for corpus in dict.fromkeys(places):
        if corpus.resolve() in used or not is_corpus(corpus):
            continue
        if not (corpus / FOLDER).is_dir():
            without = without or corpus
            continue
        index = search.index(corpus)
        if Path(prefix).name in index.content and content in (None, index.content[Path(prefix).name]):
            return index
        if corpus == own:
            changed = corpus
    if without is not None:
        if without not in search.unindexed:
            search.unindexed.append(without)
        note = f"{without} has no index; {to_index(without)}"
    elif changed is not None:
        named = changed.resolve() in {corpus.resolve() for corpus in search.corpora}
        helps = "" if named else f"; --corpus {shlex.quote(str(changed))} traces in it as it is, without steps"
        note = f"{changed} is not as the run in {run.directory} read it{helps}"
    else:
        note = f"{prefix}, which the run in {run.directory} read, is not found; name its corpus with --corpus"
    if note not in search.notes:
        search.notes.append(note)
    return None


def likeliest(corpora: Sequence[Path], prefix: str) -> list[Path]:
    """Corpora, those first whose folder has the name of the one that a token shard of a recipe is in."""
    return sorted(corpora, key=lambda corpus: corpus.resolve().name != corpus_of(prefix).name)


def same_name(prefix: str, other: str) -> bool:
    """Whether two token shards have the same name, such as the `train` of two corpora."""
    return Path(prefix).name == Path(other).name


def moved(name: str, run: Path) -> Path | None:
    """A file or folder of a recipe: as named, or from a folder above the run, which may have moved with it."""
    path = Path(name)
    places = [path] if path.is_absolute() else [path, *(folder / path for folder in run.resolve().parents)]
    return next((place for place in places if place.exists()), None)


def require_tokenizer(index: Index, tokenizer: Tokenizer) -> None:
    """Raise ValueError if a corpus has other tokens than the model, or the first corpus."""
    theirs = index.tokenizer.token_bytes()
    if tokenizer.token_bytes()[: len(theirs)] != theirs:
        raise ValueError(
            f"{index.corpus} was made with another tokenizer than the model or corpus that was named first;"
            " what is traced together must share one"
        )
