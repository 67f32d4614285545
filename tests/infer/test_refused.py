"""What a model cannot be asked is refused in a sentence, before anything is computed."""

import pyarrow as pa
import pytest
import torch

import bluejay


@pytest.mark.parametrize(
    "prompts, error, message",
    [
        (3, bluejay.PromptError, "the prompt is 3; it must be a text, a list of token ids, or a list of these"),
        (None, bluejay.PromptError, "the prompt is None"),
        (pa.table({"text": ["a"]}), bluejay.PromptError, "the prompt is a table; give one of its columns"),
        (b"text", bluejay.PromptError, "the prompt is b'text'"),
        ({"input_ids": [1]}, bluejay.PromptError, "mapping; give its text, or the token ids in its input_ids"),
        (["a", 3], bluejay.PromptError, "prompt 1 is 3"),
        ([[1], [1.5]], bluejay.PromptError, "prompt 1 holds 1.5 among its token ids"),
        ([True, False], bluejay.PromptError, "prompt 0 is True"),
        (torch.tensor(3), bluejay.PromptError, "the prompt is the number 3"),
        (["a", [259]], bluejay.TokenError, r"prompt 1 holds a token id outside 0\.\.258"),
        ([-1], bluejay.TokenError, r"the prompt holds a token id outside 0\.\.258"),
        (["a", [1] * 64], bluejay.ContextLengthError, "prompt 1 has 64 tokens; this model's maximum context length is"),
    ],
)
def test_what_is_no_prompt_is_refused_in_a_sentence(model, prompts, error, message):
    with pytest.raises(error, match=message) as caught:
        model.generate(prompts)
    with pytest.raises(error, match=message):
        model.stream(prompts)  # before the first token is asked for
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "pairs, message",
    [
        ("ab", "pair 0 is 'ab'; loglikelihood takes a list of pairs"),
        (["ab", "cd"], "pair 0 is 'ab'"),
        ([{"context": "a", "continuation": "b"}], "pair 0 is {'context'"),
        ([{"a", "b"}], "pair 0 is {'"),
        ([("a", "b"), ("a", "b", "c")], "pair 1 is "),
        ([("a", "")], "pair 0 has an empty continuation"),
        ([("a", [1])], "pair 0 is a text and token ids"),
        ([("a", 3)], "pair 0's continuation is 3"),
        (7, "the list of pairs is 7"),
    ],
)
def test_what_is_no_list_of_pairs_is_refused_in_a_sentence(model, pairs, message):
    with pytest.raises(bluejay.PromptError, match=message):
        model.loglikelihood(pairs)


@pytest.mark.parametrize(
    "messages, message",
    [
        ("hello", "the conversation is 'hello'; chat takes messages"),
        ({"role": "user", "content": "hi"}, "the conversation is "),
        ([{"role": "user"}], "message 0 of the conversation"),
        ([[{"role": "user", "content": "a"}], [{"role": "user", "content": None}]], "message 0 of conversation 1"),
        ([[]], "conversation 0 has no messages"),
        (["hello"], "conversation 0 is 'hello'"),
    ],
)
def test_what_is_no_conversation_is_refused_in_a_sentence(model, messages, message):
    with pytest.raises(bluejay.PromptError, match=message):
        model.chat(messages)


def test_a_model_without_a_chat_template_says_so(model):
    with pytest.raises(bluejay.ChatTemplateError, match="no chat template"):
        model.chat([{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"max_new_tokens": 8}, "there is no parameter max_new_tokens; did you mean max_tokens"),
        ({"num_return_sequences": 2}, "did you mean n?"),
        ({"do_sample": False}, "temperature=0 is greedy"),
        ({"temprature": 1}, "did you mean temperature"),
        ({"xyzzy": 1}, "there is no parameter xyzzy$"),
    ],
)
def test_unknown_keywords_name_the_nearest(model, settings, message):
    with pytest.raises(TypeError, match=message):
        model.generate("a", **settings)
    with pytest.raises(TypeError, match=message):
        model.stream("a", **settings)


@pytest.mark.parametrize("settings", [{"max_tokens": "8"}, {"temperature": "hot"}, {"max_tokens": 2.5}, {"n": [1]}])
def test_parameters_of_the_wrong_type_are_refused_in_a_sentence(model, settings):
    [name] = settings
    with pytest.raises(ValueError, match=f"{name} is .*; it must be a"):
        model.generate("a", **settings)
