"""Tokens that are left out: what comes out equals runs done by hand."""

import pytest

from bluejay.lens.ablation import without_tokens
from tests.lens.families import TOKENS

LONG = [(TOKENS[at % 7] + at) % 250 for at in range(20)]


def test_leaving_out_a_token_is_a_run_without_it(lens):
    found = without_tokens(lens, TOKENS, -1, 5)
    whole = lens.run(TOKENS).logits[0, -1].log_softmax(-1)[5]
    for at in range(len(TOKENS)):
        less = lens.run(TOKENS[:at] + TOKENS[at + 1 :]).logits[0, -1].log_softmax(-1)[5]
        assert float(found.effect[at]) == pytest.approx(float(whole - less), abs=1e-4)
    replaced = without_tokens(lens, TOKENS, 3, 5, by=7)
    other = lens.run([TOKENS[0], 7, *TOKENS[2:4]]).logits[0, -1].log_softmax(-1)[5]
    assert len(replaced.tokens) == 4 and float(replaced.effect[1]) == pytest.approx(
        float(lens.run(TOKENS[:4]).logits[0, -1].log_softmax(-1)[5] - other), abs=1e-4
    )
    assert found.text().count("\n") == len(TOKENS) and "without each token" in found._repr_html_()


@pytest.mark.parametrize("n_tokens", [9, 20])
def test_what_long_prompts_begin_with_alike_is_computed_once(n_tokens, lens):
    prompt = LONG[:n_tokens]
    found, replaced = without_tokens(lens, prompt, -1, 5), without_tokens(lens, prompt, -1, 5, by=7)
    whole = lens.run(prompt).logits[0, -1].log_softmax(-1)[5]
    for at in range(n_tokens):
        for one, changed in ((found, prompt[:at] + prompt[at + 1 :]), (replaced, [*prompt[:at], 7, *prompt[at + 1 :]])):
            less = lens.run(changed).logits[0, -1].log_softmax(-1)[5]
            assert float(one.effect[at]) == pytest.approx(float(whole - less), abs=1e-4)


def test_a_prompt_of_one_token_is_refused(lenses):
    with pytest.raises(ValueError, match="one token, and nothing is left"):
        without_tokens(lenses["gpt_neox"], [1])
