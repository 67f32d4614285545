"""The columns that people's files have become examples, and those that are not known are named."""

import json

import pytest

from bluejay.train.data.examples import Message, Pair, Unusable, form_of
from bluejay.train.data.pairs import read_examples

ASKED = (Message("user", "Hi", False), Message("assistant", "Yo", True))
PLAIN, CHAT = False, True


def example(row: dict, as_chat: bool, mapping: dict[str, str] | None = None) -> object:
    form = form_of(list(row), mapping or {})
    assert form is not None
    return form.example(row, as_chat)


@pytest.mark.parametrize(
    ("row", "as_chat", "expected"),
    [
        ({"prompt": "Hi", "completion": "Yo"}, CHAT, Pair("Hi", "Yo")),
        ({"prompt": "", "response": "Yo"}, PLAIN, Pair("", "Yo")),
        ({"text": "Hi Yo"}, CHAT, Pair("", "Hi Yo")),
        ({"question": "Hi", "answer": "Yo"}, PLAIN, Pair("Hi\n", "Yo")),
        ({"question": "Hi", "answer": "Yo", "context": "In Rome"}, PLAIN, Pair("Hi\nIn Rome\n", "Yo")),
        ({"instruction": "Hi", "input": "", "output": "Yo"}, CHAT, ASKED),
        ({"instruction": "Hi", "input": "Rome", "output": "Yo"}, PLAIN, Pair("Hi\nRome\n", "Yo")),
        ({"instruction": "Hi", "output": "Yo", "system": "Be"}, CHAT, (Message("system", "Be", False), *ASKED)),
        ({"input": "Hi", "output": "Yo"}, CHAT, ASKED),
        ({"query": "Hi", "response": "Yo", "id": 5}, CHAT, ASKED),
        (
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo", "weight": 1}]},
            PLAIN,
            ASKED,
        ),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}, CHAT, ASKED),
        (
            {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Yo"}]},
            CHAT,
            ASKED,
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "Hi"}], "tool_calls": None},
                    {"role": "assistant", "content": "Yo"},
                ]
            },
            CHAT,
            ASKED,
        ),
    ],
)
def test_known_columns_are_read(row, as_chat, expected):
    assert example(row, as_chat) == expected


def test_a_mapping_names_the_columns_that_nobody_knows():
    row = {"frage": "Hi", "antwort": "Yo", "prompt": "no", "completion": "no"}
    assert example(row, CHAT, {"user": "frage", "assistant": "antwort"}) == ASKED
    assert example(row, PLAIN, {"user": "frage", "assistant": "antwort"}) == Pair("Hi\n", "Yo")
    assert example(row, CHAT, {"prompt": "frage", "completion": "antwort"}) == Pair("Hi", "Yo")
    assert example(row, CHAT, {"text": "antwort"}) == Pair("", "Yo")
    assert example({"prompt": "a", "completion": "b"}, CHAT, {"text": "antwort"}) == Pair("a", "b")


def test_an_answer_that_is_not_to_be_learnt_is_context():
    turns = [{"role": "assistant", "content": "A", "weight": 0}, {"role": "assistant", "content": "B"}]
    assert [one.learnt for one in example({"messages": turns}, CHAT)] == [False, True]
    with pytest.raises(Unusable, match="without an answer of the assistant to learn"):
        example({"messages": turns[:1]}, CHAT)


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([{"role": "assistant", "content": "a", "tool_calls": [{}]}], "has a message with tool_calls, which"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "parts that are not text"),
        ([{"speaker": "x", "content": "a"}], "a message with speaker"),
        ([{"content": "a"}], "whose role is nothing; its keys are content"),
        (["hello"], "a message that is a text, not an object"),
        ([{"role": "assistant", "content": "a", "weight": 0.5}], "a message of weight 0.5"),
    ],
)
def test_what_a_message_says_and_nobody_understands_is_refused(messages, sentence):
    with pytest.raises(ValueError, match=sentence):
        example({"messages": messages}, CHAT)


@pytest.mark.parametrize("column", ["tools", "images", "rejected"])
def test_columns_that_change_what_an_answer_means_are_refused(column):
    row = {"prompt": "a", "completion": "b"}
    assert example({**row, column: None}, PLAIN) == Pair("a", "b")
    with pytest.raises(ValueError, match=f"has {column}, which training does not use"):
        example({**row, column: ["x"]}, PLAIN)


def test_unknown_columns_are_named_with_what_to_do(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"frage": "a", "antwort": "b"}) + "\n" + json.dumps({"x": 1}))
    with pytest.raises(ValueError, match=r"line 1 has the columns frage, antwort.*data\.columns, such as"):
        list(read_examples(tmp_path / "a.jsonl", {}, CHAT))
