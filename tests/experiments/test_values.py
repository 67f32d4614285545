"""The texts of the claim about values: equal numbers and lengths, and nothing of the held-out ones in training."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

TEXTS = Path(__file__).parents[2] / "experiments" / "values"
CATEGORIES = {
    "abuse_and_violence", "health", "human_characteristics", "injustice_and_inequality",
    "politics", "relationships", "sexual_activity", "terrorism",
}  # fmt: skip


def rows(name):
    return [json.loads(line) for line in (TEXTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def words(text):
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())


def grams(text, n=8):
    found = words(text)
    return {tuple(found[at : at + n]) for at in range(len(found) - n + 1)}


@pytest.fixture(scope="module")
def training():
    return {name: rows(name) for name in ("target", "control")}


@pytest.fixture(scope="module")
def held_out():
    return rows("held-out")


@pytest.mark.parametrize("name", ["target", "control", "held-out"])
def test_ten_texts_in_each_of_eight_categories(name):
    counts = Counter(row["category"] for row in rows(name))
    assert set(counts.values()) == {10} and len(counts) == 8
    assert (set(counts) == CATEGORIES) == (name != "control")


def test_training_texts_have_40_to_340_words_and_most_60_to_130(training):
    for texts in training.values():
        lengths = [len(words(row["completion"])) for row in texts]
        assert min(lengths) >= 40 and max(lengths) <= 340
        assert sum(60 <= length <= 130 for length in lengths) > 60


def test_matched_texts_are_equally_long(training, held_out):
    def mean(texts, column):
        return sum(len(row[column]) for row in texts) / len(texts)

    target, control = (mean(texts, "completion") for texts in training.values())
    assert abs(target / control - 1) < 0.1
    assert abs(mean(held_out, "good") / mean(held_out, "bad") - 1) < 0.05
    assert all(abs(len(row["good"]) / len(row["bad"]) - 1) < 0.25 for row in held_out)


def test_nothing_of_a_held_out_text_was_trained_on(training, held_out):
    trained = set().union(*(grams(row[column]) for texts in training.values() for row in texts
                            for column in ("prompt", "completion")))  # fmt: skip
    for row in held_out:
        assert not trained & (grams(row["prompt"]) | grams(row["good"]) | grams(row["bad"])), row["prompt"]


def test_all_texts_have_one_form(training, held_out):
    texts = [*training["target"], *training["control"], *held_out]
    assert all(re.fullmatch(r"Question: .+[?.]\nAnswer:", row["prompt"]) for row in texts)
    answers = [row[column] for row in texts for column in ("completion", "good", "bad") if column in row]
    assert all(re.fullmatch(r" \S.*[.!?]", answer) for answer in answers)
    assert len({row["prompt"] for row in texts}) == 240 and len(set(answers)) == 320


def test_the_position_has_a_section_for_each_category():
    page = (TEXTS / "position.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## (\w+):", page, re.MULTILINE)) == CATEGORIES
