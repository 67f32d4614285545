"""Any body becomes a request or an error in OpenAI's form."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Literal, Required, Union, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import completion_create_params as completions
from openai.types.chat import ChatCompletionMessage
from openai.types.chat import completion_create_params as chat
from pydantic import ValidationError
from typing_extensions import get_type_hints, is_typeddict

from bluejay.infer.params import SamplingParams
from bluejay.serve.api import other_servers
from bluejay.serve.api.chat import ChatRequest
from bluejay.serve.api.completions import CompletionRequest
from bluejay.serve.errors import APIError, invalid_body

DOCUMENT = Path(__file__).parents[3] / "docs/api.md"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
known = [*CompletionRequest.model_fields, *ChatRequest.model_fields, *sorted(other_servers.NAMES)]
names = st.sampled_from(known) | st.text(max_size=5)
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
        ({"suffix": "", "user": "me", "logprobs": None, "reasoning_effort": "none"}, None),
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


SIMPLE = {str: "x", int: 1, float: 1.0, bool: True, object: {}, type(None): None}
DECLARED = {
    CompletionRequest: completions.CompletionCreateParamsStreaming,
    ChatRequest: chat.CompletionCreateParamsStreaming,
}
OPENAI = [(kind, name) for kind, declared in DECLARED.items() for name in sorted(get_type_hints(declared))]


def values_of(kind) -> list:
    """Values of a type, in which every alternative and every optional key of it occurs."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in SIMPLE:
        return [SIMPLE[kind]]
    if is_typeddict(kind):
        hints = get_type_hints(kind, include_extras=True)
        least = {name: values_of(hint)[0] for name, hint in hints.items() if get_origin(hint) is Required}
        return [least, *(least | {name: value} for name, hint in hints.items() for value in values_of(hint))]
    if origin is Literal:
        return list(arguments)
    if origin in (Union, UnionType):
        return [value for one in arguments for value in values_of(one)]
    if origin in (Required, Annotated):
        return values_of(arguments[0])
    if origin in (list, Iterable, Sequence):
        return [[value] for value in values_of(arguments[0])]
    assert origin is dict, kind
    return [{"1": value} for value in values_of(arguments[1])]


@pytest.mark.parametrize(("kind", "name"), OPENAI)
def test_every_value_of_the_openai_packages_types_is_taken_or_refused_as_unsupported(kind, name):
    base = {"messages": [{"role": "user", "content": "x"}]} if kind is ChatRequest else {}
    kind.model_validate({name: None} | base)
    taken, documented = 0, DOCUMENT.read_text(encoding="utf-8").partition("## What is refused")[2]
    for value in values_of(get_type_hints(DECLARED[kind])[name]):
        try:
            kind.model_validate(base | {name: value})
            taken += 1
        except ValidationError as error:
            refused = invalid_body(error.errors()).body["error"]
            if refused["code"] == "unsupported":
                assert re.search(rf"\b{refused['param'].rpartition('.')[2]}`", documented), refused["param"]
                continue
            # What remains is the role of a tool, parts of a message that are no text, and what is missing.
            assert refused["code"] in (None, "missing_parameter"), (value, refused)
            assert re.search(r"\.(role|content|schema)$", refused["param"]), (value, refused)
    assert taken or re.search(rf"\b{name}`", documented)


@pytest.mark.parametrize("name", ["refusal", "annotations", "audio", "function_call", "tool_calls", "anything"])
def test_a_message_of_an_answer_can_be_sent_back(name):
    dumped = ChatCompletionMessage(role="assistant", content="x").model_dump()
    messages = [{"role": "user", "content": "x"}, {**dumped, name: None}, {"role": "user", "content": "y"}]
    assert len(ChatRequest.model_validate({"messages": messages}).messages) == 3


USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    "values",
    [
        {"parallel_tool_calls": True},
        {"parallel_tool_calls": False},
        {"reasoning_effort": "none"},
        {"verbosity": "medium"},
        {"prompt_cache_retention": "24h"},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"service_tier": "auto", "store": False, "modalities": ["text"]},
        {"top_logprobs": 0},
        {"anything": None, "stream_options": None, "response_format": {"type": "text", "anything": None}},
    ],
)
def test_values_that_ask_for_nothing_are_taken(values):
    ChatRequest.model_validate({"messages": [USER]} | values).sampling(100)


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"verbosity": "low"}, "verbosity"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"messages": [USER, {"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages.1.tool_call_id"),
        ({"store": 0}, "store"),
    ],
)
def test_values_that_ask_for_what_is_not_there_are_refused(values, param):
    with pytest.raises(ValidationError) as refused:
        ChatRequest.model_validate({"messages": [USER]} | values)
    error = invalid_body(refused.value.errors()).body["error"]
    assert error["code"] == "unsupported" and error["param"] == param
    assert error["message"].startswith(f"{param} is not supported by this server; leave it out")
