"""Scripts may run for an hour or write pages: `--help`, and an option that they do not have, must not start them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [
    path
    for folder in ("benchmarks", "experiments", "docs")
    for path in sorted((ROOT / folder).glob("*.py"))
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_reads_its_arguments(path):
    body = ast.parse(path.read_text(encoding="utf-8")).body
    if any(isinstance(one, ast.ImportFrom) and one.module == "study" for one in body):
        return  # whose main reads them
    mains = [one for one in body if isinstance(one, ast.FunctionDef) and one.name == "main"]
    starts = "\n".join(map(ast.unparse, [*mains, body[-1]]))
    assert ".parse_args()" in starts or "sys.argv[1]" in starts
