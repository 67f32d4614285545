"""What sources give becomes rows, whose metadata any reader of JSON reads."""

import json
from typing import Any

import pytest

from bluejay.pile.documents import Document, Skipped
from bluejay.pile.recipe import Component
from bluejay.pile.sources.mathematics import Mathematics
from bluejay.pile.steps.read import row_of

COMPONENT = Component("A", source=(Mathematics(kind="mathematics", documents=1),))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        ([1.5, float("inf"), {"a": float("nan")}], [1.5, None, {"a": None}]),
        ("NaN", "NaN"),
        (10**40, 10**40),
    ],
)
def test_metadata_is_json(value: Any, written: Any) -> None:
    row = row_of(Document("text", "source", "MIT", "url", {"value": value}), COMPONENT)
    assert isinstance(row, dict)
    assert json.loads(row["meta"], parse_constant=pytest.fail) == {"component": "A", "value": written}


def test_metadata_that_cannot_be_written_costs_its_document() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    for value in (nested, {1: "a", "b": 2}):
        row = row_of(Document("text", "source", "MIT", "url", {"value": value}), COMPONENT)
        assert isinstance(row, Skipped)
        assert row.reason.startswith("its metadata cannot be written as JSON: ")
