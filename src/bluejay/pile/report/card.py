"""The data card of a corpus, in Markdown and HTML: what the corpus holds, and what was left out and why.

DIRECTORY/card/card.md and card.html, mixture.png, lengths.png
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from markdown_it import MarkdownIt

from bluejay.files import atomic_directory, write_text
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.report import counts as reports
from bluejay.pile.report import plots
from bluejay.pile.report.counts import ComponentReport, Report, largest
from bluejay.pile.steps.assemble import CHECKSUMS
from bluejay.pile.steps.mix import SPLITS
from bluejay.pile.text.minhash import curve_table
from bluejay.progress import counted, format_bytes
from bluejay.recipe import load
from bluejay.tokenizer import well_formed

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
pre { background: #f5f5f5; padding: .7rem; white-space: pre-wrap; } img { max-width: 100%; }
"""


MOST_FILES = 100
"""Files of a component that the card lists: a browser shows no page of a million."""


def write_card(directory: Path) -> Path:
    """Write the card of a corpus into its folder `card`, and return the path of the Markdown file.

    Raises ValueError: the directory holds no complete corpus, or matplotlib is not installed.
    """
    report = Report.load(directory)
    if report is None:
        raise ValueError(f"no corpus in {directory}; bluejay pile build RECIPE makes one")
    recipe = load(PileRecipe, directory / "recipe.toml")
    text = well_formed("\n".join(card(report, recipe, (directory / CHECKSUMS).read_text(encoding="utf-8"))))
    with atomic_directory(directory / "card") as folder:
        plots.mixture(report, folder / "mixture.png")
        plots.lengths(report, folder / "lengths.png")
        write_text(folder / "card.md", text)
        write_text(folder / "card.html", html(report.name, text))
    return directory / "card" / "card.md"


def card(report: Report, recipe: PileRecipe, checksums: str) -> Iterator[str]:
    """Yield the paragraphs of the card."""
    built = {name: entry for name, entry in report.components.items() if entry.unavailable is None}
    total = {split: report.total(split) for split in SPLITS}
    yield f"# {report.name}\n"
    yield (
        f"{counted(sum(part.documents for part in total.values()), 'document')}, "
        f"{format_bytes(sum(part.bytes for part in total.values()))} of text, "
        f"{sum(part.tokens for part in total.values()):,} tokens of a vocabulary of {report.vocab_size:,} "
        f"(tokenizer {report.tokenizer_sha256[:16]}, recipe {report.recipe_sha256[:16]}, seed {recipe.seed}).\n"
    )
    yield "![Tokens of each component](mixture.png)\n"
    yield from section("Components", components(built))
    yield "Tokens are those of the shards, with each training document as often as its component's epochs say.\n"
    yield from section("What became of everything", outcomes(built))
    yield (
        "Found + added = kept + dropped + skipped; documents are added where some are divided to hold out text. "
        "Tables in `documents/` list what was dropped or skipped, with reasons.\n"
    )
    yield from not_built(report)
    yield from section("Why documents were dropped", tally(built, "dropped", "reason", "documents"))
    yield from section("Why pieces of sources were skipped", tally(built, "skipped", "reason", "pieces"))
    yield from section("Held-out text cut out of training documents", tally(built, "held_out", "split", "bytes"))
    yield from section("Personal data replaced", tally(built, "replaced", "kind", "places"))
    yield from near_copies(report, recipe)
    yield from section("Licences", tally(built, "licences", "licence", "documents"))
    yield from section("Languages", tally(built, "languages", "language", "documents of the sample"))
    yield "## Lengths\n\n![Lengths of documents, by component](lengths.png)\n"
    yield from samples(built)
    yield from section("Files read", inputs(built))
    yield f"## Files written\n\n`sha256sum --check {CHECKSUMS}` verifies them.\n\n```\n{checksums}```\n"


def components(built: dict[str, ComponentReport]) -> Iterator[Sequence[str]]:
    """The table of components, in the form of The Pile's (Gao et al. 2020, table 1)."""
    yield ("component", "documents", "text", "epochs", "train tokens", "share", "valid tokens", "test tokens")
    whole = sum(entry.splits["train"].tokens for entry in built.values())
    for name, entry in built.items():
        tokens = [entry.splits[split].tokens for split in SPLITS]
        size = format_bytes(sum(part.bytes for part in entry.splits.values()))
        share = f"{100 * tokens[0] / max(whole, 1):.2f} %"
        yield (
            name,
            f"{entry.kept:,}",
            size,
            f"{entry.epochs:.2f}",
            f"{tokens[0]:,}",
            share,
            *(f"{n:,}" for n in tokens[1:]),
        )


def outcomes(built: dict[str, ComponentReport]) -> Iterator[Sequence[str]]:
    """The table of counts by outcome: found + added = kept + dropped + skipped."""
    yield ("component", "found", "added", "kept", "dropped", "skipped")
    for name, entry in built.items():
        numbers = (entry.found, entry.added, entry.kept, sum(entry.dropped.values()), sum(entry.skipped.values()))
        yield (name, *(f"{n:,}" for n in numbers))


def not_built(report: Report) -> Iterator[str]:
    """The components and sources that the recipe names and the corpus lacks."""
    gone = [(name, entry.unavailable) for name, entry in report.components.items() if entry.unavailable]
    gone += [(name, why) for name, entry in report.components.items() for why in entry.missing]
    if gone:
        yield from section("Not in the corpus", [("component", "reason"), *gone])


def tally(built: dict[str, ComponentReport], counts: str, kind: str, unit: str, n: int = 12) -> Iterator[Sequence[str]]:
    """A table of the `n` largest counts of each component; `counts` names a field of ComponentReport."""
    yield ("component", kind, unit)
    for name, entry in built.items():
        values = getattr(entry, counts)
        for key, number in largest(values, n):
            yield (name, key, f"{number:,}")
        if len(values) > n:
            rest = sum(values.values()) - sum(number for _, number in largest(values, n))
            yield (name, f"{len(values) - n} others", f"{rest:,}")


def near_copies(report: Report, recipe: PileRecipe) -> Iterator[str]:
    """How near-copies were found, and how many."""
    near = recipe.dedup.near
    if near is None:
        return
    found = report.near
    yield "## Near-copies\n"
    yield (
        f"{near.bands} bands of {near.rows} hashes over {near.ngram} words; near-copies agree in at least "
        f"{near.threshold:.0%} of their hashes. {found['candidates']:,} candidates, {found['pairs']:,} pairs "
        f"(both counted once per band), {found['members']:,} documents in {found['clusters']:,} clusters.\n"
    )
    yield f"The probability that a pair is found, by its similarity:\n\n```\n{curve_table(near)}\n```\n"


def samples(built: dict[str, ComponentReport]) -> Iterator[str]:
    """The beginnings of a few documents."""
    yield "## Samples\n"
    for name, entry in built.items():
        for _, url, text in entry.samples:
            longest = max(map(len, re.findall("`+", text)), default=0)
            ticks = "`" * max(3, longest + 1)  # a fence longer than any in the text
            yield f"{cell(name)}, {cell(url)}:\n\n{ticks}text\n{text}\n{ticks}\n"


def inputs(built: dict[str, ComponentReport]) -> Iterator[Sequence[str]]:
    """The table of the files that were read, with their checksums: of each component MOST_FILES at most."""
    yield ("component", "file", "sha256")
    for name, entry in built.items():
        for file in entry.inputs[:MOST_FILES]:
            yield (name, file["name"], file["sha256"])
        if (left := len(entry.inputs) - MOST_FILES) > 0:
            yield (name, f"{left:,} others, which {reports.NAME} lists", "")


def section(title: str, rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A heading and a table; nothing where the table has no rows."""
    head, *body = rows
    if body:
        yield f"## {title}\n"
        yield table([head, *body])


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, whose first row is its head."""
    head, *body = rows
    return "\n".join(f"| {' | '.join(map(cell, row))} |" for row in (head, ["---"] * len(head), *body)) + "\n"


def cell(text: str) -> str:
    """Escape text so that it stays within its cell and has no meaning to Markdown."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


def html(title: str, text: str) -> str:
    """The card as one page; nothing in a document becomes markup."""
    body = MarkdownIt("js-default").render(text)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>{body}</body></html>\n'
