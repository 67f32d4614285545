"""The columns that people's files have become examples, and those that are not known are named."""

import json
from itertools import permutations

import pytest

from bluejay.train.data.examples import Message, Pair, Unusable, form_of
from bluejay.train.data.packed_examples import read_examples

ASKED = (Message("user", "Hi", False), Message("assistant", "Yo", True))
SYSTEM = Message("system", "Be", False)
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
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
        ({"system": "Be", "messages": TURNS}, CHAT, (SYSTEM, *ASKED)),
        ({"system": "Be", "messages": [{"role": "system", "content": "Be"}, *TURNS]}, CHAT, (SYSTEM, *ASKED)),
        ({"system": "", "conversations": TURNS}, CHAT, ASKED),
        ({"system": "Be", "prompt": TURNS[:1], "completion": TURNS[1:]}, CHAT, (SYSTEM, *ASKED)),
        ({"instruction": "Hi", "input": "", "context": "Rome", "output": "Yo"}, PLAIN, Pair("Hi\nRome\n", "Yo")),
        (
            {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Yo"}]},
            CHAT,
            ASKED,
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "Hi"}], "tool_calls": None},
                    {
                        "role": "assistant",
                        "content": [{"type": "text", "text": None}, {"type": "output_text", "text": "Yo"}],
                    },
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
    with_system = {"user": "frage", "assistant": "antwort", "system": "rolle"}
    assert example(row, CHAT, with_system) == ASKED
    assert example({**row, "rolle": "Be"}, CHAT, with_system) == (SYSTEM, *ASKED)
    assert example({"chat": TURNS, "rolle": "Be"}, CHAT, {"messages": "chat", "system": "rolle"}) == (SYSTEM, *ASKED)


def test_a_dot_leads_to_a_column_within_an_object(tmp_path, capsys):
    columns = {"prompt": "data.q", "completion": "data.a.text"}
    rows = [{"id": 1, "data": {"q": "Hi", "a": {"text": "Yo"}, "b": 2}}, {"data.q": "Ho", "data.a.text": "Ya"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [one for _, one in read_examples(tmp_path / "a.jsonl", columns, PLAIN)] == [
        Pair("Hi", "Yo"),
        Pair("Ho", "Ya"),
    ]
    said = capsys.readouterr().err
    assert "reads the columns data.q, data.a.text; not used: " in said and "data.b" in said and "WARNING" not in said
    (tmp_path / "a.jsonl").write_text('{"data": {"q": "Hi"}}\n')
    with pytest.raises(ValueError, match=r"has the columns data\.q, which are no known form"):
        list(read_examples(tmp_path / "a.jsonl", columns, PLAIN))


def test_a_column_that_only_later_rows_have_is_read_or_said_to_be_unused(tmp_path, capsys):
    rows = [{"instruction": "a", "output": "b"}, {"instruction": "a", "output": "b", "id": 1, "system": "S"}]
    rows += [{"instruction": "a", "context": "c", "output": "b"}, {"instruction": "a", "input": "c", "output": "b"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [one for _, one in read_examples(tmp_path / "a.jsonl", {}, PLAIN)]
    assert found == [Pair("a\n", "b"), Pair("S\na\n", "b"), Pair("a\nc\n", "b"), Pair("a\nc\n", "b")]
    said = capsys.readouterr().err
    assert "reads the columns instruction, output, system, context, input; not used: id" in said


def test_the_question_of_a_row_does_not_depend_on_the_rows_before_it(tmp_path):
    examples = {
        Pair("2+2\n", "4"): {"input": "2+2", "output": "4"},
        Pair("Translate\nhouse\n", "maison"): {"instruction": "Translate", "input": "house", "output": "maison"},
        Pair("Who\nRome\n", "I"): {"question": "Who", "instruction": "", "context": "Rome", "output": "I"},
    }
    for order in permutations(examples):
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(examples[one]) + "\n" for one in order))
        assert tuple(one for _, one in read_examples(tmp_path / "a.jsonl", {}, PLAIN)) == order
    (tmp_path / "b.jsonl").write_text('{"query": "2+2", "output": "4"}\n{"output": "4"}\n')
    with pytest.raises(ValueError, match="line 2 has no query; it has output"):
        list(read_examples(tmp_path / "b.jsonl", {}, PLAIN))


def test_an_answer_that_is_marked_as_bad_is_refused():
    row = {"prompt": "a", "completion": "b", "label": True}
    assert example(row, PLAIN) == Pair("a", "b")
    assert example({**row, "label": 1}, PLAIN) == Pair("a", "b")
    assert example({**row, "label": "yes"}, PLAIN) == Pair("a", "b")
    for label in (False, "False", 0, "0", 0.0, "no", "N", " f ", -1, "rejected", "undesirable"):
        with pytest.raises(ValueError, match=r"has label \S+, which marks an answer that is not to be learnt"):
            example({**row, "label": label}, PLAIN)
    as_answer = {"prompt": "prompt", "completion": "label"}
    assert example({**row, "label": "false"}, PLAIN, as_answer) == Pair("a", "false")
    assert example({"text": "a", "label": False}, PLAIN) == Pair("", "a")


def test_a_system_text_without_a_place_is_refused():
    row = {"prompt": "a", "response": "b", "system": "S"}
    with pytest.raises(
        ValueError, match=r'has system, .*\{ user = "prompt", assistant = "response", system = "system" \}'
    ):
        example(row, CHAT)
    assert example(row, CHAT, {"prompt": "prompt", "completion": "response"}) == Pair("a", "b")
    with pytest.raises(ValueError, match="has a system message and another system text"):
        example({"messages": [{"role": "system", "content": "S"}, *TURNS], "system": "T"}, CHAT)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"instruction": "Hi", "question": "Who", "answer": "Yo"}, "instruction and question, .* its question"),
        ({"question": "Who", "input": "Rome", "context": "Oslo", "answer": "Yo"}, "input and context, .* its context"),
        ({"messages": TURNS, "system": "Be", "system_prompt": "Do"}, "system and system_prompt, .* its system"),
    ],
)
def test_texts_for_one_part_of_an_example_are_not_chosen_between(row, sentence):
    with pytest.raises(ValueError, match=f"has {sentence}; name the columns to read with data.columns"):
        example(row, CHAT)
    first, second = sentence.split(",")[0].split(" and ")
    assert example({**row, second: row[first]}, CHAT) == example({**row, second: ""}, CHAT)


def test_an_answer_that_is_not_to_be_learnt_is_context():
    turns = [{"role": "assistant", "content": "A", "weight": 0}, {"role": "assistant", "content": "B"}]
    assert [one.learnt for one in example({"messages": turns}, CHAT)] == [False, True]
    with pytest.raises(Unusable, match="without an answer of the assistant to learn"):
        example({"messages": turns[:1]}, CHAT)
    with pytest.raises(Unusable, match="with messages of Human, GPT and none of assistant"):
        example({"conversations": [{"from": "Human", "value": "A"}, {"from": "GPT", "value": "B"}]}, CHAT)


def test_one_message_of_a_conversation_is_not_learnt_as_a_text():
    row = {"message_id": "b", "parent_id": "a", "text": "Hi", "lang": "en"}
    for role in ("prompter", "assistant"):  # as in OASST
        with pytest.raises(ValueError, match=f"has a text of the role {role}, which is one message; make a file of"):
            example({**row, "role": role}, CHAT)
    assert example({**row, "role": "title"}, CHAT) == Pair("", "Hi")


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([{"role": "assistant", "content": "a", "tool_calls": [{}]}], "has a message with tool_calls, which"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "parts that are not text"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "parts that are not text"),
        ([{"from": "function_call", "value": "{}"}], "has a message of function_call, which training does not use"),
        ([{"from": "observation", "value": "4"}], "has a message of observation"),
        ([{"speaker": "x", "content": "a"}], "a message with speaker"),
        ([{"content": "a"}], "whose role is nothing; its keys are content"),
        (["hello"], "a message that is a text, not an object"),
        ([{"role": "assistant", "content": "a", "weight": 0.5}], "a message of weight 0.5"),
    ],
)
def test_what_a_message_says_and_nobody_understands_is_refused(messages, sentence):
    with pytest.raises(ValueError, match=sentence):
        example({"messages": messages}, CHAT)


@pytest.mark.parametrize("column", ["tools", "image", "images", "rejected", "history"])
def test_columns_that_change_what_an_answer_means_are_refused(column):
    row = {"prompt": "a", "completion": "b"}
    assert example({**row, column: None}, PLAIN) == Pair("a", "b")
    with pytest.raises(ValueError, match=f"has {column}, which training does not use"):
        example({**row, column: ["x"]}, PLAIN)


def test_unknown_columns_are_named_with_what_to_do(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"frage": "a", "antwort": "b"}) + "\n" + json.dumps({"x": 1}))
    with pytest.raises(ValueError, match=r"line 1 has the columns frage, antwort.*data\.columns, such as"):
        list(read_examples(tmp_path / "a.jsonl", {}, CHAT))
    (tmp_path / "b.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}))
    with pytest.raises(ValueError, match=r"line 1 has chosen and rejected, .* make a file of the chosen ones"):
        list(read_examples(tmp_path / "b.jsonl", {}, CHAT))


def test_a_column_that_the_recipe_names_and_the_file_lacks_is_said(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text(json.dumps({"instruction": "a", "output": "b"}))
    assert list(read_examples(tmp_path / "a.jsonl", {"user": "instruction", "assistant": "outptu"}, PLAIN))
    assert "WARNING" in (said := capsys.readouterr().err) and "has no outptu, which data.columns names" in said
