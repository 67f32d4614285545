"""Descriptions stand alone: tools show the docstring of one field, or of one parameter, without those around it."""

import ast
import runpy
from itertools import pairwise
from pathlib import Path

from bluejay.serve.app import create_app

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src/bluejay"
CONJUNCTIONS = ("And", "Or", "But", "Nor")


def is_fragment(text: str) -> bool:
    """Whether a description continues another one: it begins like the middle of a sentence, or ends with a comma."""
    first = text.split()[0]
    return (text[0].islower() and first.isalpha()) or first in CONJUNCTIONS or text.rstrip().endswith(",")


def field_docstrings(path: Path):
    """(line, docstring) of every field of a class."""
    for node in ast.walk(ast.parse(path.read_text())):
        for field, text in pairwise(node.body) if isinstance(node, ast.ClassDef) else ():
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                yield text.lineno, str(text.value.value)


def descriptions(schema, where=""):
    """(place, text) of every description in an OpenAPI document."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("description", "summary") and isinstance(value, str):
                yield where, value
            else:
                yield from descriptions(value, f"{where}/{key}")
    elif isinstance(schema, list):
        for value in schema:
            yield from descriptions(value, where)


def test_the_docstring_of_each_field_stands_alone():
    found = [
        f"{path.relative_to(SOURCE)}:{line}: {text}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line, text in field_docstrings(path)
        if is_fragment(text)
    ]
    assert not found, "\n".join(["these docstrings are fragments:", *found])


def test_each_description_in_the_api_stands_alone(tiny_model):
    found = [f"{where}: {text}" for where, text in descriptions(create_app(tiny_model).openapi()) if is_fragment(text)]
    assert not found, "\n".join(["these descriptions are fragments:", *found])


def test_the_page_of_recipes_has_the_fields_as_they_are():
    written = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    assert written == runpy.run_path(str(ROOT / "docs/recipes.py"))["page"](), "run python docs/recipes.py"
