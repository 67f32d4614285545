"""Small pieces of HTML for notebooks: tables, bars and grids, without scripts, and readable on light and dark pages."""

import re
from collections.abc import Sequence
from html import escape

STYLE = "font: 13px system-ui, sans-serif; border-collapse: collapse"
SHOWN = 64
"""Tokens that a table has columns for."""
CELL = "padding: 2px 6px; text-align: left; white-space: pre"


def page(heading: str, *parts: str) -> str:
    """A heading with pieces of HTML below it."""
    return f'<div style="{STYLE}"><p><b>{escape(heading)}</b></p>{"".join(parts)}</div>'


def window(n_tokens: int, last: int | None = None) -> tuple[slice, str]:
    """Which tokens are shown of many, those up to `last` or to the end, and a sentence about it where some are not."""
    if n_tokens <= SHOWN:
        return slice(None), ""
    end = n_tokens if last is None else max(SHOWN, last + 1)
    return slice(end - SHOWN, end), f"<p>Of {n_tokens} tokens, those from {end - SHOWN} to {end - 1} are shown.</p>"


def visible(token: str) -> str:
    """The text of a token with signs for ends of lines, and for the spaces at its own ends."""
    signs = re.sub("^ +| +$", lambda spaces: "␣" * len(spaces[0]), token)
    return escape(signs.replace("\n", "⏎").replace("\t", "⇥"))


def colour(value: float, largest: float) -> str:
    """A background whose strength shows a value beside the largest: blue above zero, red below."""
    strength = 0.0 if largest <= 0 else min(1.0, abs(value) / largest)
    return f"background: rgba({'60, 120, 220' if value >= 0 else '220, 80, 60'}, {0.75 * strength:.2f})"


def link(text: str, url: str) -> str:
    """A text that leads to an address, where that is one of the web."""
    safe = url.startswith(("http://", "https://"))
    return f'<a href="{escape(url)}">{escape(text)}</a>' if safe else escape(text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; its texts are HTML already."""
    top = "".join(f'<th scope="col" style="{CELL}">{cell}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f'<td style="{CELL}">{cell}</td>' for cell in row) + "</tr>" for row in rows)
    return f'<table style="{STYLE}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def bars(terms: Sequence[tuple[str, float]]) -> str:
    """A bar for each term, with its name and its number."""
    largest = max((abs(value) for _, value in terms), default=0.0)
    rows = []
    for name, value in terms:
        width = 0.0 if largest == 0 else 160 * abs(value) / largest
        bar = f'<div style="height: 11px; width: {width:.0f}px; {colour(value, abs(value))}"></div>'
        rows.append((visible(name) if name.startswith(" ") else escape(name), bar, f"{value:+.3f}"))
    return table(("part", "", "adds"), rows)


def grid(
    values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], digits: int = 2, corner: str = ""
) -> str:
    """A grid of numbers, each on a background of its strength."""
    largest = max((abs(value) for row in values for value in row), default=0.0)
    top = f'<th style="{CELL}">{escape(corner)}</th>'
    top += "".join(f'<th scope="col" style="{CELL}">{visible(name)}</th>' for name in columns)
    body = ""
    for name, row in zip(rows, values, strict=True):
        cells = "".join(f'<td style="{CELL}; {colour(value, largest)}">{value:.{digits}f}</td>' for value in row)
        body += f'<tr><th scope="row" style="{CELL}">{visible(name)}</th>{cells}</tr>'
    return f'<table style="{STYLE}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def marked(tokens: Sequence[str], values: Sequence[float]) -> str:
    """A text whose tokens have a background of their strength, with the number as a title."""
    largest = max((abs(value) for value in values), default=0.0)
    spans = (
        f'<span title="{value:.3f}" style="{colour(value, largest)}; white-space: pre-wrap">{escape(token)}</span>'
        for token, value in zip(tokens, values, strict=True)
    )
    return f"<div>{''.join(spans)}</div>"
