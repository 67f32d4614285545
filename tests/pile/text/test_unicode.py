"""Normalised text has one form, and no readable character is lost."""

import re
import sys
import time
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluejay.pile.text.unicode import MOST_MARKS, normalise


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a\r\nb\rc\n", "a\nb\nc\n"),
        ("page 1\fpage 2\vline", "page 1\npage 2\nline"),
        ("a\x85b\u2028c\u2029d", "a\nb\nc\nd"),
        ("\ufeffbegin\x00 \x07end\x7f\x9f", "begin end"),
        ("cafe\u0301 \u212b ﬁ²", "café Å ﬁ²"),
        ("\tif x:\n\t\treturn  1  \n", "\tif x:\n\t\treturn  1  \n"),
        ("", ""),
    ],
)
def test_equivalent_texts_get_one_form(text: str, wanted: str) -> None:
    assert normalise(pa.array([text])).to_pylist() == [wanted]


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_normalising_is_idempotent(texts: list[str]) -> None:
    once = normalise(pa.array(texts, pa.large_string()))
    assert once.type == pa.large_string()
    assert normalise(once) == once
    for before, after in zip(texts, once.to_pylist(), strict=True):
        assert unicodedata.is_normalized("NFC", after)
        assert "Cc" not in {unicodedata.category(character) for character in after if character not in "\n\t"}
        # Nothing else changes: the same text but for composition, line ends and controls.
        lines = re.sub("\r\n|[\r\v\f\x85\u2028\u2029]", "\n", before)
        plain = re.sub("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]", "", lines)
        assert after == unicodedata.normalize("NFC", plain)


MARKS = [character for character in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(character) == "Mn"]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(MARKS), min_size=1, max_size=9), st.sampled_from(["", "e", "\u1ea5", "\u304b"]))
def test_many_marks_in_a_row_are_composed_as_few_are(marks: list[str], letter: str) -> None:
    text = letter + "".join(marks) * (2 * MOST_MARKS // len(marks) + 2) + "e\u0301"
    assert normalise(pa.array([text])).to_pylist() == [unicodedata.normalize("NFC", text)]


def test_a_page_of_nothing_but_marks_takes_no_longer_than_others() -> None:
    marks = 100_000
    text = "a" + "\u0301\u0316" * marks
    began = time.process_time()
    assert normalise(pa.array([text])).to_pylist() == ["\u00e1" + "\u0316" * marks + "\u0301" * (marks - 1)]
    assert time.process_time() - began < 20  # put in order one by one, they take minutes
