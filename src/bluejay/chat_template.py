"""Chat templates: from a conversation to the prompt that the model was trained to continue.

Templates are written in Jinja, in Hugging Face's dialect (its guide "Chat templates"). They come with the model's files
from untrusted authors, so they run in Jinja's sandbox, which gives them access to nothing but the conversation.

Text that a user writes never becomes a special token. While the template runs, the name of a special token in a message
is replaced by a placeholder, the token's id between two surrogates, which no valid text contains. Names of special
tokens that are found afterwards were therefore written by the template.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache, wraps
from types import MappingProxyType
from typing import Any, NoReturn

from jinja2 import Environment, Template, TemplateError, meta, nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken

from bluejay.tokenizer import Tokenizer, well_formed
from bluejay.tokenizer_files import spelled

PLACEHOLDER = "\ud800{}\udbff"
BUDGET, HELD, WRITTEN, STEP = (f"bluejay {name}" for name in ("budget", "held", "written", "step"))
"""Names that no template can write, since they hold a space."""
MAX_SIZE, MAX_STEPS, MAX_DIGITS = 10_000_000, 200_000, 1_000
"""Characters that a template may keep in a value and write in all; turns of its loops; digits of its numbers."""
CALL_STEPS = 20
"""Turns of a loop that take about as long as a call."""
TOO_MUCH = "it asks for too much work or too long a text"
SIZED = (str, bytes, list, tuple, dict, set)
WIDENING = frozenset({"expandtabs", "indent", "tojson"})
GROWING = WIDENING | {"format", "join", "replace"}
"""Methods and filters whose result may be as long as two of their arguments multiplied; an argument of those that widen
may be a number of characters."""
_ITERATING = """
    batch dictsort groupby list map max min reject rejectattr select selectattr slice sort sum unique
"""
ITERATING = frozenset(_ITERATING.split())
"""Filters that take a turn for each part of a value."""
REFUSED = frozenset({"encode", "format_map", "to_bytes", "translate"})
"""Methods that no template needs and that make what is not counted here."""
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


class Budget:
    """What one run of a template may still do: characters to write, and turns of loops and calls of macros."""

    def __init__(self) -> None:
        self.size, self.steps = MAX_SIZE, MAX_STEPS

    def spend(self, size: int = 0, steps: int = 0) -> None:
        """Use some of it. Raises TemplateError if that is more than is left."""
        self.size -= size
        self.steps -= steps
        if self.size < 0 or self.steps < 0:
            refuse(TOO_MUCH)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which a template also cannot exhaust its host by large numbers, texts that grow, or
    loops in loops. One that tries gets a TemplateError."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.filters |= {"tojson": tojson}
        self.filters |= {name: bounded(name, function) for name, function in self.filters.items()}
        self.globals.pop("lipsum")
        self.filters |= {HELD: held, WRITTEN: written, STEP: step}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The result of an operator between two values."""
        numbers = not isinstance(left, SIZED) and not isinstance(right, SIZED)
        if operator == "*" and not numbers:
            times = right if isinstance(left, SIZED) else left
            fits = not isinstance(times, int) or max(size(left), size(right)) * abs(times) <= MAX_SIZE
        elif operator == "%" and isinstance(left, str):
            fits = not re.search(r"\d{7}|\*", left)
            check_growth("format", left, *([] if isinstance(right, int) else [right]))
        else:
            fits = operator != "**" and size(left) + size(right) <= (MAX_DIGITS if numbers else MAX_SIZE)
        return super().call_binop(context, operator, left, right) if fits else refuse(TOO_MUCH)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """The result of a function or method that the template calls."""
        __context.parent[BUDGET].spend(steps=CALL_STEPS)
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps the method `format`
        name = getattr(method, "__name__", "")
        args = tuple(map(listed, args)) if name == "join" else args
        check_growth(name, getattr(method, "__self__", ""), *args, *kwargs.values())
        return counted(__context, super().call(__context, __obj, *args, **kwargs))

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """The code of a template, which also counts what it writes and its steps, and looks at what it keeps."""
        for block in list(source.find_all((nodes.For, nodes.Macro, nodes.CallBlock))):
            block.body.insert(0, nodes.ExprStmt(filtered(nodes.Const(0), STEP)))
        for name, kinds in (("node", nodes.Assign), ("expr", (nodes.Compare, nodes.Operand)), ("left", nodes.Add)):
            for one in list(source.find_all(kinds)):
                setattr(one, name, filtered(getattr(one, name), HELD))
        for name, kind in ((HELD, nodes.Concat), (WRITTEN, nodes.Output)):
            for joined in list(source.find_all(kind)):
                joined.nodes = [filtered(node, name) for node in joined.nodes]
        source.set_environment(self)
        return super()._generate(source, *args, **kwargs)


def filtered(value: nodes.Node, name: str) -> nodes.Expr:
    """The expression `value | name`."""
    return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno or 1)


@pass_context
def held(context: Context, value: Any) -> Any:
    """A value that the template keeps, compares or joins, counted in its budget. Raises TemplateError: too large."""
    context.parent[BUDGET].spend(steps=(total := size(value)) // (10_000 if isinstance(value, str) else 1_000))
    return value if total <= MAX_SIZE else refuse(TOO_MUCH)


@pass_context
def written(context: Context, value: Any) -> Any:
    """A value that the template writes, counted in its budget."""
    context.parent[BUDGET].spend(size=size(value))
    return value


@pass_context
def step(context: Context, value: Any) -> Any:
    """A turn of a loop, counted in the template's budget."""
    context.parent[BUDGET].spend(steps=1)
    return value


def size(value: Any) -> int:
    """The characters or digits of a value and all in it, with 99 for anything else, such as a list and each of its
    parts. It is not counted further where it is too large."""
    total, left = 0, [value]
    while left and total <= MAX_SIZE:
        one = left.pop()
        if isinstance(one, (str, bytes)):
            total += len(one)
        elif isinstance(one, SIZED):
            total += 99 * (len(one) + 1)
            left += [*one, *one.values()] if isinstance(one, dict) else one
        else:
            total += one.bit_length() // 3 + 1 if isinstance(one, int) else 99
    return total


def check_growth(name: str, *values: Any) -> None:
    """Raise TemplateError if the function of a name may make too much of its values, the first of which is the value
    whose method or filter it is."""
    if name in REFUSED or any(isinstance(value, int) and abs(value) > MAX_SIZE for value in values):
        refuse(TOO_MUCH)
    if name not in GROWING:
        return
    form = str(values[0]) if name == "format" else ""
    wide = name in WIDENING or re.search(r"\*|:[^{}]*\{", form)  # a width that is an argument
    sizes = [abs(value) if wide and isinstance(value, int) else size(value) for value in values]
    widths = map(int, re.findall(r"[0-9]+(?=[^\s0-9])", form))
    if math.prod(sorted([1, 1, *sizes, *widths])[-2:]) > 10 * MAX_SIZE:
        refuse(TOO_MUCH)


def bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that makes nothing that is too large, and whose work is counted in the template's budget."""
    passed = getattr(getattr(function, "jinja_pass_arg", None), "name", None)

    @pass_context
    @wraps(function)
    def careful(context: Context, *args: Any, **kwargs: Any) -> Any:
        args = tuple(map(listed, args)) if name == "join" else args
        check_growth(name, *args, *kwargs.values())
        turns = len(args[0]) if args and hasattr(args[0], "__len__") else 0
        context.parent[BUDGET].spend(steps=turns if name in ITERATING else turns // 1000)
        given = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        made = function(*([given[passed]] if passed else []), *args, **kwargs)
        return counted(context, made)

    return careful


def counted(context: Context, made: Any) -> Any:
    """What a function made, a text counted in the template's budget."""
    context.parent[BUDGET].spend(steps=len(made) // 1000 if isinstance(made, str) else 0)
    return made


def listed(value: Any) -> Any:
    """A value, or a list of what it yields."""
    return list(value) if isinstance(value, Iterator) else value


class GenerationTag(Extension):
    """The tag {% generation %}, in which transformers finds what the assistant wrote; the text is that inside it."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

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
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    if indent is None:
        return encoder.encode(value)
    parts, left = [], MAX_SIZE
    for part in encoder.iterencode(value):  # each line of a value in others is indented again
        parts.append(part)
        left -= len(part)
        if left < 0:
            refuse(TOO_MUCH)
    return "".join(parts)


def refuse(message: str) -> NoReturn:
    """The function that a template calls to reject messages."""
    raise TemplateError(message)
