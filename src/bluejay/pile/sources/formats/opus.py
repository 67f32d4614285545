"""Sentences as OPUS marks them (https://opus.nlpl.eu): elements `s`, in which words may be elements `w`."""

import re
from collections.abc import Iterator
from typing import Any

from bluejay.pile.sources.io.elements import line_of, local_name

BEFORE = re.compile(r" +(?=[.,;:!?%)\]}…»”])|(?<=[(\[{«„“¿¡]) +")
"""Spaces that tokenising put beside punctuation."""
APOSTROPHE = re.compile(r"(?<=\w) (['’](?:s|t|m|d|ll|re|ve|n)?)(?= |\W|$)| (?=n['’]t\b)")


def sentence(node: Any) -> str:
    """The text of a sentence; of one that was split into words, as it was before, as far as rules can tell."""
    words = [line_of(word) for word in node.iter() if local_name(word) == "w"]
    if not words:
        return line_of(node)
    return APOSTROPHE.sub(r"\1", BEFORE.sub("", " ".join(filter(None, words))))


def sentences(node: Any) -> Iterator[str]:
    """The sentences within an element, in order."""
    for found in node.iter():
        if local_name(found) == "s" and (text := sentence(found)):
            yield text
