"""The score of a text, in numbers and in a notebook."""

import math

from bluejay.infer.scoring import Score


def test_a_score_of_tokens_without_text_has_a_perplexity_alone():
    score = Score(tokens=[258], logprobs=[-math.log(8)], n_bytes=0, texts=[""])
    assert math.isnan(score.bits_per_byte) and math.isclose(score.perplexity, 8)
    assert "perplexity 8.000" in score._repr_html_()
    assert "3.000 bits per byte" in Score([0], [-math.log(8)], 1, ["a"])._repr_html_()
