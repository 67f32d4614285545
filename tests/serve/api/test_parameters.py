"""Any body becomes a request or an error in OpenAI's form."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bluejay.infer.params import SamplingParams
from bluejay.serve.api.chat import ChatRequest
from bluejay.serve.api.completions import CompletionRequest
from bluejay.serve.errors import APIError, invalid_body

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from([*CompletionRequest.model_fields, *ChatRequest.model_fields]) | st.text(max_size=5)
messages = st.fixed_dictionaries({"messages": st.just([{"role": "user", "content": "x"}])})


@given(st.dictionaries(names, json_values, max_size=5))
def test_any_object_is_accepted_or_rejected_with_a_parameter(body):
    check(CompletionRequest, body)


@given(st.dictionaries(names, json_values, max_size=5), messages)
def test_any_conversation_is_accepted_or_rejected_with_a_parameter(body, more):
    check(ChatRequest, body | more)


def check(kind, body: dict) -> None:
    try:
        request = kind.model_validate(body)
        params = request.sampling() if kind is CompletionRequest else request.sampling(100)
        assert isinstance(params, SamplingParams)
        return
    except ValidationError as error:
        refusal = invalid_body(error.errors())
    except APIError as error:
        refusal = error
    assert refusal.status_code == 400
    assert set(refusal.body["error"]) == {"message", "type", "param", "code"}
    json.dumps(refusal.body, allow_nan=False)
    # A body that is an object is refused for one of its parameters, which the answer names.
    param = refusal.body["error"]["param"]
    assert param in body or param.split(".")[0] in body or "" in body


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ({"logit_bias": {"5": -100, "7": 1.5}}, None),
        ({"logit_bias": {"x": 1}}, "logit_bias must be an object with token ids as names"),
        ({"logit_bias": {"1": 10**400}}, "logit_bias must have numbers between -100 and 100"),
        ({"stream_options": {"include_usage": True}}, "stream_options needs stream"),
        ({"stream_options": {"include_usage": True}, "stream": True}, None),
        ({"best_of": 3, "n": 2}, None),
        ({"best_of": 1, "n": 2}, "best_of is 1; it must be at least n, which is 2"),
        ({"best_of": 3, "stream": True}, "best_of cannot be streamed"),
        ({"suffix": "", "user": "me", "logprobs": None}, None),
        ({"suffix": "end"}, "suffix is not supported by this server; leave it out"),
        ({"max_tokens": 0}, None),
    ],
)
def test_parameters_that_exclude_each_other_are_rejected(values, refused):
    request = CompletionRequest.model_validate
    if refused is None:
        assert isinstance(request(values).sampling(), SamplingParams)
    else:
        with pytest.raises(APIError, match=refused):
            request(values).sampling()


def test_the_schema_lists_the_parameters_with_their_ranges():
    properties = CompletionRequest.model_json_schema(by_alias=True)["properties"]
    documented = {
        "model",
        "prompt",
        "suffix",
        "max_tokens",
        "temperature",
        "top_p",
        "n",
        "best_of",
        "stream",
        "logprobs",
    }
    documented |= {
        "stream_options",
        "echo",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "seed",
        "user",
    }
    assert documented <= properties.keys()
    assert properties["temperature"]["anyOf"] == [{"type": "number", "minimum": 0, "maximum": 2}, {"type": "null"}]
    assert properties["temperature"]["default"] == 1.0
