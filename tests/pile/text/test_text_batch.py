"""Arrays over a batch agree with plain Python on each text."""

import re
import unicodedata

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from bluejay.pile.text.text_batch import TERM, Spans, TextBatch, character_kinds, mix64, split_texts, word_hashes

CHARACTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \n\t.-_aéß一か　\u00a0\u0301ก")
TEXTS = st.lists(st.text(CHARACTERS, max_size=30), max_size=6)


def strings(batch: TextBatch, spans: Spans) -> list[list[str]]:
    """The spans of each text as strings."""
    every = [batch.text[start:end] for start, end in zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)]
    return [every[first:last] for first, last in zip(spans.bounds[:-1], spans.bounds[1:], strict=True)]


@settings(deadline=None)
@given(TEXTS)
def test_words_and_lines_are_those_of_python(texts: list[str]) -> None:
    batch = TextBatch(texts)
    assert strings(batch, batch.words) == [text.split() for text in texts]
    assert strings(batch, batch.lines) == [text.split("\n") for text in texts]
    assert batch.words.counts.tolist() == [len(text.split()) for text in texts]
    counts = np.diff(batch.words_of_lines).tolist()
    assert counts == [len(line.split()) for text in texts for line in text.split("\n")]


@settings(deadline=None)
@given(TEXTS)
def test_terms_are_runs_of_letters_digits_and_marks(texts: list[str]) -> None:
    def terms(text: str) -> list[str]:
        marked = "".join(
            f" {c} " if re.match("[ก-๛一-鿿ぁ-ヿ]", c) and kind(c) else c if kind(c) else " " for c in text
        )
        return marked.split()

    def kind(character: str) -> bool:
        return unicodedata.category(character)[0] in "LMN"

    batch = TextBatch(
        [text for text in texts if not re.search("[^\x00-\u0fff一-鿿ぁ-ヿ\u2000-\u206f]|[\u0e80-\u0eff]", text)]
    )
    assert strings(batch, batch.terms) == [terms(text) for text in batch.texts]


@settings(deadline=None)
@given(TEXTS, st.text(CHARACTERS, max_size=9))
def test_a_hash_depends_on_the_characters_and_not_on_their_position(texts: list[str], before: str) -> None:
    batch, later = TextBatch(texts), TextBatch([before, *texts])
    known: dict[str, int] = {}
    for one, spans in ((batch, batch.words), (later, later.words), (later, later.lines)):
        words = [word for text in strings(one, spans) for word in text]
        for word, value in zip(words, one.hashes(spans).tolist(), strict=True):
            assert known.setdefault(word, value) == value
    assert len(set(known.values())) == len(known)


def test_lower_case_keeps_all_positions() -> None:
    text = "ÀÉ İstanbul ΑΣ ẞ \U00010400 \U000f0000"
    batch = TextBatch([text])
    assert len(batch.lower) == len(text)
    assert batch.lower.startswith("àé istanbul ας ß \U00010428".replace("ς", "σ"))
    assert word_hashes(("Istanbul",)) != word_hashes(("istanbul",))
    assert batch.find("istanbul").tolist() == [3]


def test_letters_beyond_the_tabled_code_points_are_no_terms() -> None:
    kinds = np.take(character_kinds(), np.array([0x10FFFD, ord("a")]), mode="clip")
    assert (kinds & TERM != 0).tolist() == [False, True]


def test_batches_hold_all_texts_in_order() -> None:
    texts = [f"{number} " * (number * 37 % 9000) for number in range(900)]
    groups = list(split_texts(pa.array(texts, pa.large_string())))
    assert [text for group in groups for text in group] == texts
    assert len(groups) > 50


def test_mix64_is_the_finalizer_of_splitmix64() -> None:
    # The first numbers of the generator with seed 0 (Vigna's splitmix64.c).
    seeds = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert [f"{value:x}" for value in mix64(seeds)] == ["e220a8397b1dcdaf", "6e789e6aa1b965f4", "6c45d188009454f"]
