"""Our own problems can be solved, and tell right from nearly right; rows of others become problems of the same kind."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from bluejay.evals.cage import Limits
from bluejay.evals.code import Problem, grade, grade_all, problem_of, problems, problems_from
from bluejay.evals.code.problems import STOP

OURS = problems("bluejay-code")
HUMAN_EVAL = {
    "task_id": "T/1",
    "prompt": 'def half(x):\n    """Halve."""\n',
    "canonical_solution": "    return x / 2\n",
    "test": "METADATA = {}\n\ndef check(candidate):\n    assert candidate(4) == 2\n    assert True, 'nothing'\n"
    "    assert abs(candidate(1) - 0.5) < 1e-6, 'not near'\n",
    "entry_point": "half",
}
MBPP = {
    "task_id": 7,
    "text": "Count the nodes.",
    "code": "class Node:\n    next = None\ndef count(node): return 1 + count(node.next) if node else 0",
    "test_list": ["assert count(one) == 1", "assert count(two) == 2", "assert sorted([count(two)]) == [2]"],
    "test_setup_code": "one = Node()\ntwo = Node()\ntwo.next = one",
}


def test_there_are_sixty_problems_in_eight_kinds():
    assert len(OURS) >= 60 and len({one.kind for one in OURS}) == 8
    assert max(Counter(one.task_id for one in OURS).values()) == 1
    assert min(len(one.tests) for one in OURS) >= 5 and min(len(one.mutants) for one in OURS) >= 3
    assert sum(one.article for one in OURS) >= 10 and not any(one.forgeable for one in OURS)


@pytest.mark.parametrize("most", [1, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", sorted({one.kind for one in OURS}))
def test_the_reference_passes_and_each_mutant_fails_a_test(kind, most):
    samples = [(one, text) for one in OURS if one.kind == kind for text in (one.reference, *one.mutants[:most])]
    verdicts = zip(samples, grade_all(samples, workers=2, limits=Limits(cpu_seconds=2)), strict=True)
    wrong = [
        (one.task_id, text, verdict) for (one, text), verdict in verdicts if verdict.passed != (text == one.reference)
    ]
    assert wrong == []


def test_mutants_fail_by_their_values_and_not_by_their_form():
    for problem in OURS:
        for text in problem.mutants:
            compile(problem.prompt + text, problem.task_id, "exec")


def test_no_reference_would_be_stopped_early():
    assert [one.task_id for one in OURS if any(stop in one.reference for stop in one.stop)] == []


def test_a_row_of_human_eval_is_tested_outside():
    problem = problem_of(HUMAN_EVAL)
    assert [test.calls for test in problem.tests] == [("candidate(4)",), ("candidate(1)",)]
    assert problem.stop == STOP and not problem.forgeable
    assert grade(problem, problem.reference).passed
    assert grade(problem, "    return x // 2\n").reason == "candidate(1) gave 0"


@pytest.mark.parametrize(
    "body",
    [
        "for x in range(3):\n        assert candidate(x) == x / 2",
        "x = 4\n    assert candidate(x) == 2",
        "assert candidate(4).is_integer()",
        "assert candidate(4) == 2 if candidate else False\n    assert (lambda: candidate(4))() == 2",
    ],
)
def test_tests_that_cannot_be_split_run_in_the_samples_process_and_say_so(body):
    problem = problem_of({**HUMAN_EVAL, "test": f"def check(candidate):\n    {body}\n"})
    assert problem.forgeable and problem.tests == ()
    right, wrong = grade(problem, problem.reference), grade(problem, "    return x + 1\n")
    assert (
        right.passed
        and right.forgeable
        and not wrong.passed
        and wrong.forgeable
        and wrong.reason.startswith("its tests raised")
    )
    assert not grade(problem, "    import os\n    os._exit(0)\n").passed


@pytest.mark.parametrize(
    ("beside", "assertion", "right", "forgeable"),
    [
        ("", "list(candidate(2)) == [0, 1]", "yield from range(x)", False),
        ("", "sorted(candidate('ba')) == ['a', 'b']", "return dict.fromkeys(x).keys()", False),
        ("GIVEN = 4", "candidate(GIVEN) == 2", "return x / 2", True),
        ("import math", "candidate(math.pi) < 2", "return x / 2", True),
    ],
)
def test_a_generator_is_right_and_so_is_a_test_that_uses_names_of_its_own(beside, assertion, right, forgeable):
    problem = problem_of({**HUMAN_EVAL, "test": f"{beside}\n\ndef check(candidate):\n    assert {assertion}\n"})
    assert problem.forgeable is forgeable
    assert grade(problem, f"    {right}\n").passed and not grade(problem, "    return 5\n").passed


def test_a_row_of_mbpp_may_set_up_what_its_calls_need():
    problem = problem_of(MBPP)
    assert problem.entry_point == "count" and problem.task_id == "7" and not problem.forgeable
    assert all(one in problem.prompt for one in (MBPP["text"], *MBPP["test_list"]))
    assert grade(problem, problem.reference).passed
    assert grade(problem, problem.reference.replace("1 +", "2 +")).reason == "count(one) gave 2"


def test_a_row_of_the_sanitized_mbpp_has_a_prompt_and_imports():
    row = {"task_id": 3, "prompt": "Half.", "code": "def half(x): return x / 2", "test_imports": ["import math"]}
    problem = problem_of({**row, "test_list": ["assert math.isclose(half(math.pi), math.pi / 2)"]})
    assert problem.prompt.startswith('"""\nHalf.\nassert') and grade(problem, problem.reference).passed


@pytest.mark.parametrize(
    ("assertion", "entry_point", "call", "check"),
    [
        ("assert set(similar([1], [1, 2])) == set((1,))", "similar", "set(similar([1], [1, 2]))", "_0 == set((1,))"),
        ("assert round(len(f()), 1) == 2", "f", "len(f())", "round(_0, 1) == 2"),
        ("assert sum(10, 15) == 6", "sum", "sum(10, 15)", "_0 == 6"),
        ("assert get([1]) == 1", "get", "get([1])", "_0 == 1"),
    ],
)
def test_the_function_of_an_assert_is_not_pythons_own_where_there_is_another(assertion, entry_point, call, check):
    problem = problem_of({**MBPP, "test_list": [assertion]})
    assert (problem.entry_point, problem.forgeable) == (entry_point, False)
    assert [(test.calls, test.check) for test in problem.tests] == [((call,), check)]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_problems_are_read_from_files(tmp_path: Path, suffix):
    text = "\n".join(map(json.dumps, (HUMAN_EVAL, MBPP))) + "\n\n"
    path = tmp_path / f"problems.{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    assert [one.task_id for one in problems_from(path)] == ["T/1", "7"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no problems"),
        (f"{json.dumps(HUMAN_EVAL)}\n\n{{", "problems.jsonl, line 3 is no JSON object: .* at column 2; the data are"),
        ("[1]\n", "problems.jsonl, line 1 is no JSON object; the data are JSON Lines, an object in each line$"),
        (json.dumps({**MBPP, "text": "\u00e9"}, ensure_ascii=False), "line 1 is not UTF-8: .* at byte 24$"),
        ('{"task_id": 1, "question": "?"}', "line 1 has the fields task_id, question; HumanEval's are"),
        (json.dumps({**HUMAN_EVAL, "test": "def check(:"}), "line 1: its tests are not Python"),
        (json.dumps({**MBPP, "test_list": ["assert 1 == 1"]}), "calls no function"),
        (json.dumps({**MBPP, "test_list": []}), "line 1: it has no tests"),
        (json.dumps({**MBPP, "test_list": ["assert count(one) == 1", ""]}), "line 1: .* '' is not an assert"),
        (json.dumps({**MBPP, "test_list": "assert count(one) == 1"}), "line 1: test_list must be a list of texts"),
        (json.dumps({**MBPP, "test_setup_code": 5}), "line 1: test_setup_code must be a text"),
        (json.dumps({**HUMAN_EVAL, "entry_point": 5}), "line 1: entry_point must be a text"),
        (json.dumps({**HUMAN_EVAL, "task_id": None}), "line 1: task_id must be a text or a number"),
        (json.dumps({**MBPP, "test_list": ["count(one) == 1"]}), "is not an assert"),
        (json.dumps({**MBPP, "test_setup_code": "import os, numpy"}), "line 1: its tests import numpy, and"),
        (json.dumps({**HUMAN_EVAL, "test": "x = 1"}), "line 1: it has no tests"),
        ("\n".join([json.dumps(MBPP)] * 2), "line 2: there is a problem 7 already; give each its own name"),
    ],
)
def test_what_is_no_problem_is_refused(tmp_path: Path, text, says):
    path = tmp_path / "problems.jsonl"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=says):
        problems_from(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="No such file"):
        problems_from(tmp_path / "none.jsonl")
    damaged = bytearray(gzip.compress(json.dumps(MBPP).encode()))
    damaged[12:20] = b"\xff" * 8
    for content in (b"not gzip", bytes(damaged)):
        (tmp_path / "bad.jsonl.gz").write_bytes(content)
        with pytest.raises(ValueError, match="not a file of JSON lines"):
            problems_from(tmp_path / "bad.jsonl.gz")


def test_a_suite_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="there are bluejay-code, human_eval, mbpp"):
        problems("humaneval")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count", "forgeable"), [("human_eval", 164, 6), ("mbpp", 500, 0)])
def test_every_reference_of_the_published_suites_passes(name, count, forgeable):
    try:
        found: list[Problem] = problems(name)
    except ValueError as error:
        pytest.skip(str(error))
    failed = [
        (one.task_id, verdict)
        for one, verdict in zip(found, grade_all([(one, one.reference) for one in found]), strict=True)
        if not verdict.passed
    ]
    assert len(found) == count and failed == [] and sum(one.forgeable for one in found) == forgeable
