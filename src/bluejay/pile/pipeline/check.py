"""What a recipe names, looked up before anything is read: filters, tokenizers, parsers, test sets, files.

A build may read for hours before it needs the last of them.
"""

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bluejay.extras import install
from bluejay.fetch import is_address
from bluejay.pile import filters
from bluejay.pile.recipe import Component, Decontaminate, PileRecipe
from bluejay.pile.sources import Source
from bluejay.pile.sources.code.git import Git
from bluejay.pile.sources.code.tree import Tree
from bluejay.pile.sources.formats.html import require_stoplist
from bluejay.pile.sources.io.open import matching
from bluejay.pile.text.test_sets import files_of
from bluejay.tokenizer import Tokenizer

PARSERS = {
    "epub": ("lxml", "resiliparse"),
    "hackernews": ("resiliparse",),
    "html": ("resiliparse",),
    "jats": ("lxml",),
    "mediawiki": ("lxml", "mwparserfromhell"),
    "office": ("lxml", "resiliparse"),
    "opinions": ("resiliparse",),
    "patents": ("lxml",),
    "pdf": ("pypdfium2",),
    "pubmed": ("lxml",),
    "stackexchange": ("lxml", "resiliparse"),
    "subtitles": ("lxml",),
    "warc": ("fastwarc", "resiliparse"),
}
"""The modules that reading any file of a kind needs and that may not be installed."""
EXPORT = "zstandard"
"""The module that writes the export as JSON lines, the last of all that a build does."""


def require_usable(recipe: PileRecipe, files: bool = True) -> None:
    """Raise ValueError, with all that is wrong, where a filter, the tokenizer, a parser, or with `files` a local file
    of a recipe cannot be used. Nothing is downloaded."""
    wrong = [*unusable(recipe), *(missing(recipe) if files else ())]
    if wrong:
        raise ValueError(joined(wrong))


def joined(wrong: Iterable[str]) -> str:
    """All that is wrong, each mistake once, and last what is missing, with the command that installs it."""
    command = f": {install('corpus')}"
    needs, others = [], []
    for one in dict.fromkeys(wrong):
        (needs if one.endswith(command) else others).append(one.removesuffix(command))
    return "; ".join([*others, *needs]) + (command if needs else "")


def unusable(recipe: PileRecipe) -> Iterator[str]:
    """What is wrong with the tokenizer, the filters, the parsers, the languages of pages and the export, which every
    machine needs."""
    if recipe.jsonl and importlib.util.find_spec(EXPORT) is None:
        yield f"jsonl = true needs {EXPORT}: {install('corpus')}"
    path = recipe.tokenizer.path
    if path is not None and (found := mistake(lambda: Tokenizer.load(path))):
        yield f"tokenizer: {found}"
    for component in recipe.built:
        for name in component.filters:
            if found := mistake(lambda name=name: filters.parse(name, recipe.seed)):
                yield f"component {component.name}: {found}"
        for reader in readers_in(component.source):
            if found := mistake(lambda reader=reader: require_parsers(reader)):
                yield f"component {component.name}: {found}"


def readers_in(readers: Iterable[Any]) -> Iterator[Any]:
    """Sources, and the formats in their archives."""
    for reader in readers:
        yield reader
        yield from readers_in(getattr(reader, "formats", ()))


def require_parsers(reader: Any) -> None:
    """Raise ValueError where a module that a source or format needs is missing, or justext lacks its language."""
    for module in PARSERS.get(reader.kind, ()):
        if importlib.util.find_spec(module) is None:
            raise ValueError(f"reading {reader.kind} needs {module}: {install('corpus')}")
    if getattr(reader, "extract", None) == "justext":
        require_stoplist(reader.language)


def missing(recipe: PileRecipe) -> Iterator[str]:
    """What is wrong with the files of this machine that the recipe names."""
    if not recipe.built:
        yield "every component is unavailable, so there is no text to build a corpus of"
    yield from (f"component {part.name}: {found}" for part in recipe.built for found in missing_files(part))
    yield from (f"decontaminate: {found}" for found in missing_tests(recipe.decontaminate))


def missing_files(component: Component) -> Iterator[str]:
    """What is wrong with the files of the sources that a component needs."""
    for source in component.source:
        if not getattr(source, "optional", False) and (found := mistake(lambda source=source: require_files(source))):
            yield found


def missing_tests(settings: Decontaminate | None) -> Iterator[str]:
    """What is wrong with the files of the test sets."""
    for path in settings.against if settings else ():
        if not is_address(path) and (found := mistake(lambda path=path: files_of(path))):
            yield found


def require_files(source: Source) -> None:
    """Raise ValueError where a source has a path on this machine, and nothing is there."""
    path = getattr(source, "path", None)
    if isinstance(source, Tree):
        source.units()
    elif path is not None and not isinstance(source, Git) and not is_address(path):
        matching(path, source.kind)


def mistake(attempt: Callable[[], Any]) -> str | None:
    """Why something cannot be done; None if it can."""
    try:
        attempt()
    except (OSError, ValueError) as error:
        return str(error)
    return None
