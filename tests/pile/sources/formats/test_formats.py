"""Every format can be named in a recipe, and all of them keep the same contract."""

import random
import typing
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from bluejay.pile.documents import Document, Skipped
from bluejay.pile.sources.formats import Format
from bluejay.recipe import STRICT, check

KINDS = typing.get_args(typing.get_args(Format)[0])


@dataclass(frozen=True)
class Reading:
    """A piece of a recipe."""

    __pydantic_config__ = STRICT
    source: tuple[Format, ...]


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_recipe(kind: type) -> None:
    name = kind(path="x").kind
    written = {"kind": name, "path": "~/a/*", "licence": "MIT"}
    assert check(Reading, {"source": [written]}, "recipe").source == (kind(path="~/a/*", licence="MIT"),)
    with pytest.raises(ValueError, match=r"unknown key .*licens"):
        check(Reading, {"source": [{**written, "licens": "MIT"}]}, "recipe")


def test_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="docx"):
        check(Reading, {"source": [{"kind": "docx", "path": "x"}]}, "recipe")


@pytest.mark.parametrize("kind", KINDS)
def test_rubbish_is_refused_or_skipped(parsed: Callable, kind: type) -> None:
    """Nothing but ValueError leaves a parser, whatever its file holds."""
    noise = random.Random(7)
    for size in (0, 1, 100, 5000):
        for start in (
            b"",
            b"<?xml version='1.0'?><page>",
            b"From a 10:00\n",
            b"PK\x03\x04",
            b"%PDF-1.7\n",
            b"7z\xbc\xaf\x27\x1c",
            b"\x1f\x8b",
            b"[",
        ):
            try:
                documents, aside = parsed(kind(path="x"), start + noise.randbytes(size))
            except ValueError:
                continue
            assert all(isinstance(entry, Document) for entry in documents)
            assert all(isinstance(entry, Skipped) and entry.reason for entry in aside)


IMAGE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0" + random.Random(3).randbytes(4000)
PROGRAM = b"\x7fELF\2\1\1" + bytes(500) + random.Random(4).randbytes(2000)
ERROR_PAGE = b"<html><title>404 Not Found</title></html>"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [b"", IMAGE, PROGRAM, ERROR_PAGE], ids=["nothing", "image", "program", "error page"])
def test_what_is_no_input_of_a_kind_is_counted(parsed: Callable, kind: type, data: bytes) -> None:
    try:
        documents, aside = parsed(kind(path="x"), data)
    except ValueError:  # which skips the whole file
        return
    assert aside or (documents and data is ERROR_PAGE)
    assert not documents or data is ERROR_PAGE
