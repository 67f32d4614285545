"""A trace as text in a terminal."""

from typing import Any

from bluejay.trace.spans import Quoted, Span
from bluejay.trace.tracing import Traced

UNDERLINED, PLAIN = "\x1b[4m", "\x1b[0m"


def as_text(traced: Traced, values: dict[str, Any], styled: bool) -> str:
    """The text with its spans underlined (`styled`), how much is quoted, and each span with its documents."""
    lines = [underlined(traced)] if styled else []
    parts = ", ".join(f"{share:.0%} {name}" for name, share in traced.shares.items())
    lines.append(f"{len(traced.tokens):,} tokens: {parts}; {len(traced.spans):,} matches")
    for span, plain in zip(traced.spans, values["spans"], strict=True):
        lines += ["", heading(span)]
        for document, known in zip(span.documents, plain["documents"], strict=True):
            lines.append(f"  {row(document)}")
            if "snippet" in known:
                before, match, after = (printable(known["snippet"][name]) for name in ("before", "match", "after"))
                lines.append(f"      …{before}[{match}]{after}…")
    return "\n".join([*lines, *(f"note: {note}" for note in traced.notes)])


def underlined(traced: Traced) -> str:
    """The text with its spans underlined."""
    marked = [False] * len(traced.text)
    for span in traced.spans:
        marked[span.start_char : span.end_char] = [True] * (span.end_char - span.start_char)
    pieces, on = [], False
    for character, mark in zip(traced.text, marked, strict=True):
        if mark != on:
            pieces.append(UNDERLINED if mark else PLAIN)
            on = mark
        pieces.append(character)
    return "".join(pieces) + (PLAIN if on else "")


def heading(span: Span) -> str:
    """A span in one line."""
    documents = f"{span.n_documents:,} document{'s' * (span.n_documents != 1)}"
    at_least = "" if span.all_looked_at else "at least "
    return f'"{printable(span.text)}" · {span.end - span.start} tokens · {span.count:,} × in {at_least}{documents}'


def row(document: Quoted) -> str:
    """A document in one line."""
    near = f"and {len(document.near_copies)} near-copies" if document.near_copies else ""
    copies = f"{document.copies} copies" if document.copies > 1 else ""
    parts = [document.source, document.component, f"licence {document.licence}", document.split, document.url]
    all_parts = [*parts, copies, near, f"token {document.offset:,}", steps(document)]
    return " · ".join(part for part in all_parts if part)


def steps(document: Quoted) -> str:
    """When the document's match was read."""
    if document.steps is None:
        return ""
    if document.steps:
        return f"read at {some(document.steps)}"
    if document.steps_in_part:
        return f"cut between sequences, read in parts at {some(document.steps_in_part)}"
    return "not read"


def some(numbers: list[int]) -> str:
    """Steps, no more than the first few."""
    shown = ", ".join(f"{number:,}" for number in numbers[:5])
    more = f" and {len(numbers) - 5:,} more" if len(numbers) > 5 else ""
    return f"step{'s' * (len(numbers) > 1)} {shown}{more}"


def printable(text: str) -> str:
    """A text in one line, in which control characters are spelled out."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
