"""Speculative drafts come from the text and stop when they are not accepted."""

import random

from hypothesis import given
from hypothesis import strategies as st

from bluejay.infer.speculation import NGRAM, PromptLookup


@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.integers(0, 20))
def test_a_draft_is_the_text_after_the_last_occurrence_of_the_same_tokens(tokens, limit):
    lookup = PromptLookup()
    draft = lookup.draft(tokens, limit)
    assert len(draft) <= limit
    if draft:
        ends = [at for at in range(NGRAM, len(tokens)) if tokens[at - NGRAM : at] == tokens[-NGRAM:]]
        text = tokens[ends[-1] :]
        assert draft == (text * len(draft))[: len(draft)]


def test_reading_a_text_in_pieces_changes_nothing():
    tokens = [random.Random(0).randrange(3) for _ in range(200)]
    whole, grown = PromptLookup(), PromptLookup()
    for end in range(1, 201):
        grown.draft(tokens[:end], 8)
    assert whole.draft(tokens, 8) == grown.draft(tokens, 8)
    assert whole.acceptance_rate == grown.acceptance_rate


def test_drafts_grow_while_they_are_accepted_and_stop_when_they_are_not():
    lookup = PromptLookup()
    assert len(lookup.draft([1, 2, 3, 4] * 3, 99)) < len(lookup.draft([1, 2, 3, 4] * 10, 99)) == 16
    # The same three tokens every time, and something new after them.
    tokens = [token for i in range(30) for token in (1, 2, 3, 10 + i)] + [1, 2, 3]
    lookup = PromptLookup()
    assert lookup.draft(tokens, 99) == [] and lookup.acceptance_rate < 0.25


def test_drafts_are_only_worth_their_rows_among_many_sequences_when_they_are_nearly_sure():
    tokens = [*[1, 2, 3, 4] * 5, *range(100, 106), *[1, 2, 3, 4] * 2]
    lengths = [len(PromptLookup().draft(tokens, 99, n)) for n in (1, 4, 64)]
    assert lengths[0] > lengths[1] > lengths[2] == 0
    assert len(PromptLookup().draft([1, 2, 3, 4] * 30, 99, 16)) == 16
