"""Runs the test of every case in this folder's tables: `python -m tests.cases [PART ...]` prints a table in Markdown.

A case is something that people's files and habits did to a language-model tool, taken from public bug reports. Its
row in PART.toml says what happened here before, what happens now, and which test holds it.
"""

import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

TABLES = Path(__file__).parent
KEYS = {"name", "before", "after", "test"}


def tables(parts: list[str] | None = None) -> dict[str, list[dict[str, str]]]:
    """The cases of each part, a part being one .toml file; raises ValueError for a case that lacks a key."""
    found = {}
    for path in sorted(TABLES.glob("*.toml")):
        if parts and path.stem not in parts:
            continue
        found[path.stem] = tomllib.loads(path.read_text(encoding="utf-8"))["case"]
        for case in found[path.stem]:
            if set(case) != KEYS:
                raise ValueError(
                    f"{path.name}: a case has {', '.join(sorted(case))}; it needs {', '.join(sorted(KEYS))}"
                )
    return found


def outcomes(tests: list[str]) -> dict[str, str]:
    """Each test's outcome; a test with parameters has passed where all of them passed."""
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        pytest.main(["-q", "-p", "no:cacheprovider", f"--junitxml={report}", *sorted(set(tests))])
        results: dict[str, set[str]] = {test: set() for test in tests}
        for element in ElementTree.parse(report).iter("testcase"):
            node = f"{element.get('classname', '').replace('.', '/')}.py::{element.get('name')}"
            kinds = {child.tag for child in element} & {"failure", "error", "skipped"}
            for test in results:
                if node == test or node.startswith(f"{test}["):
                    results[test].add(min(kinds, default="passed"))
    return {
        test: min(found - {"passed"}, default="passed") if found else "not found" for test, found in results.items()
    }


def main(parts: list[str]) -> int:
    """Prints the table; returns 1 if a case is not as it should be."""
    found = tables(parts)
    results = outcomes([case["test"] for cases in found.values() for case in cases])
    print("\n| part | case | before | now | test |\n| --- | --- | --- | --- | --- |")
    for part, cases in found.items():
        for case in cases:
            cells = [part, case["name"], case["before"], case["after"], results[case["test"]]]
            print("|", " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells), "|")
    wrong = [case["name"] for cases in found.values() for case in cases if results[case["test"]] != "passed"]
    print(f"\n{sum(map(len, found.values()))} cases; not as they should be: {', '.join(wrong) or 'none'}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
