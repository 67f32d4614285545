"""`bluejay trace influence`: its options, and from options to a result."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluejay.fields import at_least
from bluejay.mistakes import standard_input

if TYPE_CHECKING:
    from bluejay.trace.influence.ranking import Influential


def influence_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `bluejay trace influence`."""
    verb.add_argument("target", metavar="MODEL", help="a run or its model, of the quickstart's size")
    verb.add_argument("text", help="the text to ask about; - reads it from standard input")
    help = "a corpus that the model does not find by itself; may be repeated"
    verb.add_argument("--corpus", type=Path, action="append", default=[], metavar="DIR", help=help)
    help = "show at most this many documents (default: 10)"
    verb.add_argument("--documents", type=at_least(1), default=10, help=help)
    help = "tokens that a verbatim match has at least (default: 5)"
    verb.add_argument("--min-tokens", type=at_least(1), default=5, help=help)


def run_influence(options: argparse.Namespace, _: list[str]) -> tuple[str, dict[str, Any]]:
    """`bluejay trace influence`: the result as text and as values. Raises ValueError or OSError: a user's mistake."""
    from bluejay.trace.display import as_text
    from bluejay.trace.influence.ranking import Influence
    from bluejay.trace.tracing import TraceSettings

    text = given_text(options.text)
    settings = TraceSettings(options.min_tokens, options.documents, spans=options.documents)
    influence = Influence(options.target, options.corpus)
    found = influence.rank(text, options.documents)
    traced = influence.tracer.trace(text, settings)
    values = {"step": influence.run.steps, "documents": [asdict(one) for one in found], "trace": asdict(traced)}
    quoted = {document.id for span in traced.spans for document in span.documents}
    lines = [f"the documents that pushed the model of step {influence.run.steps:,} most towards the text"]
    lines += [row(number, one, one.id in quoted) for number, one in enumerate(found, 1)]
    return "\n".join(
        [*lines, "", "the documents that the text quotes", as_text(traced, values["trace"], False)]
    ), values


def given_text(argument: str) -> str:
    """The text of an argument, or for - of standard input, normalised as the texts of a corpus are. Raises ValueError:
    it is empty."""
    from bluejay.pile.text.unicode import normalise_text
    from bluejay.tokenizer import well_formed

    text = normalise_text(well_formed(standard_input() if argument == "-" else argument))
    if not text:
        raise ValueError("the text is empty")
    return text


def row(number: int, one: "Influential", quoted: bool) -> str:
    """A document in one line."""
    from bluejay.trace.display import printable

    parts = [one.source, one.component, f"licence {one.licence}", one.split, one.url]
    copies = f"{one.copies} copies" if one.copies > 1 else ""
    shown = [*parts, copies, f"document {one.document:,}", f"{one.tokens:,} tokens read", "quoted" if quoted else ""]
    return f"  {number:2}. {one.share:6.1%} · " + printable(" · ".join(part for part in shown if part))
