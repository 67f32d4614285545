"""A question is contaminated where thirteen of its words stand in what was read, and not where they nearly do."""

import random

import pytest

from bluejay.evals.tasks import Continuation, Generation, Question, Task, WholeText, by_choice
from bluejay.trace import Index
from bluejay.trace.indexing import index
from bluejay.trace.report.contaminated import WORDS, contaminated, stand, text_of
from bluejay.trace.tracing import Source, Tracer
from tests.trace.conftest import write_corpus

RNG = random.Random(1)
VOCABULARY = [f"{a}{b}{c}" for a in "bdf" for b in "aeiou" for c in ("", "n", "r", "the")]
READ = RNG.choices(VOCABULARY, k=300)


@pytest.fixture
def tracer(tmp_path, byte_tokenizer):
    """A tracer of one document."""
    folder = write_corpus(tmp_path / "c", {"train": [[*byte_tokenizer.encode(" ".join(READ)), byte_tokenizer.eot]]})
    byte_tokenizer.save(folder)
    index(folder)
    return Tracer([Source(Index(folder))], byte_tokenizer)


def test_it_is_so_exactly_where_thirteen_words_in_a_row_are_the_same(tracer):
    """Equal to a search for each thirteen words in the text."""
    text, questions, expected = f" {' '.join(READ)} ", list[str](), list[bool]()
    for seed in range(60):
        rng = random.Random(seed)
        first, length = rng.randrange(250), rng.randrange(WORDS - 3, WORDS + 4)
        words = [*rng.choices(VOCABULARY, k=5), *READ[first : first + length], *rng.choices(VOCABULARY, k=5)]
        asked = " ".join(words if rng.random() < 0.7 else words[5:-5])
        parts = asked.split(" ")
        questions.append(asked)
        expected.append(any(f"{' '.join(parts[i : i + WORDS])}" in text for i in range(len(parts) - WORDS + 1)))
    # Words that stand in what was read, but of which a half is in another question.
    questions += ["", " ".join(READ[:7]), " ".join(READ[7:20]), " ".join(READ[20:26]), " ".join(READ[26:39])]
    expected += [False, False, True, False, True]
    assert stand(tracer, questions) == expected and set(expected) == {True, False}
    assert stand(tracer, []) == []


def test_questions_of_each_form_count_with_their_right_answer_and_short_ones_are_counted(tracer):
    begin, end = " ".join(READ[:8]), " ".join(["", *READ[8:14]])
    questions = [
        Question("choice", (Continuation(begin, " no"), Continuation(begin, end)), 1, choices=("no", end)),
        Question("wrong", (Continuation(begin, " no"), Continuation(begin, end)), 0, choices=("no", end)),
        Question("word", (Continuation(begin, end),)),
        Question("written", (Generation(begin, (), 8),), answers=(end.strip(),)),
        Question("whole", (WholeText(begin + end),)),
        Question("short", (WholeText("few words"),)),
    ]
    found = contaminated(tracer, Task("t", lambda _: iter(questions), by_choice, "acc"))
    assert found.dirty == {"choice": True, "wrong": False, "word": True, "written": True, "whole": True, "short": False}
    assert found.short == 2  # the wrong choice makes nine words
    assert found.share.n == 6 and found.share.value == pytest.approx(4 / 6)
    assert text_of(questions[3]) == begin + end


def test_a_question_is_looked_for_in_the_form_that_texts_have_in_a_corpus():
    asked = Question("1", (Continuation("Who owns\r\nthe cafe\u0301?", " Rene\u0301"),))
    assert text_of(asked) == "Who owns\nthe caf\u00e9? Ren\u00e9"
