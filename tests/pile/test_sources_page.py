"""The page about sources agrees with the recipes that are valid."""

import json
import re
import tomllib
from pathlib import Path

from pydantic import TypeAdapter

from bluejay.pile.sources import Source

PAGE = (Path(__file__).parents[2] / "docs/sources.md").read_text(encoding="utf-8")


def test_every_example_is_a_source() -> None:
    examples = [line for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert len(examples) > 10
    for example in examples:
        values = tomllib.loads(f"source = {example}")["source"]
        assert TypeAdapter(Source).validate_json(json.dumps(values), strict=True).kind == values["kind"]


def test_every_kind_is_named() -> None:
    classes = TypeAdapter(Source).json_schema()["$defs"].values()
    kinds = {described["properties"]["kind"]["const"] for described in classes if "kind" in described["properties"]}
    assert len(kinds) > 30
    assert not [kind for kind in kinds if f'kind = "{kind}"' not in PAGE and f"`{kind}`" not in PAGE]
