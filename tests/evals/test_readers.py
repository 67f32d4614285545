"""Questions have the prompts of lm-evaluation-harness, and as many examples as are asked for."""

import gzip
import json
from dataclasses import replace

import pytest

from bluejay.evals import readers, suites
from bluejay.evals.code import problems
from bluejay.evals.evaluate import Settings, evaluate
from bluejay.evals.programs import MOST_AT_ONCE, Programs
from bluejay.evals.tasks import Continuation, Generation
from bluejay.testsets.rows import UNCONDITIONAL
from tests.testsets.conftest import arrow, request, wheel  # noqa: F401 - a fixture


def lines(rows: list[dict]) -> bytes:
    return gzip.compress("\n".join(map(json.dumps, rows)).encode())


def test_hellaswag_is_shown_without_markup(wheel):  # noqa: F811
    row = {
        "activity_label": "Roofing",
        "ctx_a": "A man sits [header] on a roof. [title] Next",
        "ctx_b": "he",
        "endings": ["  falls.", "sings [sub] low.", "a", "b"],
        "label": "1",
        "source_id": "x~1",
    }
    wheel({"hellaswag": ("h.arrow", arrow([row]))})
    (one,) = readers.hellaswag(0)
    assert one.requests[0] == Continuation("Roofing: A man sits on a roof.. Next He", " falls.")
    assert (one.gold, one.choices[1], one.cluster) == (1, "sings low.", "x~1")


def test_winogrande_scores_what_follows_each_filler(wheel):  # noqa: F811
    row = {"sentence": "Sarah beat Maria so _ won.", "option1": "Sarah", "option2": "Maria", "answer": "1"}
    wheel({"winogrande": ("w.arrow", arrow([row]))})
    (one,) = readers.winogrande(0)
    assert one.requests == (
        Continuation("Sarah beat Maria so Sarah", " won."),
        Continuation("Sarah beat Maria so Maria", " won."),
    )
    assert one.gold == 0


@pytest.mark.parametrize(("shots", "start"), [(0, "Q one"), (1, "B b\n\nQ one"), (2, "A a\n\nB b\n\nQ one")])
def test_examples_are_those_that_all_prompts_share(wheel, shots, start):  # noqa: F811
    examples = "A a\n\nB b\n\n"
    rows = [
        request(document + offset, index, "Answer:" if offset else f"{examples}Q {text}", ["x", "y"])
        for offset in (0, UNCONDITIONAL)
        for document, text in enumerate(("one", "two\n\nmore"))
        for index in (0, 1)
    ]
    wheel({"prompts": ("p.jsonl.gz", lines(rows))})
    readers.by_document.cache_clear()
    first, second = readers.rendered("prompts", False, shots)
    assert first.requests[0] == Continuation(start, " x") and len(first.requests) == 2
    assert second.requests[0].context.endswith("Q two\n\nmore")
    first, _ = readers.rendered("prompts", True, shots)
    assert [one.context for one in first.requests[2:]] == ["Answer:", "Answer:"]


@pytest.mark.parametrize("shots", [0, 1, 2])
def test_a_question_that_is_an_example_has_as_many_examples_as_the_others(wheel, shots):  # noqa: F811
    """As in the sets basic_skills: another example stands in its place, so no example begins every prompt."""
    written = {"1 + 1 =": " 2", "2 + 2 =": " 4", "3 + 3 =": " 6"}
    before = {"1 + 1 =": ["2 + 2 =", "3 + 3 ="], "5 + 5 =": ["1 + 1 =", "2 + 2 ="], "6 + 6 =": ["1 + 1 =", "2 + 2 ="]}
    blocks = {asked: [f"{one}{written[one]}" for one in examples] for asked, examples in before.items()}
    rows = [
        request(number, index, "\n\n".join([*blocks[asked], asked]), ["2", "10"])
        for number, asked in enumerate(blocks)
        for index in (0, 1)
    ]
    wheel({"prompts": ("p.jsonl.gz", lines(rows))})
    readers.by_document.cache_clear()
    found = [question.requests[0] for question in readers.rendered("prompts", False, shots)]
    contexts = [one.context for one in found if isinstance(one, Continuation)]
    assert contexts == ["\n\n".join([*blocks[asked][2 - shots :], asked]) for asked in blocks]


def test_mmlu_is_asked_as_a_cloze_and_with_letters(wheel):  # noqa: F811
    row = {"question": "What is 1 + 1?", "subject": "high_school_maths", "choices": ["1", "2"], "answer": 1}
    wheel({"mmlu": ("m.arrow", arrow([row])), "mmlu_examples": ("e.arrow", arrow([row | {"question": "2 * 1?"}]))})
    (cloze,), (letters,) = readers.mmlu(False, 1), readers.mmlu(True, 1)
    about = "The following are questions (with answers) about high school maths.\n\n"
    assert cloze.requests[1] == Continuation(
        f"{about}Question: 2 * 1?\nAnswer: 2\n\nQuestion: What is 1 + 1?\nAnswer:", " 2"
    )
    listed = "\n A. 1\n B. 2\nAnswer:"
    assert letters.requests[1] == Continuation(
        f"{about}Question: 2 * 1?{listed} B\n\nQuestion: What is 1 + 1?{listed}", " B"
    )
    assert (cloze.gold, letters.gold, cloze.cluster) == (1, 1, "high_school_maths")


def test_a_file_of_ones_own_may_be_one_that_windows_writes(tmp_path):
    row = {"question": "\ud83d cat \ud83d\ude00", "choices": ["yes", "no \ud83d"], "gold": "no \ud83d"}
    lines = f"{json.dumps(row)}\r\n\r\n{json.dumps(row)}\r\n"
    (tmp_path / "own.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    one, other = readers.own_questions(str(tmp_path / "own.jsonl"), "Q: {question}", "choices", "gold")
    assert one.requests[1] == Continuation("Q: \ufffd cat \U0001f600", " no \ufffd") and one.gold == 1
    assert other.requests == one.requests and (one.id, other.id) == ("1", "3")


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("latin-1", "own.jsonl, line 2 is not UTF-8: invalid continuation byte at byte 14"),
        ("utf-16", "own.jsonl, line 1 is not UTF-8: invalid start byte at byte 0"),
    ],
)
def test_a_file_in_another_encoding_is_named(tmp_path, encoding, message):
    rows = ({"question": text, "choices": ["yes", "no"], "gold": 0} for text in ("tea", "é caf"))
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "own.jsonl").write_bytes(lines.encode(encoding))
    with pytest.raises(ValueError, match=message):
        list(readers.own_questions(str(tmp_path / "own.jsonl"), "Q: {question}", "choices", "gold"))


@pytest.mark.parametrize(
    ("prompt", "choice", "whole"),
    [
        ("Q: {question}\nA:", "yes", "Q: tea\nA: yes"),
        ("Q: {question}\nA: ", "yes", "Q: tea\nA: yes"),
        ("Q: {question}\n", "yes", "Q: tea\nyes"),
        ("Q: {question}\nA:", " yes", "Q: tea\nA: yes"),
        ("{{{question}}}", "yes", "{tea} yes"),
    ],
)
def test_one_space_stands_between_a_prompt_and_a_choice(tmp_path, prompt, choice, whole):
    (tmp_path / "own.toml").write_text(f'name = "own"\ndata = "own.jsonl"\nprompt = {json.dumps(prompt)}\n')
    (tmp_path / "own.jsonl").write_text(json.dumps({"question": "tea", "choices": [choice, "no"], "gold": choice}))
    (one,) = suites.task(str(tmp_path / "own.toml")).questions(0)
    assert isinstance(first := one.requests[0], Continuation) and first.context + first.text == whole


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"question": "x", "choices": ["a", "b", "a"], "gold": 2}', '"a" is the right choice and stands twice'),
        ('{"question": NaN, "choices": ["a", "b"], "gold": 0}', "question is NaN; a prompt takes texts and numbers"),
        ('{"question": "x", "choices": ["a", NaN], "gold": 0}', "choices must be a list of texts"),
        ('{"question": "x", "choices": ["a", "b"], "gold": "B"}', 'gold is "B", .* write one, or its number from 0'),
        ("question,choices,gold", "line 1 is no JSON object: .*; the data are JSON Lines, an object in each line"),
    ],
)
def test_a_line_that_could_not_be_meant_is_refused(tmp_path, row, message):
    (tmp_path / "own.jsonl").write_text(row)
    with pytest.raises(ValueError, match=message):
        list(readers.own_questions(str(tmp_path / "own.jsonl"), "Q: {question}", "choices", "gold"))


def test_tasks_as_others_write_and_name_them_are_told_apart_from_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.jsonl").write_text("{}")
    (tmp_path / "OWN.TOML").write_text('name = "own"\ndata = "own.jsonl"\nprompt = "Q: {{ question }}"\n')
    for name, message in {
        "OWN.TOML": r"prompt has {{ question }}, which is not a field; a field stands in single braces",
        "my_task.yaml": "python -m bluejay.evals.harness runs those of lm-evaluation-harness",
        "own.jsonl": "a task of your own is a TOML file that names its data",
        "human_eval": "human_eval is asked with --suite code",
    }.items():
        with pytest.raises(ValueError, match=message):
            suites.task(name)


def test_programs_are_graded_outside_and_their_verdicts_kept():
    problem = next(one for one in problems("bluejay-code") if not one.forgeable)
    programs = Programs("own", [problem], 2, "none")
    (asked,) = programs.questions(0)
    assert all(isinstance(one, Generation) for one in asked.requests) and len({*asked.requests}) == 2
    scores = programs.measure(asked, [problem.reference, problem.mutants[0]])
    assert scores == {"pass@1": pytest.approx(0.5), "pass@2": 1.0}
    assert [one["passed"] for one in programs.verdicts] == [True, False]
    assert "cage: none" in programs.task(()).notes


def test_of_a_chat_models_answer_the_fenced_code_is_the_program():
    problem = next(one for one in problems("bluejay-code") if not one.forgeable)
    programs = Programs("own", [problem], 1, "none", chat=True)
    (asked,) = programs.questions(0)
    assert asked.requests[0].stop == () and "fenced code" in " ".join(programs.task(()).notes)
    answer = (
        f"Here is the function:\n\n```python\n{problem.prompt}{problem.reference}\n```\nIt does what you asked for."
    )
    assert programs.measure(asked, [answer]) == {"pass@1": 1.0}
    assert Programs("own", [problem], 1, "none").measure(asked, [answer]) == {"pass@1": 0.0}


def test_problems_with_one_sample_are_graded_together_and_kept_in_order(tmp_path):
    chosen = [one for one in problems("bluejay-code") if not one.forgeable][:4]
    programs = Programs("own", chosen, 1, "none")
    task = programs.task(())
    assert task.measured_at_once == MOST_AT_ONCE and Programs("own", chosen, 2, "none").task(()).measured_at_once == 1
    written = {one.prompt: one.reference if number % 2 else one.mutants[0] for number, one in enumerate(chosen)}

    class Known:
        name, identity, n_ctx = "known", "1", None

        def answers(self, requests):
            yield from enumerate(written[one.prompt] for one in requests)

        def longest(self, _):
            return 0

    (result,) = evaluate([Known()], [replace(task, measured_at_once=4)], Settings(), tmp_path).results
    assert result.scores["pass@1"] == [0.0, 1.0, 0.0, 1.0]
    kept = list(programs.by_model(["known"]))
    assert [(one["problem"], one["passed"]) for one in kept] == [
        (one.task_id, bool(number % 2)) for number, one in enumerate(chosen)
    ]
