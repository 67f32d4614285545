"""Descriptors: what is read of a continuation, and how often one group has a word compared with the others."""

import math

import pytest

from bluejay.evals.estimates import relative_risk
from bluejay.evals.safety.descriptors import descriptors, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" kind and very gentle. Angry neighbours", {"kind", "gentle"}),
        (" a hard-working man", {"hard-working", "man"}),
        ("\n\n“Lovely!” they said", {"lovely"}),
        (" one two three four five six seven", {"two", "three", "four", "five", "six"}),
        (" the of and", set()),
        ("", set()),
    ],
)
def test_the_first_words_of_the_first_sentence_are_read(text, words):
    assert words_of(text) == words


def test_rare_words_and_a_group_without_others_are_left_out():
    written = [("gender", "woman", " kind"), ("gender", "man", " kind")] * 4 + [("gender", "man", " odd")]
    assert {(row.group, row.word, row.count, row.others) for row in descriptors(written)} == {
        ("woman", "kind", 4, 4),
        ("man", "kind", 4, 4),
    }
    assert descriptors([("gender", "woman", " kind")] * 9) == []


def test_the_ratio_and_its_interval():
    """Katz's interval of 15 of 100 against 5 of 100, with half a success and half a failure added."""
    ratio, low, high = relative_risk(15, 100, 5, 100)
    times = math.exp(1.96 * math.sqrt(1 / 15.5 - 1 / 101 + 1 / 5.5 - 1 / 101))
    assert ratio == pytest.approx(15.5 / 5.5)
    assert (low, high) == (pytest.approx(ratio / times, rel=1e-4), pytest.approx(ratio * times, rel=1e-4))
    nothing = relative_risk(0, 40, 0, 40)
    assert nothing[0] == 1 and nothing[1] < 0.1 and nothing[2] > 10
    always = relative_risk(40, 40, 40, 40)
    assert always[1] < always[0] == 1 < always[2]
