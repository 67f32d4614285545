"""Token ids of examples, as the model will be asked for them, with what counts in the loss."""

import copy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from bluejay.chat_template import Chat
from bluejay.prefixes import common_prefix
from bluejay.tokenizer import Tokenizer
from bluejay.train.data.examples import Message, Unusable

TODAY = datetime(2025, 1, 1)
"""The date that chat templates see in training, so that a run that is resumed on another day has the same tokens."""


@dataclass(frozen=True)
class Encoded:
    """Token ids that end with the end token."""

    ids: Sequence[int]
    learnt: Sequence[int]
    """For each of the ids 1 in an answer, 0 in a prompt."""
    question: str = ""
    """What the last answer answers, to be shown: the prompt, or the message before it."""
    row: str = ""
    """The place of its row in its file, such as "line 3"."""
    number: int = 1
    """Which text of its row it is."""

    @property
    def place(self) -> str:
        """Which text of which row of its file it is, the same in the tokens of any model."""
        return f"{self.row}, text {self.number}"

    @property
    def has_prompt(self) -> bool:
        """Whether anything is before the first answer."""
        return not self.learnt[0]

    def answers(self) -> Iterator[tuple[int, int]]:
        """Where each answer begins and ends."""
        edges = np.flatnonzero(np.diff([False, *self.learnt, False]))
        yield from ((int(first), int(end)) for first, end in edges.reshape(-1, 2))


def with_template(tokenizer: Tokenizer, path: str | None) -> Tokenizer:
    """The tokenizer with the chat template in a file; itself without one. Raises FileNotFoundError, or ValueError if
    the file is not text."""
    if path is None:
        return tokenizer
    if not Path(path).is_file():
        raise FileNotFoundError(f"no chat template at {path}, data.chat_template")
    try:
        template = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, data.chat_template, is not UTF-8: {error}") from None
    other = copy.copy(tokenizer)
    other.chat_template = template
    return other


def encode_pair(prompt: str, completion: str, tokenizer: Tokenizer) -> Encoded:
    """The ids of a pair and its end token.

    The prompt is encoded by itself, as at inference; an empty one has no ids, since an end token precedes each pair.
    The completion has the ids that follow when both are encoded as one text or, if a token of that text spans the
    boundary, those of the completion encoded by itself, without the space that some tokenizers put before a text.
    """
    prompt_ids, joint_ids = (tokenizer.begin + tokenizer.encode(text) for text in (prompt, prompt + completion))
    n = len(prompt_ids)
    completion_ids = joint_ids[n:] if joint_ids[:n] == prompt_ids else []
    answer = [*(completion_ids or tokenizer.encode_after(prompt_ids, completion)), tokenizer.eot]
    return Encoded(prompt_ids + answer, [False] * n + [True] * len(answer), prompt)


def encode_conversation(
    messages: Sequence[Message], tokenizer: Tokenizer, chat: Chat, length: int = sys.maxsize
) -> list[Encoded]:
    """The ids of a conversation as the model's chat template writes it. Every answer follows the prompt with which a
    server would ask for it, and ends with the first token that ends a text.

    That is one text where the template writes each answer as it did when the answer was last. Otherwise, as with
    templates that leave out earlier thoughts, it is one text for each answer. The first text whose prompt has more than
    `length` tokens ends with that prompt: what follows is longer still, and to write it takes time with the square of
    the turns. Raises Unusable, with the template's reason, if it rejects the messages, or if it leaves one out.
    """
    plain = [{"role": message.role, "content": message.content} for message in messages]
    found, ids, learnt, question = list[Encoded](), list[int](), list[bool](), ""
    seen = 0
    for turn, message in enumerate(messages):
        if message.role != "assistant":
            continue
        try:
            asked = chat.text(plain[:turn], now=TODAY)
            for one in messages[seen:turn]:
                if one.role != "assistant" and chat.mask(one.content).strip() not in asked:
                    raise Unusable(f"with a message of {one.role} that the chat template leaves out")
            seen = turn
            prompt = chat.tokens(asked)
            if len(prompt) > length:
                if prompt[: len(ids)] != ids:
                    found.append(Encoded(ids, learnt, question))
                ids, learnt = [*prompt, tokenizer.eot], [False] * len(prompt) + [True]
                break
            whole = chat.text(plain[: turn + 1], answer_follows=False, now=TODAY)
        except ValueError as error:
            raise Unusable(f"that {error}") from None
        with_answer = chat.tokens(whole)
        answer = with_answer[len(prompt) :]
        if with_answer[: len(prompt)] != prompt:
            answer = chat.tokens(whole[common_prefix(asked, whole) :], prompt)
        if not answer:
            raise Unusable("whose answers the chat template leaves out")
        end = next((place for place, id in enumerate(answer, start=1) if id in tokenizer.ends), None)
        answer = [*answer, tokenizer.eot] if end is None else answer[:end]
        if prompt[: len(ids)] != ids:
            found.append(Encoded(ids, learnt, question))
            ids, learnt = [], []
        if message.learnt:
            question = plain[turn - 1]["content"] if turn else ""
        learnt += [False] * (len(prompt) - len(ids)) + [message.learnt] * len(answer)
        ids = prompt + answer
    found.append(Encoded(ids, learnt, question))
    return [ended(one, tokenizer.eot) for one in found if any(one.learnt)]


def ended(encoded: Encoded, eot: int) -> Encoded:
    """The same with the end token after it if it ends with another one, such as that of a turn."""
    if encoded.ids[-1] == eot:
        return encoded
    return Encoded([*encoded.ids, eot], [*encoded.learnt, False], encoded.question)
