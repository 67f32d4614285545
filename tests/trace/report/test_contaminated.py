"""A question is contaminated where thirteen of its words stand in what was read, and not where they nearly do."""

import random

import pytest

from bluejay.evals.tasks import Continuation, Generation, Question, Task, WholeText, by_choice
from bluejay.trace import Index
from bluejay.trace.indexing import index
from bluejay.trace.report.contaminated import WORDS, contaminated, own_words, stand, text_of
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
    assert found.share is not None and (found.share.n, found.share.value) == (4, 1.0)
    assert text_of(questions[3]) == begin + end


@pytest.mark.parametrize(("macro", "clusters"), [(False, 5), (True, 40)])
def test_questions_of_one_passage_are_contaminated_together(tracer, macro, clusters):
    """So they tell of the share of a test set as much as one does; those of one subject stand apart."""
    texts = (" ".join([*(READ[:20] if n < 20 else READ[19::-1]), f"{n}"]) for n in range(40))
    questions = [Question(str(n), (WholeText(text),), cluster=f"passage {n // 8}") for n, text in enumerate(texts)]
    found = contaminated(tracer, Task("t", lambda _: iter(questions), by_choice, "acc", macro=macro)).share
    assert found is not None and (found.value, found.n, found.clusters) == (0.5, 40, clusters)
    assert (found.low < 0.25) is not macro


def test_questions_that_are_long_by_the_words_of_every_prompt_are_short(tracer):
    """Words that no text has between a question and its answer make it no longer."""

    def asked(name: str, n_words: int, n_answer: int, first: int = 100) -> Question:
        words = READ[first : first + n_words + n_answer]
        prompt = f"Question: {' '.join(words[:n_words])}\nAnswer:"
        return Question(name, (Continuation(prompt, f" {' '.join(words[n_words:])}"),))

    sizes = {"both": (WORDS - 1, WORDS - 1), "prompt": (WORDS, 1), "answer": (1, WORDS), "few": (5, 2)}
    questions = [asked(name, *size, 50 * number) for number, (name, size) in enumerate(sizes.items())]
    found = contaminated(tracer, Task("t", lambda _: iter(questions), by_choice, "acc"))
    assert found.dirty == {"both": False, "prompt": True, "answer": True, "few": False} and found.short == 2
    assert found.share is not None and (found.share.n, found.share.value) == (2, 1.0)
    short = contaminated(tracer, Task("t", lambda _: iter(questions[::3]), by_choice, "acc"))
    assert short.share is None and short.short == 2
    assert own_words(questions) == [WORDS - 1, WORDS, WORDS, 5]
    assert own_words(questions[:1]) == [2 * WORDS]  # of which nothing says what is the prompt's


def test_a_question_is_looked_for_in_the_form_that_texts_have_in_a_corpus():
    asked = Question("1", (Continuation("Who owns\r\nthe cafe\u0301?", " Rene\u0301"),))
    assert text_of(asked) == "Who owns\nthe caf\u00e9? Ren\u00e9"
