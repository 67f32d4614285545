"""Conversations, over HTTP, with the official client."""

import httpx
import openai
import pytest

from bluejay.chat_template import prompt_tokens
from bluejay.gpt.config import GPTConfig
from bluejay.gpt.init import new_model
from bluejay.infer.model import Model
from bluejay.serve.api import respond
from bluejay.serve.settings import PublicSettings, ServeSettings
from bluejay.tokenizer import Tokenizer

TEMPLATE = (
    """{% for message in messages %}{{ message.role }}: {{ message.content }}<|end|>{% endfor %}assistant:{{ mood }}"""
)
VARIABLES = "chat_template_kwargs"
MESSAGES = [{"role": "system", "content": "Be a cat."}, {"role": "user", "content": "What says the cat?"}]


@pytest.fixture(scope="module")
def chat_model():
    backend = Tokenizer.train(["the the the cat"], vocab_size=259).backend
    backend.add_special_tokens(["<|end|>"])
    tokenizer = Tokenizer(backend, [backend.token_to_id("<|end|>")], TEMPLATE)
    config = GPTConfig(n_layer=2, d_model=64, n_head=2, vocab_size=260, n_ctx=256)
    return Model(new_model(config, seed=1).requires_grad_(False), tokenizer, "tiny-chat")


@pytest.fixture(scope="module")
def chat_server(chat_model, running):
    with running(chat_model) as server:
        yield server


@pytest.fixture(scope="module")
def say(chat_server):
    with openai.OpenAI(base_url=f"{chat_server.url}/v1", api_key="none", max_retries=0) as client:
        yield lambda messages=MESSAGES, **params: client.chat.completions.create(
            model="tiny-chat", messages=messages, **params
        )


def test_whole_and_stream_agree(say, chat_model):
    params = {"seed": 3, "max_completion_tokens": 20, "n": 2}
    whole = say(**params)
    prompt = chat_model.tokenizer.decode(prompt_tokens(chat_model.tokenizer, MESSAGES))
    assert prompt == "system: Be a cat.user: What says the cat?assistant:"
    parts = list(say(**params, stream=True, stream_options={"include_usage": True}))
    streamed, reasons = ["", ""], [None, None]
    for part in parts[:-1]:
        assert part.object == "chat.completion.chunk" and part.id == parts[0].id
        for choice in part.choices:
            streamed[choice.index] += choice.delta.content
            reasons[choice.index] = choice.finish_reason
    assert [choice.message.content for choice in whole.choices] == streamed
    assert [choice.finish_reason for choice in whole.choices] == reasons
    assert whole.choices[0].message.role == "assistant" == parts[0].choices[0].delta.role
    assert whole.object == "chat.completion" and whole.id.startswith("chatcmpl-")
    assert parts[-1].choices == [] and parts[-1].usage == whole.usage
    assert whole.usage.prompt_tokens == len(prompt_tokens(chat_model.tokenizer, MESSAGES))


def test_prompt_is_the_templates(say, chat_model, chat_server):
    tokens = prompt_tokens(chat_model.tokenizer, MESSAGES)
    body = {"prompt": tokens, "temperature": 0, "max_tokens": 12, "logprobs": 2}
    plain = httpx.post(f"{chat_server.url}/v1/completions", json=body).json()["choices"][0]
    choice = say(temperature=0, max_tokens=12, logprobs=True, top_logprobs=2).choices[0]
    assert choice.message.content == plain["text"]
    assert [token.logprob for token in choice.logprobs.content] == plain["logprobs"]["token_logprobs"]
    for token in choice.logprobs.content:
        assert len(token.top_logprobs) == 2 and token.top_logprobs[0].logprob >= token.logprob
        assert token.token.startswith("bytes:") or bytes(token.bytes).decode() in ("", token.token)


def test_the_turns_of_a_conversation_share_its_context(say, monkeypatch):
    monkeypatch.setattr(respond, "MAX_TEXT_BYTES", 0)  # so that eight bytes for each of the 256 tokens are the bound
    with pytest.raises(openai.BadRequestError, match="messages has 2,080 bytes; at most 2,048 are read") as refused:
        say([{"role": "user", "content": "x" * 20}] * 104)
    assert refused.value.code == "context_length_exceeded"


def test_answers_continue_to_the_end_of_the_context_unless_limited(say):
    answer = say(seed=1, logit_bias={"259": -100})
    assert answer.usage.total_tokens == 256 and answer.choices[0].finish_reason == "length"


def test_an_answer_without_a_limit_leaves_a_stranger_tokens_for_others(running, chat_model):
    n_prompt = len(prompt_tokens(chat_model.tokenizer, MESSAGES))
    for tokens, n, length in ((240, 1, 30), (n_prompt + 8, 2, 4)):
        with running(chat_model, ServeSettings(port=0, public=PublicSettings(tokens_per_hour=tokens))) as server:
            body = {"messages": MESSAGES, "n": n, "logit_bias": {"259": -100}}
            answer = httpx.post(f"{server.url}/v1/chat/completions", json=body).json()
            assert answer["usage"]["completion_tokens"] == n * length, answer


def test_content_parts_and_all_roles_are_accepted(say):
    cached = {"type": "text", "text": " cat.", "cache_control": {"type": "ephemeral"}}
    parts = [
        {"role": "developer", "content": [{"type": "text", "text": "Be a"}, cached]},
        MESSAGES[1],
    ]
    assert say(parts, temperature=0, max_tokens=9).choices[0].message.content == (
        say(temperature=0, max_tokens=9).choices[0].message.content
    )


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"messages": []}, "messages", "messages must have 1 or more items"),
        ({"messages": MESSAGES * 2100}, "messages", "messages must have at most 2048 items"),
        ({"messages": ["hi"]}, "messages.0", "messages.0 must be an object"),
        ({"messages": MESSAGES, "metadata": 5}, "metadata", "metadata is 5; it must be an object"),
        ({}, "messages", "messages is missing"),
        ({"messages": [{"role": "cat", "content": "x"}]}, "messages.0.role", "must be 'system'"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "missing"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content", "of type text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "txt": 1}]}]},
            "messages.0.content.0.txt",
            "there is no parameter messages.0.content.0.txt; did you mean text?",
        ),
        ({"messages": MESSAGES, "max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "differ; send one of them"),
        ({"messages": MESSAGES, "tools": [{"type": "function"}]}, "tools", "not supported"),
        ({"messages": MESSAGES, "top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        ({"messages": MESSAGES, "max_token": 2}, "max_token", "did you mean max_tokens?"),
        ({"messages": MESSAGES, "chat_template_kwargs": {"a": 1}}, VARIABLES, "has a, which the model's chat template"),
        ({"messages": MESSAGES, "chat_template_kwargs": {"mood": "x" * 101}}, VARIABLES, "of at most 100 characters"),
        ({"messages": MESSAGES, "chat_template_kwargs": {"mood": []}}, VARIABLES, "values are true, false, numbers or"),
        ({"messages": MESSAGES * 40}, "messages", "this model's maximum context length is 256 tokens"),
    ],
)
def test_invalid_requests_are_rejected_with_a_sentence(chat_server, body, param, message):
    refused = httpx.post(f"{chat_server.url}/v1/chat/completions", json=body)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["param"] == param and message in error["message"]


def test_a_model_without_a_template_says_so(client):
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(model="tiny", messages=MESSAGES)


def test_a_client_sets_variables_of_the_template(say):
    plain, glad = (say(max_tokens=1, extra_body={VARIABLES: each}).usage for each in ({"a": None}, {"mood": "glad"}))
    assert glad.prompt_tokens == plain.prompt_tokens + len("glad")


def test_the_end_of_a_turn_ends_the_answer(say):
    answer = say(logit_bias={"259": 100}, max_tokens=5)
    assert answer.choices[0].message.content == "" and answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 1
