"""`bluejay eval` over the checkpoints of a run, and over programs that others wrote."""

import json
import shlex
from argparse import Namespace
from dataclasses import replace
from itertools import pairwise

import pytest

from bluejay.cli import main
from bluejay.evals import command, tasks
from bluejay.evals.command import chosen_tasks, open_scorers
from bluejay.evals.evaluate import Settings, better_forms, evaluate
from bluejay.evals.tasks import Continuation, Question
from bluejay.gpt.formats.layouts import save_model
from bluejay.train.loop import train
from tests.train.conftest import load_recipe, recipe_file  # noqa: F401 - fixtures

TASK = """
name = "alphabet"
data = "rows.jsonl"
prompt = "{question}"
metric = "bits_per_byte"
"""
PROBLEM = {
    "task_id": "own/0",
    "prompt": "def double(x):\n",
    "entry_point": "double",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(5) == 10\n",
}
COMPLETIONS = ("    return 2 * x\n", "    return x + 2\n", "    return x + x\n")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
def test_the_checkpoints_of_a_run_become_a_curve(recipe_file, load_recipe, tmp_path, capsys, monkeypatch):  # noqa: F811
    train(load_recipe(recipe_file))
    rows = [{"question": "abcdefg"[:at], "choices": ["hijkl", "qqqqq"], "gold": 0} for at in range(1, 7)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.toml").write_text(TASK)
    report = tmp_path / "report"
    arguments = ["eval", str(tmp_path / "run"), "--checkpoints", "--tasks", str(tmp_path / "own.toml")]
    main([*arguments, "--report", str(report), "--json"])
    said = capsys.readouterr()
    found = json.loads(said.out.splitlines()[-1])
    assert f"wrote {tmp_path / 'run' / 'model-step-40'}, the model of the checkpoint at step 40" in said.err
    steps = [int(one["model"].removeprefix("run@")) for one in found["results"]]
    assert steps == sorted(steps) and len(steps) > 1 and steps[-1] == 40
    pairs = [(one["one"], one["other"]) for one in found["comparisons"]]
    assert pairs == [(f"run@{after}", f"run@{before}") for before, after in pairwise(steps)]
    assert 'aria-label="alphabet over training"' in (report / "report.html").read_text(encoding="utf-8")
    assert found["command"] == shlex.join(["bluejay", *arguments, "--report", str(report), "--json"])
    monkeypatch.chdir(tmp_path / "run")  # where the run's name is that of the folder
    main(["eval", ".", *arguments[2:], "--json"])  # what was exported is used again, and the answers are known
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["comparisons"] == found["comparisons"]
    assert again["results"][0]["figures"] == found["results"][0]["figures"]


def test_of_many_checkpoints_one_is_in_memory_at_a_time(tiny_model, tmp_path, monkeypatch):
    for step in (1, 2):
        save_model(tiny_model.gpt, tiny_model.tokenizer, tmp_path / f"model-step-{step}")
    steps = [(step, tmp_path / f"model-step-{step}") for step in (1, 2)]
    monkeypatch.setattr(command, "checkpoint_models", lambda _: steps)
    scorers = open_scorers(Namespace(models=[str(tmp_path)], checkpoints=True, device="cpu", chat=False))

    def measure(question, answers):
        assert sum(not scorer.model.closed for scorer in scorers) == 1
        return tasks.by_choice(question, answers)

    listed = [replace(task, measure=measure) for task in forms("acc", ())]
    found = evaluate(scorers, listed, Settings(), tmp_path)
    names = [f"{tmp_path.name}@1", f"{tmp_path.name}@2"]
    assert [(one.task, one.model) for one in found.results] == [(one.name, name) for one in listed for name in names]
    assert all(scorer.model.closed for scorer in scorers)


def test_checkpoints_of_what_is_no_run_are_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["eval", str(tmp_path), "--checkpoints"])
    said = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2 and "is not the directory of a run with checkpoints" in said[-1]


def test_programs_of_others_get_figures_with_intervals_and_each_a_reason(tmp_path, capsys):
    problems = [PROBLEM, PROBLEM | {"task_id": "own/1"}, PROBLEM | {"task_id": "own/2"}]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(one) + "\n" for one in problems))
    samples = [{"task_id": f"own/{at}", "completion": text} for at in (0, 1) for text in COMPLETIONS]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in samples))
    files = ["--samples", str(tmp_path / "samples.jsonl"), "--problems", str(tmp_path / "problems.jsonl")]
    main(["eval", *files, "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    one = found["figures"]["pass@1"]
    assert one["value"] == pytest.approx(found["pass@1"]) == pytest.approx(2 / 3) and one["n"] == 2
    assert found["figures"]["pass@2"]["value"] == 1.0 and found["figures"]["pass@2"]["low"] < 0.5  # two problems only
    assert [verdict["passed"] for verdict in found["verdicts"]] == [True, False, True] * 2
    assert "(5) gave 7" in found["verdicts"][1]["reason"]
    main(["eval", *files])
    said = capsys.readouterr().out
    assert "pass@1 0.6667 (" in said and "n = 2" in said and "1 problems have no sample" in said


def forms(metric: str, data: tuple[str, ...]) -> list[tasks.Task]:
    """A task as a cloze, with its main figure, and with letters, of known test sets or of none."""

    def task(name: str, gold: int, metric: str) -> tasks.Task:
        asked = [
            Question(str(at), (Continuation("Q", " aa"), Continuation("Q", " bb")), gold, choices=("aa", "bb"))
            for at in range(4)
        ]
        return tasks.Task(name, lambda _: iter(asked), tasks.by_choice, metric, data=data)

    return [task("x_5shot", 1, metric), task("x_5shot_mc", 0, "acc")]


class Fixed:
    n_ctx = None

    def __init__(self, name: str = "fixed") -> None:
        self.name = self.identity = name

    def answers(self, requests):
        for number, request in enumerate(requests):
            yield number, tasks.Likelihood(-1.0 if request.text == " aa" else -2.0, 1, False)

    def longest(self, requests):
        return 0


def test_of_two_forms_the_better_one_counts(tmp_path):
    found = evaluate([Fixed()], forms("acc", ("arc_easy",)), Settings(), tmp_path)
    assert {result.task: result.main.value for result in found.results} == {
        "x_5shot": 0.0,
        "x_5shot_mc": 1.0,
        "x_5shot_either_form": 1.0,
    }
    assert "the better of 0 as a cloze and 1 with letters" in found.results[-1].notes[-1]
    assert not list(better_forms(found.results[:1]))


def test_a_mean_over_subjects_says_how_many_of_them_are_left(tmp_path):
    asked = [
        Question(name, (Continuation("Q", " aa"), Continuation("Q", " bb")), choices=("aa", "bb"), cluster=name)
        for name in ("law", "logic", "trade", "music", "chess", "tennis")
    ]
    task = tasks.Task("t", lambda _: iter(asked), tasks.by_choice, "acc", macro=True)
    (result,) = evaluate([Fixed()], [task], Settings(limit=4), tmp_path).results
    assert result.notes == ("mean over 4 of 6 subjects of the mean in each",)


@pytest.mark.parametrize(("metric", "data"), [("bits_per_byte", ("arc_easy",)), ("acc", ())])
def test_bits_and_tasks_of_ones_own_have_no_better_form(metric, data, tmp_path):
    found = evaluate([Fixed("one"), Fixed("other")], forms(metric, data), Settings(), tmp_path)
    assert {result.task for result in found.results} == {"x_5shot", "x_5shot_mc"} and len(found.comparisons) == 2


@pytest.mark.parametrize("suites", [["olmes", "small"], ["small", "olmes"]])
def test_the_order_of_suites_does_not_decide_a_main_figure(suites):
    chosen = chosen_tasks(Namespace(tasks=None, suite=suites), [])
    metrics = {task.name: task.metric for task in chosen}
    assert len(metrics) == len(chosen) and metrics["arc_easy_5shot"] == "acc_norm"
    assert metrics["piqa_5shot"] == "bits_per_byte"
