"""The result of a trace, as text in a terminal and as HTML in a notebook."""

from dataclasses import dataclass
from html import escape
from typing import Any

from bluejay.notebook import colour, link, page, table
from bluejay.progress import counted, for_terminal
from bluejay.trace.spans import Quoted, Segment, Span

UNDERLINED, PLAIN = "\x1b[4m", "\x1b[0m"
STRENGTHS = {"quoted": 0.6, "interpolated": 0.2, "new": 0.0}
"""How strong the background of each kind of segment is in a notebook, up to 1."""
MOST_SPANS, MOST_DOCUMENTS = 20, 5
"""Spans, and documents of each, that a notebook shows."""
MOST_CHARACTERS = 400
"""Characters of a span that its line shows; of a longer one half as many from its beginning and its end."""


@dataclass(frozen=True)
class Traced:
    """The result of a trace."""

    text: str
    tokens: list[int]
    spans: list[Span]
    """The most telling ones first."""
    shares: dict[str, float]
    """How much of the text is quoted, interpolated and new."""
    segments: list[Segment]
    """Which segments of the text those are, in order; together they are the text."""
    notes: list[str]
    """What could not be traced, each in one sentence."""

    @property
    def summary(self) -> str:
        """How much of the text is of each kind, in one line."""
        parts = ", ".join(f"{share:.0%} {name}" for name, share in self.shares.items())
        return f"{counted(len(self.tokens), 'token')}: {parts}; {counted(len(self.spans), 'match', 'matches')}"

    def _repr_html_(self) -> str:
        marked = "".join(
            f'<span title="{one.kind}" style="{colour(STRENGTHS[one.kind], 1.0)}; white-space: pre-wrap">'
            f"{escape(self.text[one.start_char : one.end_char])}</span>"
            for one in self.segments
        )
        more = len(self.spans) - MOST_SPANS
        hidden = f"{counted(more, 'more match is', 'more matches are')} not shown"
        notes = [*([hidden] if more > 0 else []), *self.notes]
        below = "".join(f"<p>note: {escape(note)}</p>" for note in notes)
        return page(self.summary, f"<div>{marked}</div>", *map(as_html, self.spans[:MOST_SPANS]), below)


def as_text(traced: Traced, values: dict[str, Any], styled: bool) -> str:
    """The text with its spans underlined (`styled`), how much is quoted, and each span with its documents."""
    lines = [underlined(traced)] if styled else []
    lines.append(traced.summary)
    for span, plain in zip(traced.spans, values["spans"], strict=True):
        lines += ["", heading(span)]
        for document, known in zip(span.documents, plain["documents"], strict=True):
            lines.append(f"  {row(document)}")
            if "snippet" in known:
                before, match, after = (printable(known["snippet"][name]) for name in ("before", "match", "after"))
                lines.append(f"      …{before}[{match}]{after}…")
    return "\n".join([*lines, *(f"note: {note}" for note in traced.notes)])


def underlined(traced: Traced) -> str:
    """The text with its spans underlined; control characters but for ends of lines and tabs are spelled out."""
    marked = [False] * len(traced.text)
    for span in traced.spans:
        marked[span.start_char : span.end_char] = [True] * (span.end_char - span.start_char)
    pieces, on = [], False
    for character, mark in zip(traced.text, marked, strict=True):
        if mark != on:
            pieces.append(UNDERLINED if mark else PLAIN)
            on = mark
        pieces.append(for_terminal(character))
    return "".join(pieces) + (PLAIN if on else "")


def as_html(span: Span) -> str:
    """A span in one line, which opens into a table of its documents."""
    found = span.documents[:MOST_DOCUMENTS]
    rows = [(link(one.source, one.url), *map(escape, (one.component, one.licence, when_read(one)))) for one in found]
    documents = table(("document", "component", "licence", "steps"), rows)
    return f"<details><summary>{escape(heading(span))}</summary>{documents}</details>"


def heading(span: Span) -> str:
    """A span in one line, without the middle of a long one."""
    documents = counted(span.n_documents, "document")
    at_least = "" if span.all_looked_at else "at least "
    text, half = span.text, MOST_CHARACTERS // 2
    if len(text) > MOST_CHARACTERS:
        text = f"{text[:half]} … {text[-half:]}"
    return f'"{printable(text)}" · {span.end - span.start} tokens · {span.count:,} × in {at_least}{documents}'


def row(document: Quoted) -> str:
    """A document in one line."""
    near = f"and {len(document.near_copies)} near-copies" if document.near_copies else ""
    copies = f"{document.copies} copies" if document.copies > 1 else ""
    parts = [document.source, document.component, f"licence {document.licence}", document.split, document.url]
    all_parts = [*parts, copies, near, f"token {document.offset:,}", when_read(document)]
    return printable(" · ".join(part for part in all_parts if part))


def when_read(document: Quoted) -> str:
    """When the document's match was read."""
    if document.steps is None:
        return ""
    if document.steps:
        return f"read at {first_few(document.steps)}"
    if document.steps_in_part:
        return f"cut between sequences, read in parts at {first_few(document.steps_in_part)}"
    return "not read"


def first_few(steps: list[int]) -> str:
    """Steps in words, no more than the first few."""
    shown = ", ".join(f"{step:,}" for step in steps[:5])
    more = f" and {len(steps) - 5:,} more" if len(steps) > 5 else ""
    return f"step{'s' * (len(steps) > 1)} {shown}{more}"


def printable(text: str) -> str:
    """A text in one line, in which control characters are spelled out."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
