"""The score of a text, in numbers and in a notebook, and the pages of the cache that texts are read with."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bluejay.infer.backends.native import NativeBackend
from bluejay.infer.backends.torch import PAGE_SIZE, TorchBackend
from bluejay.infer.cache import pages_of
from bluejay.infer.scoring import PAGE, PAGES_PER_STEP, Score, Window, batches, reserved, score_of, steps


def test_a_score_of_tokens_without_text_has_a_perplexity_alone():
    score = Score(tokens=[258], logprobs=[-math.log(8)], n_bytes=0, texts=[""])
    assert math.isnan(score.bits_per_byte) and math.isclose(score.perplexity, 8)
    assert "perplexity 8.000" in score._repr_html_()
    assert "3.000 bits per byte" in Score([0], [-math.log(8)], 1, ["a"])._repr_html_()


def test_rows_that_pad_the_embedding_have_a_probability_and_no_text():
    score = score_of([1, 9], [1, 9], torch.tensor([[-1.0, 0.0], [-2.0, 0.0]]), [b"a", b"bc"])
    assert score == Score([1, 9], [-1.0, -2.0], 2, ["bc", ""])


@pytest.mark.parametrize("size", [NativeBackend.page_size, PAGE_SIZE])
@settings(max_examples=20)
@example(lengths=[33] * 15 + [16] * 60)
@example(lengths=[512] + [48] * 10)
@example(lengths=[1] * 600)
@given(lengths=st.lists(st.integers(1, 600), max_size=60))
def test_what_is_reserved_holds_the_texts_of_every_step_whatever_the_pages(tiny_model, size, lengths):
    assert size <= PAGE
    planned = steps(Window(number, [0] * (length + 1), 0) for number, length in enumerate(lengths))
    n_pages = sum(pages_of(length, size) for length in reserved(planned))
    assert n_pages * size <= max([PAGES_PER_STEP * PAGE, *lengths]) + PAGE
    read = [0] * len(lengths)
    for pieces, batch in batches(planned, TorchBackend(tiny_model.gpt, n_pages, size)):
        used = batch.pages[batch.pages >= 0].tolist()
        assert len(used) == len(set(used))
        for piece in pieces:
            read[piece.window.text] += piece.stop - piece.start
    assert read == lengths
