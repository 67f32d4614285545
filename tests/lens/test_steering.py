"""Steering: what a direction is, what is written with it, and what it costs."""

import math

import pytest
import torch

from bluejay.infer.params import SamplingParams
from bluejay.lens.steering import Steering, bits_per_byte, generate, steer, steering_cost, steering_vector

WARM, COLD = ["the cat", "the the"], ["zebra", "quiz"]


def test_a_direction_is_the_difference_of_the_means(lens):
    steering = steering_vector(lens, WARM, COLD, 1)
    name = "blocks.1.hook_resid_pre"
    means = [torch.stack([lens.run(t, [name])[name][0, 1:].mean(0) for t in side]).mean(0) for side in (WARM, COLD)]
    assert torch.allclose(steering.vector, means[0] - means[1], atol=1e-6)
    run, plain = lens.run("cat", [name], steering.write(2.0)), lens.run("cat", [name])
    assert torch.allclose(run[name], plain[name] + 2 * steering.vector, atol=1e-5)


def test_without_strength_nothing_changes_and_bits_are_the_models(tiny_model):
    lens = tiny_model.lens()
    steering = steering_vector(lens, WARM, COLD, 1)
    text = "the cat sat on the mat"
    costs = steering_cost(lens, steering, [0.0, 50.0], [text])
    assert costs[0] == pytest.approx(tiny_model.score(text).bits_per_byte, rel=1e-4) and costs[1] > costs[0]
    found = steer(lens, steering, [0.0, 50.0], "the", [text], max_tokens=5)
    assert found.written[0] == tiny_model.generate("the", max_tokens=5, temperature=0.0)[0]
    assert found.bits_per_byte == costs and found.text().count("\n") == 1 and "layer 1" in found._repr_html_()


def test_what_is_written_is_what_the_steered_model_says(lens):
    write = steering_vector(lens, WARM, COLD, 0).write(3.0)
    ids = lens.tokens("the")[0].tolist()
    while len(ids) < len(lens.tokens("the")[0]) + 4 and lens.tokenizer.eot not in ids[1:]:
        ids.append(int(lens.run(ids, write=write).logits[0, -1, : lens.tokenizer.vocab_size].argmax()))
    params = SamplingParams(max_tokens=4, temperature=0.0)
    expected = lens.tokenizer.decode([id for id in ids[len(lens.tokens("the")[0]) :] if id != lens.tokenizer.eot])
    assert generate(lens, write, "the", params) == expected


def test_long_texts_are_read_in_pieces(lenses):
    lens = lenses["gpt2"]
    whole, halves = "zq" * 23, ["zq" * 11 + "z", "q" + "zq" * 11]
    assert bits_per_byte(lens, [whole], {}) == pytest.approx(bits_per_byte(lens, halves, {}), rel=1e-5)
    assert 0 < bits_per_byte(lens, [whole], {}) < 4 * math.log2(259)


def test_one_text_is_a_list_of_it(lenses):
    lens = lenses["gpt2"]
    steering = steering_vector(lens, "the cat", "zebra", 1)
    assert torch.equal(steering.vector, steering_vector(lens, ["the cat"], ["zebra"], 1).vector)
    assert steering_cost(lens, steering, [1.0], "the cat") == steering_cost(lens, steering, [1.0], ["the cat"])


def test_what_cannot_be_is_said(lenses):
    lens = lenses["gpt2"]
    with pytest.raises(ValueError, match="one side is empty"):
        steering_vector(lens, WARM, [], 1)
    with pytest.raises(ValueError, match="there is no layer 2"):
        steering_vector(lens, WARM, COLD, 2)
    with pytest.raises(ValueError, match="there is no text"):
        bits_per_byte(lens, [], {})
    with pytest.raises(ValueError, match="there is no text"):
        steer(lens, steering_vector(lens, WARM, COLD, 1), [1.0], "the", [""])
    with pytest.raises(ValueError, match="n is 2; one text is written at a time"):
        generate(lens, {}, "the", SamplingParams(max_tokens=2, n=2))
    with pytest.raises(ValueError, match="has one token"):
        steering_vector(lens, [""], COLD, 1)


def test_a_direction_of_another_model_is_refused(lenses):
    lens = lenses["gpt2"]
    narrow = Steering(1, torch.zeros(3))
    for call in (lambda: steer(lens, narrow, [1.0], "the", ["the"]), lambda: steering_cost(lens, narrow, [1.0], "the")):
        with pytest.raises(ValueError, match=r"the direction has 3 numbers, and the residual stream of .* has \d+;"):
            call()
    with pytest.raises(ValueError, match="there is no layer 9"):
        steering_cost(lens, Steering(9, torch.zeros(lens.config.d_model)), [1.0], "the")


def test_half_a_surrogate_pair_counts_as_the_sign_that_stands_for_it(lenses):
    assert bits_per_byte(lenses["gpt2"], ["a\ud83d"], {}) == bits_per_byte(lenses["gpt2"], ["a\ufffd"], {})
