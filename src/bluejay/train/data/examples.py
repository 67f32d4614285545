"""Examples for fine-tuning: a prompt with its completion, or a conversation, from the columns that files have for them.

| columns | example |
| --- | --- |
| `messages`, or ShareGPT's `conversations` (with `system`) | the conversation |
| `prompt` and `completion` (or another name for an answer) | the text, and what continues it |
| `instruction`, `question`, `query`, `input` (with `context`, `system`) and an answer | a question and its answer |
| `text` | a text, all of which is learnt |

A question and its answer are a conversation where the model has a chat template, because it is asked by that. For other
models the prompt is the question and a line break.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bluejay.train.data.example_files import Row, kind_of

CONVERSATIONS = ("messages", "conversations", "conversation")
QUESTIONS = ("instruction", "question", "query", "input")
CONTEXTS = ("input", "context")
ANSWERS = ("completion", "response", "output", "answer", "target")
SYSTEM = ("system", "system_prompt")
"""Known names of columns, the likeliest first."""
MEDIA = ("image", "images", "audio", "audios", "video", "videos")
NOT_LEARNT = ("tools", "functions", "history", *MEDIA, "chosen", "rejected")
"""Columns that change what an answer means, and that training does not use."""
NO = ("false", "f", "no", "n", "0", "0.0", "-1", "-1.0", "bad", "rejected", "undesirable")
"""What files write in the column "label" of an answer that is not wanted."""
TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of a message's parts that are text, by OpenAI's two interfaces."""
ROLES = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
"""Roles as ShareGPT and others call them; other names are left to the chat template."""
SPEAKERS = ("system", "user", "assistant", *ROLES)
"""What a row of a single message, as of OASST, has in the column "role"."""
CALLS = ("function_call", "tool_call", "observation", "tool_response")
"""Roles of ShareGPT's messages that call a tool and that hold what it answered."""
TURNS = {"user": "prompt", "assistant": "completion", "system": "system"}
"""What `data.columns` calls the parts of a conversation of one question."""
MESSAGE_KEYS = ("role", "from", "content", "value", "weight")


@dataclass(frozen=True)
class Pair:
    """A text and what continues it."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Message:
    """A message of a conversation."""

    role: str
    content: str
    learnt: bool
    """Whether an answer is to be learnt; messages of others never are."""


Conversation = tuple[Message, ...]


class Unusable(Exception):
    """A row without an example, with the reason as the end of "rows ..."."""


@dataclass(frozen=True)
class Form:
    """How the rows of a file are read: the columns of the parts of an example."""

    kind: str
    """"conversation", "pair", "question" or "text"."""
    required: tuple[tuple[str, str], ...]
    """Part of an example and the column that holds it."""
    optional: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Part that not every row has, or has in the same column, and the columns that may hold it, the likeliest first."""

    def columns(self, row: Row) -> dict[str, str]:
        """The column of each part in a row; of the optional parts those that the row has, filled ones first."""
        found = dict(self.required)
        for part, names in self.optional:
            others = {column for other, column in found.items() if other != part}
            if there := [name for name in names if name in row and name not in others]:
                found[part] = next(filter(row.get, there), there[0])
        return found

    def example(self, row: Row, as_chat: bool) -> Pair | Conversation:
        """The example of a row; a question and its answer as a conversation if `as_chat`.

        Raises Unusable if the row holds none; ValueError, as the end of "line 3 ...", if it is of another form.
        """
        of = self.columns(row)
        for name in NOT_LEARNT:
            if row.get(name) and name not in of.values():
                raise ValueError(f"has {name}, which training does not use; make a file without that column")
        for name in of.values():
            if name not in row:
                raise ValueError(f"has no {name}; it has {', '.join(map(str, row))}")
        for part, names in self.optional:
            rest = [name for name in names if row.get(name) and name not in of.values() and row[name] != row[of[part]]]
            if rest:
                what = "question" if part == "prompt" else part
                raise ValueError(
                    f"has {of[part]} and {rest[0]}, either of which may be its {what}; name the columns to read with "
                    "data.columns, or make a file without one of them"
                )
        if self.kind == "text" and row.get("role") in SPEAKERS:
            raise ValueError(
                f"has a text of the role {row['role']}, which is one message; make a file of whole conversations, with "
                "the column messages, or one without the column role"
            )
        if self.kind == "text":
            return Pair("", text_in(row, of["text"]))
        label = str(row.get("label")).strip().lower()
        if "label" not in of.values() and label in NO:
            raise ValueError(
                f"has label {label}, which marks an answer that is not to be learnt; make a file of the other rows, or "
                "one without that column"
            )
        context, system = (
            text_in(row, of[part], may_be_empty=True) if part in of else "" for part in ("context", "system")
        )
        if self.kind == "conversation":
            return with_system(conversation(row[of["messages"]], of["messages"]), system)
        prompt, completion = row[of["prompt"]], row[of["completion"]]
        if isinstance(prompt, list) and isinstance(completion, list):
            return with_system(conversation([*prompt, *completion], of["prompt"]), system)
        if self.kind == "pair" and system:
            names = ", ".join(f'{part} = "{of[name]}"' for part, name in TURNS.items())
            raise ValueError(
                f"has {of['system']}, for which a plain prompt has no place; data.columns = {{ {names} }} makes a "
                "conversation of them, and without user and assistant but with prompt and completion leaves it out"
            )
        if self.kind == "pair":
            return Pair(text_in(row, of["prompt"], may_be_empty=True), text_in(row, of["completion"]))
        question, answer = text_in(row, of["prompt"]), text_in(row, of["completion"])
        asked = "\n".join(part for part in (question, context) if part)
        if as_chat:
            return with_system((Message("user", asked, False), Message("assistant", answer, True)), system)
        return Pair("\n".join(part for part in (system, asked) if part) + "\n", answer)


def form_of(columns: Sequence[str], mapping: Mapping[str, str]) -> Form | None:
    """The form of rows with these columns: by the mapping of the recipe if they have all that it names, else by known
    names; None if neither fits."""
    needed = {TURNS.get(part, part): column for part, column in mapping.items() if part != "system"}
    if mapping and set(needed.values()) <= set(columns):
        kinds = {"messages": "conversation", "text": "text", "user": "question"}
        kind = next((kinds[name] for name in kinds if name in mapping), "pair")
        return Form(kind, tuple(needed.items()), (("system", (mapping["system"],)),) if "system" in mapping else ())

    def first(names: Sequence[str]) -> str | None:
        return next((name for name in names if name in columns), None)

    system = ("system", SYSTEM)
    if messages := first(CONVERSATIONS):
        return Form("conversation", (("messages", messages),), (system,))
    if "prompt" in columns and (answer := first(ANSWERS)):
        return Form("pair", (("prompt", "prompt"), ("completion", answer)), (system,))
    question, answer = first(QUESTIONS), first(ANSWERS)
    if question and answer:
        optional = (("prompt", QUESTIONS), ("context", CONTEXTS), system)
        return Form("question", (("prompt", question), ("completion", answer)), optional)
    return Form("text", (("text", "text"),)) if "text" in columns else None


def advice(columns: Sequence[str]) -> str:
    """How a recipe makes examples of rows whose columns are not known."""
    if "chosen" in columns and "rejected" in columns:
        return (
            "has chosen and rejected, and training learns answers, not which of two is better; make a file of the "
            "chosen ones, with the columns prompt and completion, or messages"
        )
    return (
        f"has the columns {', '.join(map(str, columns))}, which are no known form of example; name those to learn from "
        'with data.columns, such as { prompt = "...", completion = "..." }, { user = "...", assistant = "..." }, '
        '{ messages = "..." } or { text = "..." }'
    )


def text_in(row: Row, name: str, may_be_empty: bool = False) -> str:
    """The text in a column. Raises Unusable if it is empty or no text."""
    value = row[name]
    if value is None or value == "":
        if not may_be_empty:
            raise Unusable(f"with an empty {name}")
        return ""
    if not isinstance(value, str):
        raise Unusable(f"whose {name} is {kind_of(value)}, not a text")
    return value


def conversation(value: Any, name: str) -> Conversation:
    """The messages in a column. Raises Unusable if nothing of them is to be learnt; ValueError if they are of another
    form."""
    if not isinstance(value, list) or not value:
        raise Unusable(f"whose {name} are {'empty' if value in (None, [], '') else kind_of(value)}, not messages")
    messages = tuple(message(one) for one in value)
    if not any(one.learnt for one in messages):
        roles = dict.fromkeys(one.role for one in messages)
        if "assistant" not in roles:
            raise Unusable(f"with messages of {', '.join(roles)} and none of assistant")
        raise Unusable("without an answer of the assistant to learn")
    return messages


def with_system(messages: Conversation, system: str) -> Conversation:
    """A conversation that begins with a system message, unless that is empty. Raises ValueError if it has another."""
    own = [one.content for one in messages if one.role == "system"]
    if not system or system in own:
        return messages
    if own:
        raise ValueError("has a system message and another system text in a column; keep one of the two")
    return (Message("system", system, False), *messages)


def message(value: Any) -> Message:
    """A message of a conversation, with role and content or, as in ShareGPT, with from and value."""
    if not isinstance(value, dict):
        raise ValueError(f"has a message that is {kind_of(value)}, not an object of role and content")
    role, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
    unknown = next((key for key, held in value.items() if key not in MESSAGE_KEYS and held not in (None, [], "")), None)
    if unknown is not None:
        raise ValueError(f"has a message with {unknown}, which training does not use")
    if not isinstance(role, str):
        raise ValueError(f"has a message whose role is {kind_of(role)}; its keys are {', '.join(map(str, value))}")
    if role in CALLS:
        raise ValueError(f"has a message of {role}, which training does not use")
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") in TEXT_PARTS and isinstance(part.get("text", 0), str | None)
        for part in content
    ):
        content = "".join(part["text"] or "" for part in content)
    if isinstance(content, list):
        raise ValueError("has a message with parts that are not text, which training does not use")
    role = ROLES.get(role, role)
    weight = value.get("weight", 1)
    if weight not in (0, 1, None):
        raise ValueError(f"has a message of weight {weight!r}; it can be 0 or 1")
    if content is not None and not isinstance(content, str):
        raise Unusable(f"with a message that is {kind_of(content)}, not a text")
    if role == "assistant" and not content:
        raise Unusable("with an empty answer")
    return Message(role, content or "", role == "assistant" and weight != 0)
