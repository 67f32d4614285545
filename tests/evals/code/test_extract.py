"""Where a completion ends, and what in an answer is code."""

import pytest

from bluejay.evals.code import Problem, cut, from_answer, grade, problems

DOUBLE = next(one for one in problems("bluejay-code") if one.entry_point == "add")


def test_a_completion_ends_where_the_next_thing_begins():
    text = "    return a + b\n\n\ndef other():\n    pass\nprint(add(1, 2))\n"
    assert cut(text, DOUBLE.stop) == "    return a + b\n\n"
    assert cut("    return a + b", DOUBLE.stop) == "    return a + b"
    assert cut("    # a comment\n    if a:\n        return a + b\n", DOUBLE.stop).endswith("a + b\n")


@pytest.mark.parametrize(
    "answer",
    [
        "    return a + b\n",
        "Here it is:\n```python\ndef add(a, b):\n    return a + b\n```\nIt adds.",
        "```\ndef helper(a, b):\n    return a + b\n\ndef add(a, b):\n    return helper(a, b)\n```",
        "First:\n```python\nx = 1\n```\nNow:\n```py\nimport math\n\ndef add(a, b):\n    return math.ceil(a + b)\n```\n",
        "```python\n    return a + b\n```",
        "```python\ndef add(a, b):\n    return a + b",
    ],
)
def test_an_answer_in_any_usual_form_is_graded(answer):
    verdict = grade(DOUBLE, from_answer(DOUBLE, answer))
    assert verdict.passed, verdict


def test_an_answer_for_a_prompt_without_a_function_stands_alone():
    problem = Problem("t", '"""\nAdd.\n"""\n', "add", DOUBLE.tests)
    assert grade(problem, from_answer(problem, "```python\ndef add(a, b):\n    return a + b\n```")).passed


def test_an_answer_for_a_class_may_define_it_anew():
    problem = next(one for one in problems("bluejay-code") if one.entry_point == "Counter")
    whole = f"```python\n{problem.prompt}{problem.reference}```"
    assert grade(problem, from_answer(problem, whole)).passed
