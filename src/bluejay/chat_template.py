"""Chat templates: from a conversation to the prompt that the model was trained to continue.

Templates are written in Jinja, in Hugging Face's dialect (its guide "Chat templates"). They come with the model's files
from untrusted authors, so they run in Jinja's sandbox, which gives them access to nothing but the conversation.

Text that a user writes never becomes a special token. While the template runs, the name of a special token in a message
is replaced by a placeholder, the token's id between two surrogates, which no valid text contains. Names of special
tokens that are found afterwards were therefore written by the template.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken

from bluejay.tokenizer import NAMED_TOKENS, Tokenizer, well_formed

PLACEHOLDER = "\ud800{}\udbff"
NOTHING = "(?!)"
"""A regular expression that matches nowhere."""


def prompt_tokens(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """The prompt for a conversation, up to where the answer begins; each message has a `role` and a `content`.

    Raises ValueError, with one sentence, if the model has no template or the template rejects the messages.
    """
    chat = Chat(tokenizer)
    return chat.tokens(chat.text(messages))


class Chat:
    """The chat template of a tokenizer: from messages to a text in which only the template writes special tokens, and
    from such a text to token ids. Raises ValueError if there is no template."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        if tokenizer.chat_template is None:
            raise ValueError("this model has no chat template; it continues any text, but answers no messages")
        self.tokenizer = tokenizer
        self.decoder = tokenizer.backend.get_added_tokens_decoder()
        self.special = {
            token.content: id for id, token in self.decoder.items() if token.special or id in tokenizer.ends
        }
        tokens = sorted((self.decoder[id] for id in self.special.values()), key=lambda token: -len(token.content))
        self.names = re.compile("|".join(map(name_pattern, tokens)) or NOTHING)
        self.occurrences = re.compile("|".join(map(occurrence_pattern, tokens)) or NOTHING)

    def text(
        self, messages: Sequence[Mapping[str, str]], answer_follows: bool = True, now: datetime | None = None
    ) -> str:
        """The text of a conversation with placeholders for names of special tokens in the messages, up to where the
        assistant's answer begins if one follows. `now` is the time that the template sees (default: the time now).

        Raises ValueError, with one sentence, if the template rejects the messages.
        """
        masked = [{key: self.mask(value) for key, value in message.items()} for message in messages]
        return render(self.tokenizer, masked, answer_follows, now)

    def tokens(self, text: str) -> list[int]:
        """The ids of what `text` gave, or of a part of it."""
        ids, at = [], 0
        for found in self.occurrences.finditer(text):
            ids += [*self.tokenizer.encode(self.unmask(text[at : found.start()])), self.special[found[0].strip()]]
            at = found.end()
        return ids + self.tokenizer.encode(self.unmask(text[at:]))

    def mask(self, text: str) -> str:
        """A text with placeholders for the names of special tokens in it."""
        return self.names.sub(lambda found: PLACEHOLDER.format(self.special[found[0]]), well_formed(text))

    def unmask(self, text: str) -> str:
        """The text that `mask` was given."""
        return re.sub(PLACEHOLDER.format("([0-9]+)"), lambda found: self.decoder[int(found[1])].content, text)


def name_pattern(token: AddedToken) -> str:
    """A regular expression for the name of a special token."""
    return re.escape(token.content)


def occurrence_pattern(token: AddedToken) -> str:
    """A regular expression for a special token in a text, with the whitespace around it that some tokens absorb."""
    return (r"(?:(?<!\s)\s+)?" if token.lstrip else "") + name_pattern(token) + (r"\s*" if token.rstrip else "")


def render(
    tokenizer: Tokenizer, messages: list[dict[str, str]], answer_follows: bool = True, now: datetime | None = None
) -> str:
    """The text that the template produces. Raises ValueError if it fails."""
    assert tokenizer.chat_template is not None
    try:
        return compiled(tokenizer.chat_template).render(
            messages=messages,
            add_generation_prompt=answer_follows,
            tools=None,
            strftime_now=(now or datetime.now()).strftime,
            **named_tokens(tokenizer),
        )
    except TemplateError as error:
        raise ValueError(f"the model's chat template rejects these messages: {error}") from None
    except Exception as error:  # a template is an untrusted program: it can raise anything
        raise ValueError(f"the model's chat template fails on these messages: {type(error).__name__}") from None


def named_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """The names of tokens that a template sees: those of tokenizer_config.json, where a null means that there is none;
    the beginning and end of a text are those that the tokenizer uses where it does not say."""
    begin = next(iter(tokenizer.begin), tokenizer.eot)
    used = {
        "bos_token": tokenizer.backend.id_to_token(begin),
        "eos_token": tokenizer.backend.id_to_token(tokenizer.eot),
    }
    named = used | {name: tokenizer.settings[name] for name in NAMED_TOKENS if name in tokenizer.settings}
    return {name: token for name, token in named.items() if token is not None}


@lru_cache(maxsize=1)
def compiled(source: str) -> Template:
    """A compiled template, with the functions that Hugging Face's templates may call."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    environment.filters["tojson"] = tojson
    return environment.from_string(source, globals={"raise_exception": refuse})


class Generation(Extension):
    """The tag {% generation %}, in which transformers finds what the assistant wrote; the text is that inside it."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        """The block up to {% endgeneration %}, whose variables end with it."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON, by default with characters unchanged; Jinja's own filter of this name escapes them for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def refuse(message: str) -> NoReturn:
    """The function that a template calls to reject messages."""
    raise TemplateError(message)
