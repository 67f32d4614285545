"""Sensitive beginnings and descriptions of groups: what is asked, and what is counted of an answer."""

from collections import Counter

import pytest

from bluejay.evals.evaluate import Settings, evaluate
from bluejay.evals.safety import PROBES, continuations
from bluejay.evals.safety_table import findings, html, markdown, notes
from bluejay.evals.scorers import LocalScorer
from bluejay.evals.suites import SUITES
from bluejay.evals.tasks import Generation
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.infer.model import Model


def test_every_category_has_as_many_beginnings_and_none_is_asked_twice():
    named = dict(continuations.sensitive())
    categories = Counter(name.partition("/")[0] for name in named)
    assert len(categories) == 8 and set(categories.values()) == {6} and len(set(named.values())) == 48
    assert all(prompt == prompt.strip() for prompt in named.values())
    assert {task.name for task in SUITES["bias"]} < {task.name for task in SUITES["safety"]}


def test_every_group_gets_the_same_beginnings():
    prompts = {}
    for name, prompt in continuations.about_groups():
        _, group, frame = name.split("/")
        assert group in prompt
        prompts.setdefault(group, []).append((frame, prompt.replace(group, "GROUP")))
    assert len(prompts) == 13 and len({tuple(frames) for frames in prompts.values()}) == 1


def test_the_continuation_is_judged_and_not_the_prompt():
    (question, *_) = continuations.questions(False, 0)
    assert isinstance(question.requests[0], Generation) and "drunk" in question.requests[0].prompt
    judge = continuations.by_classifier
    assert judge(question, [" it was time for tea."]) == {"offensive": 0.0}
    assert judge(question, [" he was a stupid idiot."]) == {"offensive": 1.0}


class Rude:
    """A model that is rude about one group, and about nobody else."""

    name, identity, n_ctx = "<rude>", "1", None

    def answers(self, requests):
        for number, request in enumerate(requests):
            rude = "he man " in request.prompt or "Slavery" in request.prompt
            yield number, " stupid <idiot>, and loud." if rude else " kind and quiet. Stupid idiot."[:15]

    def longest(self, _):
        return 0


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    tasks = [task for task in PROBES if task.name != "decisions_about_people"]
    return findings(evaluate([Rude()], tasks, Settings(), tmp_path_factory.mktemp("answers")).results)


def test_the_table_has_each_category_and_group_with_its_interval(found):
    rows = {(row["task"], row["part"]): row for row in found["figures"]}
    everything = rows["sensitive_prompts", "all"]
    assert everything["n"] == 240 and everything["value"] == pytest.approx(5 / 240)
    assert rows["sensitive_prompts", "injustice and inequality"]["value"] == pytest.approx(1 / 6)
    assert rows["sensitive_prompts", "health"]["value"] == 0 < rows["sensitive_prompts", "health"]["high"]
    man, woman = rows["descriptions_of_groups", "gender: man"], rows["descriptions_of_groups", "gender: woman"]
    assert man["value"] == 1 and man["low"] > woman["high"] and man["n"] == woman["n"] == 48
    assert len(rows) == 1 + 8 + 1 + 13
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows.values())


def test_words_that_set_a_group_apart_have_counts_and_an_interval(found):
    apart = {(row["group"], row["word"]): row for row in found["descriptors"]}
    row = apart["man", "loud"]
    assert (row["count"], row["n"], row["others"], row["n_others"]) == (48, 48, 0, 96) and row["low"] > 1
    same = apart["Hindu", "kind"]
    assert same["low"] < 1 < same["high"] and same["ratio"] == pytest.approx(1, abs=0.01)


def test_the_section_warns_and_shows_texts_folded_and_escaped(found):
    page, text = "\n".join(html(found)), "\n".join(markdown(found))
    assert "offensive, false or distressing" in page and page.index("distressing") < page.index("&lt;idiot&gt;")
    assert "<details><summary>" in page and "<idiot>" not in page and "&lt;rude&gt;" in page
    assert "alt-profanity-check 1.9.1" in page and "993" in page and "alt-profanity-check" in text
    assert "| sensitive_prompts | health |" in text and "| <rude> | man | loud | 48 of 48 | 0 of 96 |" in text
    assert list(html({})) == list(markdown({})) == [] and len(notes(found)) == 3


def test_a_real_model_answers_every_probe(byte_tokenizer, tmp_path):
    config = GPTConfig(n_layer=1, d_model=32, n_head=2, vocab_size=259, n_ctx=256)
    gpt = new_model(config, seed=0).requires_grad_(False)
    with Model(gpt, byte_tokenizer, "small") as model:
        results = evaluate([LocalScorer(model, "small", "1")], PROBES, Settings(limit=6), tmp_path).results
    found = findings(results)
    assert {row["task"] for row in found["figures"]} == {task.name for task in PROBES}
    assert all(row["n"] <= 6 for row in found["figures"]) and len(found["examples"]) >= 3
