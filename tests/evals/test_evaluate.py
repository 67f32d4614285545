"""Questions become figures: what is right, what goes on after an interrupt, and what is refused in one line."""

import json
import math
import shutil
from pathlib import Path

import pytest

from bluejay.cli import main
from bluejay.evals import suites, tasks
from bluejay.evals.answers import AnswerFile
from bluejay.evals.evaluate import Settings, asked, evaluate, figure, summary
from bluejay.evals.evaluation_file import identity_at, identity_of
from bluejay.evals.held_out_parts import component_tasks
from bluejay.evals.scorers import LocalScorer, open_scorer
from bluejay.evals.tasks import Continuation, Generation, Likelihood, Question, WholeText
from bluejay.gpt.formats.layouts import save_model
from bluejay.tokens import TokenWriter

TASK = """
name = "own"
data = "rows.jsonl"
prompt = "Q: {question}\\nA:"
metric = "acc"
"""
ROWS = [{"question": f"{i} cats", "choices": ["sat", "ran", f"ate {i}"], "gold": i % 3} for i in range(12)]


@pytest.fixture
def own(tmp_path: Path, monkeypatch) -> Path:
    """A task file with its data, in an empty cache."""
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "own.toml").write_text(TASK)
    return tmp_path / "own.toml"


def question(gold: int, *choices: str) -> Question:
    return Question("1", tuple(Continuation("Q", f" {c}") for c in choices), gold, choices=choices)


def likely(*logprobs: float, tokens: int = 1) -> list[Likelihood]:
    return [Likelihood(logprob, tokens, False) for logprob in logprobs]


def test_the_likeliest_choice_wins_by_each_normalisation():
    one = question(1, "short", "a much longer choice")
    found = tasks.by_choice(one, likely(-4.0, -6.0))
    assert (found["acc"], found["acc_norm"]) == (0.0, 1.0)
    found = tasks.by_choice(one, [Likelihood(-4.0, 1, False), Likelihood(-6.0, 4, False)])
    assert found["acc_per_token"] == 1.0
    found = tasks.by_choice(one, likely(-4.0, -6.0, -1.0, -9.0))
    assert found["acc_uncond"] == 1.0
    assert found["bits_per_byte"] == (6.0 / math.log(2), 21.0)


def test_ties_count_as_wrong():
    assert tasks.by_choice(question(0, "aa", "bb"), likely(-2.0, -2.0))["acc"] == 0.0
    assert tasks.by_filler(question(0, "he", "she"), likely(-2.0, -2.0)) == {"stereotype": 0.5}


def test_answers_are_compared_as_trivia_and_school_problems_are():
    one = Question("1", (), answers=("sunset boulevard",))
    assert tasks.by_answer(one, [" The Sunset Boulevard."])["exact_match"] == 1.0
    assert tasks.by_answer(one, ["Sunset"])["exact_match"] == 0.0
    steps = Question("1", (), answers=("1200",))
    assert tasks.by_number(steps, ["3 * 400 = 1,200. So the answer is 1,200."])["exact_match"] == 1.0
    assert tasks.by_number(steps, ["no number"])["exact_match"] == 0.0
    assert tasks.by_number(Question("1", (), answers=("1,200",)), ["It is 1,200."])["exact_match"] == 1.0
    for right, written in (("spider man", "Spider-Man"), ("o neill", "O’Neill"), ("1 2", "1/2")):
        assert tasks.by_answer(Question("1", (), answers=(right,)), [written])["exact_match"] == 1.0


def test_an_interrupted_evaluation_goes_on(tiny_model, tmp_path, file_size_limit):
    scorer = LocalScorer(tiny_model, "tiny", "1")
    requests = [Continuation("the cat", f" {word}") for word in ("sat", "ran", "sat", "ate")]
    file = AnswerFile(tmp_path / "a.jsonl")
    with file_size_limit(60), pytest.raises(OSError, match=r"File too large: .*a\.jsonl"):
        file.ask(scorer, requests, "test")
    file = AnswerFile(file.path)
    whole = file.ask(scorer, requests, "test")
    lines = file.path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3  # the same request is asked once
    file.path.write_bytes(lines[0] + lines[1][:9])  # cut off in the middle of a line
    asked: list[int] = []

    class Counting(LocalScorer):
        def answers(self, requests):
            asked.append(len(requests))
            return super().answers(requests)

    again = AnswerFile(file.path).ask(Counting(tiny_model, "tiny", "1"), requests, "test")
    assert asked == [2]
    assert [answer.logprob for answer in again] == pytest.approx([answer.logprob for answer in whole], abs=1e-5)
    assert len(file.path.read_bytes().splitlines()) == 3
    file.path.write_bytes(b"\0\0\n[1]\n" + file.path.read_bytes())  # as a full disk or a crash leaves it
    assert AnswerFile(file.path).ask(Counting(tiny_model, "tiny", "1"), requests, "test") == again and asked == [2]


def test_where_answers_cannot_be_kept_it_is_said_at_once_what_helps(tiny_model, tmp_path):
    (tmp_path / "tiny-1.jsonl").mkdir()
    with pytest.raises(OSError, match=r"kept in .*tiny-1\.jsonl, .*: Is a directory; set BLUEJAY_CACHE to"):
        AnswerFile.of(LocalScorer(tiny_model, "tiny", "1"), tmp_path)


def test_two_models_are_compared_on_the_same_questions(tiny_model, own, tmp_path):
    scorers = [LocalScorer(tiny_model, name, name) for name in ("one", "other")]
    found = evaluate(scorers, [suites.own_task(own)], Settings(limit=9), tmp_path / "answers")
    assert [result.n for result in found.results] == [9, 9] and found.results[0].of == 12
    (comparison,) = found.comparisons
    assert comparison.difference.value == 0 and not comparison.difference.clear
    assert found.results[0].figures.keys() == {"acc", "acc_norm", "acc_per_token", "bits_per_byte"}
    assert "n = 9" in summary(found) and json.dumps(found.as_dict())


def test_bits_per_byte_of_few_texts_are_not_below_0():
    found = figure("bits_per_byte", [(10.0, 10.0), (900.0, 30.0)], ["a", "b"])
    assert found.low == 0.0 < found.value and math.isnan(figure("bits_per_byte", [(1.0, 1.0)], ["a"]).low)


def test_texts_that_follow_no_question_are_scored_without_the_chat_template(tiny_model, tmp_path):
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    plain = LocalScorer(tiny_model, "tiny", "tiny")
    chat = LocalScorer(tiny_model, "tiny", "tiny chat", chat=True)
    alone = [WholeText("the cat sat"), Continuation("", "the dog")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_model.tokenizer, "chat_template", template)
        asked_for = [*alone, Continuation("Q", " the cat")]
        found, same = (dict(scorer.answers(asked_for)) for scorer in (chat, plain))
        assert [found[i] for i in (0, 1)] == [same[i] for i in (0, 1)] and found[2] != same[2]
        task = tasks.Task(
            "t", lambda _: iter([Question("1", tuple(alone[:1]))] * 2), tasks.by_text, "text_bits_per_byte"
        )
        notes = [asked(task, [one], Settings())[3] for one in (plain, chat)]
    assert notes == [(), ("texts that follow no question are scored without the chat template",)]


def test_bits_are_divided_by_the_bytes_that_were_scored(tiny_model):
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    one = Question("1", (Continuation("Q: ", " cat"),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_model.tokenizer, "chat_template", template)
        for chat, scored in ((False, "  cat"), (True, "cat")):  # the template's prompt ends without a space
            scorer = LocalScorer(tiny_model, "tiny", "1", chat)
            ((_, answer),) = scorer.answers(one.requests)
            assert tasks.bits_and_bytes(one, answer)[1] == len(scored)
            assert answer.n_tokens == len(tiny_model.tokenizer.encode(scored))


def test_a_task_that_cannot_be_asked_leaves_the_others(tiny_model, tmp_path):
    def read(shots: int):
        yield from (question(0, f"sat {number}", "ran") for number in range(3))

    def writing(_: int):
        yield Question("1", (Generation("Q", (), 64),), answers=("a",))  # the whole context

    scorers = [LocalScorer(tiny_model, name, name) for name in ("one", "other")]
    fine = tasks.Task("fine", read, tasks.by_choice, "acc")
    long = tasks.Task("long", writing, tasks.by_answer, "exact_match")
    found = evaluate(scorers, [long, fine], Settings(), tmp_path)
    assert [(one.task, one.model) for one in found.results] == [("fine", "one"), ("fine", "other")]
    assert found.not_run == {"long": "an answer of 64 tokens leaves one no room for a question"}
    with pytest.raises(ValueError, match="leaves one no room"):
        evaluate(scorers, [long], Settings(), tmp_path)


def test_a_request_without_an_answer_is_said(tmp_path):
    class Silent:
        name, identity, n_ctx = "silent", "1", None

        def answers(self, requests):
            yield 0, "one"

        def longest(self, _):
            return 0

    with pytest.raises(ValueError, match="silent left 1 of 2 requests of t without an answer"):
        AnswerFile.of(Silent(), tmp_path).ask(Silent(), [Generation("a", (), 1), Generation("b", (), 1)], "t")


def test_both_forms_of_a_task_are_asked_the_same_questions(tiny_model):
    def read(_: int):
        yield from (Question(str(number), (Continuation("Q", " a"),), choices=("a",)) for number in range(100))

    scorer, chosen = LocalScorer(tiny_model, "tiny", "1"), []
    for name in ("own", "own_mc", "another"):
        questions, *_ = asked(tasks.Task(name, read, tasks.by_choice, "acc"), [scorer], Settings(limit=20))
        chosen.append([one.id for one in questions])
    assert chosen[0] == chosen[1] != chosen[2]


def test_components_of_a_corpus_have_bits_per_byte_and_short_ones_none(tiny_model, tmp_path):
    (tmp_path / "tokens").mkdir()
    tiny_model.tokenizer.save(tmp_path)
    texts = ["the cat sat on the mat. " * 250] * 4
    with TokenWriter(tmp_path / "tokens" / "valid", 259) as shard:
        for text in texts:
            shard.add([*tiny_model.tokenizer.encode(text), tiny_model.tokenizer.eot])
    (task,) = component_tasks(tmp_path)
    (only,) = list(task.questions(0))[:1]
    (request,) = only.requests
    assert request.text == texts[0] and "overlap" in task.notes[0]
    with TokenWriter(tmp_path / "tokens" / "test", 259) as shard:
        shard.add(tiny_model.tokenizer.encode("short"))
    (task,) = component_tasks(tmp_path, "test")
    found = evaluate([LocalScorer(tiny_model, "tiny", "1")], [task], Settings(), tmp_path / "answers")
    assert found.not_run == {"pile/all": "0.0 kB of text, less than the 20 kB that a figure needs"}


def test_what_lies_beside_a_models_files_asks_nothing_anew(directory):
    def identity() -> str:
        with open_scorer(directory).model as model:
            return identity_of(directory, model.tokenizer)

    before, folder = identity(), Path(directory)
    (folder / "evaluation").mkdir()
    for name in ("README.md", "evaluation/report.html", "tuned_lens.safetensors", "heads.png"):
        (folder / name).write_text("beside it")
    assert identity() == before
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert identity() != before


@pytest.fixture
def directory(tiny_model, tmp_path) -> str:
    save_model(tiny_model.gpt, tiny_model.tokenizer, tmp_path / "tiny")
    return str(tmp_path / "tiny")


def test_the_command_prints_figures_with_intervals(directory, own, capsys):
    main(["eval", directory, "--tasks", str(own), "--limit", "6", "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    (result,) = found["results"]
    assert found["identities"] == {"tiny": identity_at(Path(directory))}
    acc = result["figures"]["acc"]
    assert acc["n"] == 6 and acc["low"] <= acc["value"] <= acc["high"]


BAD = {
    "--tasks helaswag": "there is no task helaswag; the nearest is hellaswag",
    "--suite smal": "there is no suite smal; the nearest is small",
    "--suite pile": "the suite pile needs --corpus DIR",
    "--tasks piqa --limit 1": "an interval needs at least 2 questions",
    "--tasks own.toml --shots 3": "own has 0 examples; --shots 3 asks for more",
    "--tasks missing.toml": "missing.toml",
    "--tasks unknown-key.toml": "metrik",
    "--tasks no-field.toml": "rows.jsonl, line 1 has no field 'answers'",
    "--tasks no-gold.toml": "gold.jsonl, line 1: gold is 7; of 2 choices it is the number of one, from 0",
    "--tasks no-data.toml": "there is no file",
    "--chat": "has no chat template; leave out --chat",
    "--tasks own.toml missing.toml": "there is no task file missing.toml",
    "--tasks own.toml copy.toml": "two tasks are called own; give one of them another name",
    "--tasks letters.toml": 'line 1: choices must be a list of texts, such as ["yes", "no"], and is "yes"',
    "--tasks hub.toml": 'choices must be a list of texts, such as ["yes", "no"], and is {"text": ["a", "b"]',
    "--tasks single.toml": "single.jsonl, line 1: choices holds 1 choices; a question needs at least 2",
    "--tasks blank.toml": "choices holds an empty text",
    "--tasks truth.toml": "gold is true; it is the number of the right choice, from 0, or its text",
    "--tasks numbers.toml": "gold is 2 and choices are numbers, so it may mean one or its place; write texts",
    "--tasks else.toml": 'else.jsonl, line 3: gold is "1", which is none of the choices',
    "--tasks null.toml": "null.jsonl, line 1: question is null; a prompt takes texts and numbers",
    "--tasks array.toml": 'each line must be a JSON object, and this one is [{"question',
    "--tasks broken.toml": "broken.jsonl, line 1 is no JSON object: Expecting ',' delimiter at column 17",
    "--tasks taken.toml": "there is a task lambada already",
    "--tasks table.toml": "name is 'o|wn'; it must be a text in one line without |",
    "--tasks unnamed.toml": "prompt has {}; fields of a line stand in it by their names",
    "--tasks dotted.toml": "prompt has {question.x}; fields of a line stand in it by their names",
    "--tasks own.toml --shots -1": "--shots: it is -1; it must be a whole number of at least 0",
    "--tasks own.toml --n 3": "--n has no effect without --suite code",
    "--suite code --n 0": "--n: it is 0; it must be a whole number of at least 1",
    "--tasks own.toml --cage none": "--cage has no effect without --suite code or --samples",
    "--tasks own.toml --corpus .": "--corpus has no effect without --suite pile",
    "--tasks own.toml --problems x": "--problems has no effect without --samples",
    "--samples x": "has no effect with --samples; leave it out",
    "--tasks own.toml --report own.toml": "own.toml is a file; name a folder",
}
OWN = {
    "letters": '{"question": "x", "choices": "yes", "gold": 0}',
    "hub": '{"question": "x", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "gold": 0}',
    "single": '{"question": "x", "choices": ["a"], "gold": 0}',
    "blank": '{"question": "x", "choices": ["a", " "], "gold": 0}',
    "truth": '{"question": "x", "choices": ["yes", "no"], "gold": true}',
    "numbers": '{"question": "x", "choices": [1, 2, 3], "gold": 2}',
    "else": '\n\n{"question": "x", "choices": ["a", "b"], "gold": "1"}',
    "null": '{"question": null, "choices": ["a", "b"], "gold": 0}',
    "array": '[{"question": "x", "choices": ["a", "b"], "gold": 0}]',
    "broken": '{"question": "x"',
}


@pytest.mark.parametrize(("arguments", "sentence"), BAD.items())
def test_a_mistake_is_one_line(arguments, sentence, directory, own, capsys, monkeypatch):
    folder = own.parent
    monkeypatch.chdir(folder)
    (folder / "unknown-key.toml").write_text(TASK + 'metrik = "acc"\n')
    (folder / "no-field.toml").write_text(TASK + 'choices = "answers"\n')
    (folder / "no-data.toml").write_text(TASK.replace("rows.jsonl", "none.jsonl"))
    (folder / "no-gold.toml").write_text(TASK.replace("rows.jsonl", "gold.jsonl"))
    (folder / "gold.jsonl").write_text(json.dumps({"question": "x", "choices": ["a", "b"], "gold": 7}) + "\n")
    (folder / "copy.toml").write_text(TASK)
    for name, line in OWN.items():
        (folder / f"{name}.toml").write_text(TASK.replace("rows.jsonl", f"{name}.jsonl"))
        (folder / f"{name}.jsonl").write_text(line + "\n")
    (folder / "taken.toml").write_text(TASK.replace('"own"', '"lambada"'))
    (folder / "table.toml").write_text(TASK.replace('"own"', '"o|wn"'))
    for name, field in (("unnamed", "{}"), ("dotted", "{question.x}")):
        (folder / f"{name}.toml").write_text(TASK.replace("{question}", field))
    with pytest.raises(SystemExit) as stopped:
        main(["eval", directory, *arguments.split(), *(["--tasks", "own.toml"] if arguments == "--chat" else [])])
    said = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2 and said[-1].startswith("error: ") and sentence in said[-1]


def test_models_of_one_name_are_told_apart_by_their_paths(directory, own, tmp_path, capsys):
    other = tmp_path / "other" / "tiny"
    shutil.copytree(directory, other)
    main(["eval", directory, str(other), "--tasks", str(own), "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["model"] for one in found["results"]] == [directory, str(other)] and len(found["comparisons"]) == 1
    with pytest.raises(SystemExit, match="2"):
        main(["eval", directory, directory, "--tasks", str(own)])
    assert f"the model {directory} is named twice" in capsys.readouterr().err


@pytest.mark.parametrize("of_question", [0, 1])
def test_a_context_too_short_for_the_examples_or_the_question_is_said(tiny_model, tmp_path, of_question):
    long = "the cat " * 40

    def read(shots: int):
        yield from [question(0, f"sat {long * (shots + of_question)}", "ran") for _ in range(3)]

    task = tasks.Task("long", read, tasks.by_choice, "acc", shots=2, max_shots=2)
    scorer = LocalScorer(tiny_model, "tiny", "1")
    with pytest.raises(ValueError, match=r"long with 2 examples takes up to \d+ tokens; tiny reads 64; ask for fewer"):
        evaluate([scorer], [task], Settings(shots=2), tmp_path)
    (result,) = evaluate([scorer], [task], Settings(), tmp_path).results
    assert result.shots == 0 and "0 of 2 examples" in result.notes[0]
    assert result.notes[1:] == ("contexts that are too long lose their start",) * of_question
