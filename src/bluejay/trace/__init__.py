"""Text -> the documents that it came from: the index of a corpus, matches in it, and the steps that read them."""

from typing import Any

__all__ = ["Index"]


def __getattr__(name: str) -> Any:
    """`Index`, imported when it is first used."""
    if name == "Index":
        from bluejay.trace.index import Index

        return Index
    raise AttributeError(name)
