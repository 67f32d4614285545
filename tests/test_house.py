"""The order of the package: what imports what, how much is in one folder, and one name for one thing."""

import ast
import os
import re
import subprocess
import tomllib
from collections import Counter
from functools import cache
from importlib import import_module
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "bluejay"
MOST_MODULES = {"pile": 10, "train": 12, "serve": 12, "gpt": 10}
"""Modules and folders at the top of a package."""
MOST_LINES = 400
RETIRED = ("foretell", "foretold", "sift", "stretch")
SHARED_NAMES = {
    "__init__",
    "card",  # what is known of a model, and of a corpus
    "lens",  # the verb, and the endpoint
    "metrics",  # of a server, and of a run
    "model",  # the network, and what people call
    "native",  # the compiled module, and the backend that it computes for
    "parallel",  # parallel corpora, and parallel processes
    "plan",  # of a build, and of a run
    "recipe",  # of a corpus, of a run, and how either is read
    "settings",  # of a server, and of the terminal's editor
    "text",  # files of text, and text as it is generated
    "tokenizer",  # a tokenizer, and the step that trains one
    "trace",  # the verb, and the endpoint
}
"""Names of files that stand in several folders, each of which says which is meant."""


def modules() -> dict[str, Path]:
    """Every module's path by its dotted name."""
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }


@cache
def imports() -> dict[str, set[str]]:
    """The modules that each module imports, inside functions too. The package's root is not counted: every module
    imports it."""
    paths, found = modules(), {}
    for name, path in paths.items():
        named: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not node.level, f"{name} imports relatively"
                named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
        found[name] = (named & paths.keys()) - {name, PACKAGE.name}
    return found


@pytest.mark.parametrize("package", ["bluejay", "bluejay.lens", "bluejay.trace"])
def test_no_public_name_is_a_module_of_its_package(package):
    # Importing the module would replace what the package offers under the name.
    offered = import_module(package).PUBLIC
    assert offered and not {f"{package}.{name}" for name in offered} & modules().keys()


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """All that can be reached from a node by at least one step."""
    seen: set[str] = set()
    todo = [*graph[start]]
    while todo:
        if (node := todo.pop()) not in seen:
            seen.add(node)
            todo.extend(graph[node])
    return seen


def in_circles(graph: dict[str, set[str]]) -> list[str]:
    """The nodes that can be reached from themselves."""
    return sorted(node for node in graph if node in reachable(graph, node))


def test_a_circle_would_be_found():
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["b", "c"]
    assert len(imports()) > 100 and imports()["bluejay.infer.model"] >= {"bluejay.gpt.model"}


def test_no_imports_run_in_a_circle():
    assert in_circles(imports()) == []


@pytest.mark.parametrize("package", MOST_MODULES)
def test_a_package_can_be_taken_in_at_a_glance(package):
    found = [path for path in (PACKAGE / package).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert 1 < len(found) - 1 <= MOST_MODULES[package], sorted(path.name for path in found)


def test_no_file_is_too_long_to_read():
    # An editable installation builds below native/, in folders that are not ours.
    files = [*PACKAGE.rglob("*.*"), *(ROOT / "native").glob("*.*")]
    sources = [path for path in files if path.suffix in {".py", ".js", ".css", ".html", ".cpp", ".h"}]
    lines = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert len(sources) > 200 and {name: n for name, n in lines.items() if n > MOST_LINES} == {}


def test_files_of_one_name_are_known():
    counts = Counter(path.stem for path in PACKAGE.rglob("*.py"))
    assert {name for name, count in counts.items() if count > 1} == SHARED_NAMES


def test_retired_words_do_not_come_back():
    text = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in modules().values()}
    words = re.compile(rf"\b(?:{'|'.join(RETIRED)})\w*", re.IGNORECASE)
    assert {path: found for path, content in text.items() if (found := words.findall(content))} == {}


def design() -> str:
    """The page that describes the package."""
    return (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def test_each_dependency_has_its_line_in_the_design():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    names = {re.split(r"[\[;=<> ]", one)[0] for one in wanted}
    assert sorted(name for name in names if not re.search(rf"`{re.escape(name)}\b", design())) == []


def test_each_word_of_the_glossary_has_one_meaning():
    section = re.search(r"^#+ Glossary\n(.*?)(?=^#)", design(), re.MULTILINE | re.DOTALL)
    assert section
    rows = re.findall(r"^\| *(.+?) *\| *(.+?) *\|$", section[1], re.MULTILINE)[2:]
    words = [word.casefold() for words, _ in rows for word in words.split(", ")]
    meanings = [meaning.casefold() for _, meaning in rows]
    assert 20 < len(rows) <= 40
    assert [word for word, count in Counter(words).items() if count > 1] == []
    assert [meaning for meaning, count in Counter(meanings).items() if count > 1] == []


def drawn(tree: str) -> set[str]:
    """The folders of the package that a tree of folders, drawn with lines, names."""
    folders: set[str] = set()
    above: list[str] = []
    for line in tree.splitlines():
        if match := re.match(r"([│├└─\s]*)([\w./-]+?)(/?)(?:\s|$)", line):
            del above[len(match[1]) // 4 :]
            above.append(match[2])
            if match[3]:
                folders.add("/".join(above[1:]))
    return {folder for folder in folders if folder.startswith("src/bluejay/")}


def test_the_tree_in_the_documentation_is_the_tree():
    tree = re.search(r"^```\nbluejay/\n.*?^```", design(), re.MULTILINE | re.DOTALL)
    assert tree
    files = [path for path in PACKAGE.rglob("*.*") if path.is_file() and path.suffix != ".pyc"]
    assert drawn(tree[0].strip("`\n")) == {str(path.parent.relative_to(ROOT)) for path in files} - {"src/bluejay"}


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        ("", "--numprocesses 3 --dist loadfile --no-loadscope-reorder"),
        ("src/bluejay/gpt/model.py", "tests/gpt/test_model.py"),
        ("src/bluejay/gpt/config.py", "tests/gpt/"),  # which has no tests of its own
        ("src/bluejay/gpt/__init__.py", "tests/gpt"),
        ("src/bluejay/testsets/", "tests/testsets"),
        ("src/bluejay", "tests"),
        ("benchmarks/table.py", "tests/benchmarks/test_table.py"),
        ("tests/testsets", "tests/testsets"),
        ("tests/gpt/test_model.py", "tests/gpt/test_model.py"),
    ],
)
def test_make_test_runs_the_tests_of_a_file_or_folder(file, tests):
    command = ["make", "--no-print-directory", "-n", "test", f"FILE={file}"]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of make test
    run = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True, check=True)
    assert run.stdout.rstrip().endswith(f'pytest -m "not slow" {tests}')


def test_the_public_names_are_the_same_wherever_they_are_listed():
    import bluejay

    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    [typed] = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for node in typed.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imports for alias in node.names} == bluejay.PUBLIC
    assert list(bluejay.PUBLIC) == bluejay.__all__
    assert all(getattr(bluejay, name) is not None for name in bluejay.PUBLIC)
