"""Chat templates: from a conversation to the prompt that the model was trained to continue.

Templates are written in Jinja, in Hugging Face's dialect (its guide "Chat templates"). They come with the model's files
from untrusted authors, so they run in Jinja's sandbox, which gives them access to nothing but the conversation.

Text that a user writes never becomes a special token. While the template runs, the name of a special token in a message
is replaced by a placeholder, the token's id between two surrogates, which no valid text contains. Names of special
tokens that are found afterwards were therefore written by the template.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, Template, TemplateError, meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from tokenizers import AddedToken

from bluejay.template_sandbox import BUDGET, BoundedEnvironment, Budget, refuse
from bluejay.tokenizer import Tokenizer, well_formed
from bluejay.tokenizer_files import spelled

PLACEHOLDER = "\ud800{}\udbff"
GIVEN = frozenset({"messages", "add_generation_prompt", "tools", "documents", "strftime_now", "raise_exception"})
"""What every template is given, beside the names of tokens."""
NO_VARIABLES: Mapping[str, Any] = MappingProxyType({})
NOTHING = "(?!)"
"""A regular expression that matches nowhere."""


def prompt_tokens(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any] = NO_VARIABLES
) -> list[int]:
    """The prompt for a conversation, up to where the answer begins; each message has a `role` and a `content`.
    `variables` are further ones that the template reads, such as `enable_thinking`.

    Raises ValueError, with one sentence, if the model has no template or the template rejects the messages, and one
    that begins with `chat_template_kwargs` for variables that it does not read.
    """
    chat = Chat(tokenizer)
    return chat.tokens(chat.text(messages, variables=variables))


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
        self.encoded = lru_cache(256)(tokenizer.encode_after)
        """The ids of a text after another id; each turn of a conversation is asked for with all turns before it."""

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        answer_follows: bool = True,
        now: datetime | None = None,
        variables: Mapping[str, Any] = NO_VARIABLES,
    ) -> str:
        """The text of a conversation with placeholders for names of special tokens in the messages, up to where the
        assistant's answer begins if one follows. A value of None in a message counts as absent, as in transformers.
        `now` is the time that the template sees (default: the time now), `variables` are further ones that it reads.

        Raises ValueError, with one sentence, if the template rejects the messages or does not read a variable.
        """
        if variables:
            check_read(variables, self.tokenizer.chat_template or "")
        present = [{key: value for key, value in message.items() if value is not None} for message in messages]
        return render(self.tokenizer, self.mask(present), answer_follows, now, self.mask(variables))

    def tokens(self, text: str, before: Sequence[int] = ()) -> list[int]:
        """The ids of what `text` gave, or of a part of it that follows the ids `before`."""
        ids, at = list(before), 0
        for found in self.occurrences.finditer(text):
            ids += self.encoded(tuple(ids[-1:]), self.unmask(text[at : found.start()]))
            # The whitespace that a token absorbs may hold the name of another.
            name = max(self.names.findall(found[0]), key=lambda name: len(name.strip()))
            ids.append(self.special[name])
            at = found.end()
        return [*ids, *self.encoded(tuple(ids[-1:]), self.unmask(text[at:]))][len(before) :]

    def mask(self, value: Any) -> Any:
        """A value with placeholders for the names of special tokens in its texts, also within lists and objects."""
        if isinstance(value, str):
            return self.names.sub(lambda found: PLACEHOLDER.format(self.special[found[0]]), well_formed(value))
        if isinstance(value, Mapping):
            return {self.mask(key): self.mask(item) for key, item in value.items()}
        return [self.mask(item) for item in value] if isinstance(value, (list, tuple)) else value

    def unmask(self, text: str) -> str:
        """The text that `mask` was given."""
        return re.sub(PLACEHOLDER.format("([0-9]+)"), lambda found: self.decoder[int(found[1])].content, text)


def name_pattern(token: AddedToken) -> str:
    """A regular expression for the name of a special token."""
    return re.escape(token.content)


def occurrence_pattern(token: AddedToken) -> str:
    """A regular expression for a special token in a text, with the whitespace around it that some tokens absorb; some
    are only found between characters that are no part of a word."""
    before, after = (r"(?<!\w)", r"(?!\w)") if token.single_word else ("", "")
    spaces = r"(?:(?<!\s)\s+)?" if token.lstrip else "", r"\s*" if token.rstrip else ""
    return spaces[0] + before + name_pattern(token) + after + spaces[1]


def render(
    tokenizer: Tokenizer,
    messages: list[dict[str, Any]],
    answer_follows: bool = True,
    now: datetime | None = None,
    variables: Mapping[str, Any] = NO_VARIABLES,
) -> str:
    """The text that the template produces. Raises ValueError if it fails."""
    assert tokenizer.chat_template is not None
    try:
        return compiled(tokenizer.chat_template).render(
            {**variables, BUDGET: Budget()},
            messages=messages,
            add_generation_prompt=answer_follows,
            tools=None,
            documents=None,
            strftime_now=(now or datetime.now()).strftime,
            **named_tokens(tokenizer),
        )
    except TemplateError as error:
        raise ValueError(f"the model's chat template rejects these messages: {error}") from None
    except Exception as error:  # a template is an untrusted program: it can raise anything
        raise ValueError(f"the model's chat template fails on these messages: {type(error).__name__}") from None


def named_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """The names of tokens that a template sees: those of tokenizer_config.json, also in its extra_special_tokens, where
    a null means that there is none; the beginning and end of a text are those that the tokenizer uses where it does not
    say."""
    begin = next(iter(tokenizer.begin), tokenizer.eot)
    used = {
        "bos_token": tokenizer.backend.id_to_token(begin),
        "eos_token": tokenizer.backend.id_to_token(tokenizer.eot),
    }
    given = {name: token for name, token in tokenizer.settings.items() if name.endswith("_token")}
    extra = tokenizer.settings.get("extra_special_tokens")
    named = used | given | (extra if isinstance(extra, dict) else {})
    return {name: text for name, token in named.items() if isinstance(text := spelled(token), str)}


@lru_cache(maxsize=1)
def compiled(source: str) -> Template:
    """A compiled template, with the functions that Hugging Face's templates may call."""
    return new_environment().from_string(source, globals={"raise_exception": refuse})


@lru_cache(maxsize=1)
def settable(source: str) -> frozenset[str]:
    """The variables that a template reads and that nothing gives it; none where it cannot be read."""
    try:
        read = meta.find_undeclared_variables(new_environment().parse(source))
    except Exception:  # rendering it says why
        return frozenset()
    return frozenset(name for name in read - GIVEN if not name.endswith("_token"))


def check_read(variables: Mapping[str, Any], source: str) -> None:
    """Raise ValueError for a variable that a template does not read."""
    known = settable(source)
    if unknown := sorted(variables.keys() - known):
        others = f"; it reads {', '.join(sorted(known))}" if known else ""
        raise ValueError(
            f"chat_template_kwargs has {unknown[0][:100]}, which the model's chat template does not read{others}"
        )


def new_environment() -> Environment:
    """What templates are compiled in."""
    return BoundedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationTag])


class GenerationTag(Extension):
    """The tag {% generation %}, in which transformers finds what the assistant wrote; the text is that inside it."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        """The block up to {% endgeneration %}, whose variables end with it."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)
