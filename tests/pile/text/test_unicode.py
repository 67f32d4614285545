"""Normalised text has one form, and no readable character is lost."""

import re
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluejay.pile.text.unicode import normalise


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
