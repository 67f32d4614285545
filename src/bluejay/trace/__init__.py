"""Text -> the documents that it came from: an index of a corpus, matches in it, their steps, influence."""

from importlib import import_module
from typing import Any

PUBLIC = {
    "Index": "index",
    "Influence": "influence.ranking",
    "TraceSettings": "tracing",
    "open_tracer": "corpora",
}
"""Each public name and its module."""


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'bluejay.trace' has no attribute {name!r}")
    return getattr(import_module(f"bluejay.trace.{PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted({*globals(), *PUBLIC})
