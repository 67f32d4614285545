"""What people give a model to read: texts and token ids, one or many, in lists, arrays or tensors."""

import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bluejay.infer.exceptions import ContextLengthError, PromptError, TokenError
from bluejay.infer.params import SamplingParams
from bluejay.tokenizer import Tokenizer

if TYPE_CHECKING:
    Prompt = str | Sequence[int]
    """A text, or the ids of its tokens."""
    Prompts = Sequence[str] | Sequence[Sequence[int]]
    """Several texts, or the token ids of several."""
    Pairs = Iterable[tuple[Prompt, Prompt]]
    """Contexts, each with a continuation."""
    Messages = Sequence[Mapping[str, str]]
    """A conversation: messages, each with a `role` and a `content`."""
else:
    Prompt = Prompts = Pairs = Messages = Any  # arrays are read as well, and mistakes get a sentence
PARTS = ("context", "continuation")
FORMS = "a text, a list of token ids, or a list of these"


def read_prompts(prompts: Any) -> tuple[list[str | list[int]], bool]:
    """The prompts in what a caller gave, and whether it was a single one. Raises PromptError for anything else."""
    if isinstance(prompts, str):
        return [prompts], True
    items = listed(prompts)
    if items and all(is_id(item) for item in items):
        return [[operator.index(item) for item in items]], True
    return [read_prompt(item, f"prompt {number}") for number, item in enumerate(items)], False


def read_prompt(prompt: Any, name: str) -> str | list[int]:
    """One prompt of a list; `name` says in an error which one. Raises PromptError."""
    if isinstance(prompt, str):
        return prompt
    items = listed(prompt, name)
    if not all(is_id(item) for item in items):
        wrong = next(item for item in items if not is_id(item))
        raise PromptError(f"{name} holds {shown(wrong)} among its token ids; a prompt is a text or a list of integers")
    return [operator.index(item) for item in items]


def listed(value: Any, name: str = "the prompt") -> list[Any]:
    """The items of a list, an array or another iterable. Raises PromptError for what holds no prompts."""
    if hasattr(value, "columns"):  # of pandas, polars and pyarrow; its items would be the columns' names
        raise PromptError(f"{name} is a table; give one of its columns")
    if isinstance(value, Mapping):
        raise PromptError(f"{name} is a mapping; give its text, or the token ids in its input_ids")
    if isinstance(value, bytes | bytearray | set | frozenset) or not isinstance(value, Iterable):
        raise PromptError(f"{name} is {shown(value)}; it must be {FORMS}")
    if callable(convert := getattr(value, "tolist", None)):  # of numpy, torch and pandas
        value = convert()
        if not isinstance(value, list):
            raise PromptError(f"{name} is the number {value}; it must be {FORMS}")
    return list(value)


def is_id(value: Any) -> bool:
    """Whether a value is an integer, of Python, numpy or torch; True and False are none, nor is an array of one number,
    which is a prompt."""
    return type(value) is int or (
        hasattr(value, "__index__") and not isinstance(value, bool) and not getattr(value, "ndim", 0)
    )


def shown(value: Any) -> str:
    """A value in an error message."""
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"


def encode_prompts(tokenizer: Tokenizer, prompts: Sequence[str | list[int]], begin: bool = True) -> list[list[int]]:
    """The token ids of each prompt. Texts become what `Tokenizer.encode_prompt` makes of them, without `begin` what
    `encode` does; ids stay as they are."""
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    encoded = iter(tokenizer.encode_batch(texts))
    first = tokenizer.begin if begin else []
    ids = [(first + next(encoded)) if isinstance(prompt, str) else prompt for prompt in prompts]
    return [one or [tokenizer.eot] for one in ids] if begin else ids


def end_of(tokenizer: Tokenizer, ids: list[int], room: int) -> list[int]:
    """The last `room` token ids of a prompt, after what begins every text."""
    if len(ids) <= room:
        return ids
    begin = tokenizer.begin if room > len(tokenizer.begin) else []
    return begin + ids[len(ids) - room + len(begin) :]


def maximum(n_ctx: int) -> str:
    """What errors say of a context of `n_ctx` tokens, in words by which clients of OpenAI's API know such errors."""
    return f"this model's maximum context length is {n_ctx} tokens"


def check_readable(prompts: Sequence[list[int]], n_ctx: int, n_rows: int, name: str) -> None:
    """Raise ContextLengthError if a prompt is longer than a context of `n_ctx` tokens, and TokenError if it holds an id
    that none of the model's `n_rows` rows has. `name` says in the message which prompt it is; {} becomes its number."""
    for number, ids in enumerate(prompts):
        if len(ids) > n_ctx:
            raise ContextLengthError(f"{name.format(number)} has {len(ids)} tokens; {maximum(n_ctx)}")
        if not all(0 <= id < n_rows for id in ids):
            raise TokenError(f"{name.format(number)} holds a token id outside 0..{n_rows - 1}")


def check_pairs(pairs: Sequence[tuple[list[int], list[int]]], n_rows: int, name: str) -> None:
    """Raise TokenError if a pair holds an id that none of `n_rows` rows has; `name` is as for `check_readable`."""
    for number, (context, continuation) in enumerate(pairs):
        if wrong := [id for id in context + continuation if not 0 <= id < n_rows]:
            raise TokenError(f"{name.format(number)} holds the token {wrong[0]}; the model has {n_rows} rows")


def read_conversations(messages: Any) -> tuple[list[list[dict[str, str]]], bool]:
    """The conversations in what a caller gave, and whether it was a single one. Raises PromptError."""
    forms = "chat takes messages, each a mapping with a role and a content, or a list of such conversations"
    if isinstance(messages, str | Mapping):
        raise PromptError(f"the conversation is {shown(messages)}; {forms}")
    items = listed(messages, "the conversation")
    single = bool(items) and all(isinstance(item, Mapping) for item in items)
    found = []
    for number, conversation in enumerate([items] if single else items):
        name = "the conversation" if single else f"conversation {number}"
        if isinstance(conversation, str | Mapping):
            raise PromptError(f"{name} is {shown(conversation)}; {forms}")
        found.append([dict(message) for message in listed(conversation, name)])
        for at, message in enumerate(found[-1]):
            if not all(isinstance(message.get(key), str) for key in ("role", "content")):
                raise PromptError(f"message {at} of {name} is {shown(message)}; {forms}")
        if not found[-1]:
            raise PromptError(f"{name} has no messages")
    return found, single


def read_pairs(pairs: Any) -> list[tuple[str | list[int], str | list[int]]]:
    """The contexts and continuations in what a caller gave. Raises PromptError for anything but a list of pairs."""
    forms = "loglikelihood takes a list of pairs, each of a context and a continuation"
    found = []
    for number, pair in enumerate([pairs] if isinstance(pairs, str) else listed(pairs, "the list of pairs")):
        name = f"pair {number}"
        ordered = isinstance(pair, Iterable) and not isinstance(pair, str | bytes | Mapping | Set)
        if not ordered or len(items := list(pair)) != 2:
            raise PromptError(f"{name} is {shown(pair)}; {forms}")
        context, continuation = (read_prompt(item, f"{name}'s {part}") for item, part in zip(items, PARTS, strict=True))
        if isinstance(context, str) != isinstance(continuation, str):
            raise PromptError(f"{name} is a text and token ids; both must be texts, or both token ids")
        if not continuation:
            raise PromptError(f"{name} has an empty continuation, which has no log-likelihood")
        found.append((context, continuation))
    return found


def encode_pairs(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str | list[int], str | list[int]]]
) -> list[tuple[list[int], list[int]]]:
    """The token ids of contexts and of the continuations to score after them, as lm-evaluation-harness divides them
    (`TemplateLM._encode_pair`). The texts of a pair are encoded as one, and spaces at the end of the context belong to
    the continuation, as does a token that spans the boundary. An empty context becomes `Tokenizer.begin`, or the
    end-of-text token, which begins a document.
    """
    texts = [text for a, b in pairs if isinstance(a, str) and isinstance(b, str) for text in (a + b, a.rstrip())]
    distinct = list(dict.fromkeys(texts))  # pairs share contexts
    ids = dict(zip(distinct, tokenizer.encode_batch(distinct), strict=True))
    found = []
    for context, continuation in pairs:
        if isinstance(context, str) and isinstance(continuation, str):
            whole = ids[context + continuation]
            n_context = min(len(ids[context.rstrip()]), len(whole) - 1)
            context, continuation = (tokenizer.begin + whole[:n_context] if n_context else []), whole[n_context:]
        assert isinstance(context, list) and isinstance(continuation, list)
        found.append(begun(tokenizer, context, continuation))
    return found


def begun(tokenizer: Tokenizer, context: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
    """The pair with what begins a document as the context if it has none; a continuation that begins so keeps it."""
    prefix = tokenizer.begin or [tokenizer.eot]
    if context:
        return context, continuation
    if len(continuation) > len(prefix) and continuation[: len(prefix)] == prefix:
        return prefix, continuation[len(prefix) :]
    return prefix, continuation


def most_tokens(prompt: list[int], params: SamplingParams, n_ctx: int) -> int:
    """The most tokens that a sample of a prompt can have, prompt included."""
    return min(len(prompt) + params.max_tokens, n_ctx)


def check_prompt(
    prompt: list[int], params: SamplingParams, n_ctx: int, vocab_size: int, name: str = "the prompt"
) -> None:
    """Raise ContextLengthError if a prompt leaves no room in a context of `n_ctx` tokens, and TokenError if it holds an
    id outside a vocabulary of `vocab_size`; `name` says in the message which prompt it is."""
    if len(prompt) + min(1, params.max_tokens) > n_ctx:
        raise ContextLengthError(
            f"{name} has {len(prompt)} tokens; {maximum(n_ctx)}, answer included, "
            f"so a prompt may have at most {n_ctx - 1}"
        )
    if not all(0 <= token < vocab_size for token in prompt):
        raise TokenError(f"{name} holds a token id outside 0..{vocab_size - 1}")


def with_seeds(params: SamplingParams, n_prompts: int, seeds: Any) -> list[SamplingParams]:
    """The parameters of each prompt, with a seed of its own if `seeds` holds them. Raises ValueError if it does not
    hold one for each."""
    if seeds is None:
        return [params] * n_prompts
    given = list(seeds) if isinstance(seeds, Iterable) else [seeds]
    if len(given) != n_prompts:
        raise ValueError(f"seeds holds {len(given)} numbers for {n_prompts} prompts; each needs one")
    return [replace(params, seed=seed) for seed in given]


def check_bias(params: SamplingParams, vocab_size: int) -> None:
    """Raise TokenError if the logit_bias holds an id outside a vocabulary of `vocab_size` tokens."""
    if not all(0 <= token < vocab_size for token in params.logit_bias or ()):
        raise TokenError(f"logit_bias holds a token id outside 0..{vocab_size - 1}")
