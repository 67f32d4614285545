"""A model's chat template: from a conversation to the prompt that the model was taught to continue.

Templates are Jinja's, in the dialect of Hugging Face (its guide "Chat templates"). They come with a model's files, from
strangers, and run in Jinja's sandbox, which gives them nothing but the conversation.

What a person writes never becomes a special token. While the template runs, the name of a special token in a message
is hidden: its id stands there between two surrogates, which no text holds. Names that are read afterwards are the
template's.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken

from bluejay.tokenizer import Tokenizer, well_formed

PLACEHOLDER = "\ud800{}\udbff"


def prompt_tokens(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """The prompt of a conversation, each message with its `role` and `content`, up to where the answer begins.

    Raises ValueError, with one sentence: the model has no template, or the template refuses these messages.
    """
    if tokenizer.chat_template is None:
        raise ValueError("this model has no chat template; /v1/completions continues any text")
    decoder = tokenizer.backend.get_added_tokens_decoder()
    special = {token.content: id for id, token in decoder.items() if token.special or id in tokenizer.ends}
    tokens = sorted((decoder[id] for id in special.values()), key=lambda token: -len(token.content))
    names, places = re.compile("|".join(map(name_of, tokens))), re.compile("|".join(map(place_of, tokens)))

    def hide(text: str) -> str:
        return names.sub(lambda found: PLACEHOLDER.format(special[found[0]]), well_formed(text))

    def show(text: str) -> str:
        return re.sub(PLACEHOLDER.format("([0-9]+)"), lambda found: decoder[int(found[1])].content, text)

    text = render(tokenizer, [{key: hide(value) for key, value in message.items()} for message in messages])
    prompt, at = [], 0
    for found in places.finditer(text):
        prompt += [*tokenizer.encode(show(text[at : found.start()])), special[found[0].strip()]]
        at = found.end()
    return prompt + tokenizer.encode(show(text[at:]))


def name_of(token: AddedToken) -> str:
    """The regular expression of a special token's name."""
    return re.escape(token.content)


def place_of(token: AddedToken) -> str:
    """The same with the spaces that the token swallows, as some do."""
    return (r"\s*" if token.lstrip else "") + name_of(token) + (r"\s*" if token.rstrip else "")


def render(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> str:
    """The text that the template makes. Raises ValueError where it makes none."""
    assert tokenizer.chat_template is not None
    begin = next(iter(tokenizer.begin), tokenizer.eot)
    try:
        return compiled(tokenizer.chat_template).render(
            messages=messages,
            add_generation_prompt=True,
            tools=None,
            bos_token=tokenizer.backend.id_to_token(begin),
            eos_token=tokenizer.backend.id_to_token(tokenizer.eot),
        )
    except TemplateError as error:
        raise ValueError(f"the model's chat template refuses this: {error}") from None
    except Exception as error:  # a template is a program that came with the model: it can raise anything
        raise ValueError(f"the model's chat template fails on this: {type(error).__name__}") from None


@lru_cache(maxsize=1)
def compiled(source: str) -> Template:
    """A template, with what the templates of Hugging Face may call."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = tojson
    known = {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    return environment.from_string(source, globals=known)


def tojson(value: Any, indent: int | None = None) -> str:
    """Jinja's own filter escapes for HTML; this one writes characters as they are."""
    return json.dumps(value, indent=indent, ensure_ascii=False)


def refuse(message: str) -> NoReturn:
    """What a template calls when the messages are not as it wants them."""
    raise TemplateError(message)
