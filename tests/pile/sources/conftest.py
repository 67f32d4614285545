"""Fixtures of the tests of formats."""

import io
from collections.abc import Callable

import pytest

from bluejay.pile.documents import Document, Skipped
from bluejay.pile.sources.io.parse import parse
from bluejay.pile.sources.io.records import RecordFiles


@pytest.fixture
def parsed() -> Callable[..., tuple[list[Document], list[Skipped]]]:
    """Documents and what is set aside of the bytes of a file, parsed in this process."""

    def run(source: RecordFiles, data: bytes, name: str = "file") -> tuple[list[Document], list[Skipped]]:
        found = list(parse(source, name, io.BytesIO(data)))
        return [f for f in found if isinstance(f, Document)], [f for f in found if isinstance(f, Skipped)]

    return run
