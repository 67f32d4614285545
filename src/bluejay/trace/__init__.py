"""Text -> the documents that it came from: an index of a corpus, matches in it, their steps, influence."""

from typing import Any

__all__ = ["Index", "Influence"]


def __getattr__(name: str) -> Any:
    """`Index` and `Influence`, imported when they are first used."""
    if name == "Index":
        from bluejay.trace.index import Index

        return Index
    if name == "Influence":
        from bluejay.trace.influence.ranking import Influence

        return Influence
    raise AttributeError(name)
