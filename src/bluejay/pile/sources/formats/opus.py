"""Sentences in the XML of OPUS (https://opus.nlpl.eu): elements `s`, in which words may be elements `w`."""

import re
from collections.abc import Iterator
from typing import Any

from bluejay.pile.sources.io.elements import line_of, local_name

EXTRA_SPACE = re.compile(r" +(?=[.,;:!?%)\]}…»”])|(?<=[(\[{«„“¿¡]) +")
"""A space beside punctuation, added when the text was split into words."""
APOSTROPHE = re.compile(r"(?<=\w) (['’](?:s|t|m|d|ll|re|ve|n)?)(?= |\W|$)| (?=n['’]t\b)")


def sentence(node: Any) -> str:
    """The text of a sentence; one that was split into words is joined again by rules."""
    words = [line_of(word) for word in node.iter() if local_name(word) == "w"]
    if not words:
        return line_of(node)
    return APOSTROPHE.sub(r"\1", EXTRA_SPACE.sub("", " ".join(filter(None, words))))


def sentences(node: Any) -> Iterator[str]:
    """The sentences within an element, in order."""
    for found in node.iter():
        if local_name(found) == "s" and (text := sentence(found)):
            yield text
