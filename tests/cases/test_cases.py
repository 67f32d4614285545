"""The tables of cases name tests that exist."""

import ast

import pytest

from tests.cases.__main__ import TABLES, tables


def functions(source: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}


def test_every_case_names_a_test():
    missing = []
    for part, cases in tables().items():
        for case in cases:
            file, _, name = case["test"].partition("::")
            path = TABLES.parents[1] / file
            if not path.is_file() or name.partition("[")[0] not in functions(path.read_text(encoding="utf-8")):
                missing.append((part, case["name"], case["test"]))
    assert tables() and missing == []


def test_a_case_without_its_test_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.cases.__main__.TABLES", tmp_path)
    (tmp_path / "a.toml").write_text('[[case]]\nname = "x"\nbefore = "y"\nafter = "z"\n')
    with pytest.raises(ValueError, match=r"a\.toml: a case has after, before, name; it needs"):
        tables()
