"""Compiles regular expressions and JSON schemas to grammars; run as a program, it tries them in bounded processes.

`llguidance` tracks the state of a grammar and computes the allowed tokens: https://github.com/guidance-ai/llguidance.
Its limits do not hold while it compiles: a schema of 200 bytes can ask for minutes and gigabytes (`multipleOf`), and
a deep one can overflow the stack. So the server has every grammar of a stranger tried here first. This process holds
only the vocabulary; each trial is a fork of it with limits of time and memory, which the system enforces.
"""

import contextlib
import difflib
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

MAX_CHARACTERS = 120_000
"""OpenAI's limit for a schema, too."""
MAX_SECONDS = 0.2
"""Processor time in which a grammar must compile; an ordinary schema takes a few milliseconds."""
MAX_WALL_SECONDS = 20
MAX_BYTES = 32_000_000
"""Memory that compiling a grammar may take."""
MAX_STACK_BYTES = 4_000_000
"""Half the stack of the thread in which the server compiles a grammar after its trial."""
TOO_MUCH = f"it takes more than {MAX_SECONDS:g} s or {MAX_BYTES // 1_000_000} MB to compile; use a simpler one"

PARSER_LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000, step_lexer_fuel=50_000, step_max_items=20_000, max_lexer_states=20_000
)
"""Limits on the work of a grammar per step, some milliseconds: all samples of the batch wait for it."""

WHITESPACE = r"\n? {0,24}"
"""Whitespace allowed between JSON tokens: enough to indent. Without a limit, small models produce spaces forever."""

CIRCLE, NO_TEXT = "its references go in a circle", "no text satisfies it"
EXPLANATIONS = {
    r"circular references": CIRCLE,
    r"NoExtensionBias": NO_TEXT,
    r"recursion limit exceeded": "it is nested too deeply",
    r"hex escape|surrogates not allowed": "it holds half of a surrogate pair",
    r"oneOf constraints are not supported.*": "oneOf works only where no value fits two of its schemas; use anyOf",
    r"Resource '(?:json-schema:///)?(.*?)' is not present.*": r"it refers to \1, and only references within it work",
    r"Pointer '(.*)' does not exist": r"it refers to \1, where it holds nothing",
    r"Unknown format: (.*)": r'the format "\1" is not supported; leave it out, or describe it by "pattern"',
    r"Invalid type: (.*)": r'there is no type "\1"; a type is string, number, integer, boolean, null, array or object',
    r"generate regex for \w+ range": "a minimum or maximum is too far from zero, or no number is between them",
    r"lookarounds not supported yet": r"\\b, \\B, and ^ or $ inside a pattern, are not supported",
}
"""Errors of llguidance that speak of its own options and parts, and what they mean to who wrote the schema."""

SUBSCHEMAS = ("items", "prefixItems", "additionalItems", "additionalProperties", "anyOf", "allOf", "oneOf")
"""Keywords whose value is a schema or a list of schemas."""
NAMED_SUBSCHEMAS = ("properties", "patternProperties", "$defs", "definitions")
"""Keywords whose value holds schemas by name."""
IMPLEMENTED = {
    *SUBSCHEMAS,
    *NAMED_SUBSCHEMAS,
    *("$ref", "const", "enum", "type", "nullable"),
    *(
        "required",
        "minProperties",
        "maxProperties",
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
        "pattern",
        "format",
    ),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
OBEYED = IMPLEMENTED | {
    *("$schema", "$id", "id", "$anchor", "$comment", "title", "description", "default", "examples", "example"),
    *("deprecated", "readOnly", "writeOnly", "discriminator", "xml", "externalDocs", "strict"),
}
"""These, and the names that JSON Schema, OpenAPI and OpenAI's clients write for readers, which change no answer."""
UNIMPLEMENTED = {
    *("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "not", "if", "then", "else", "uniqueItems"),
    *("contains", "minContains", "maxContains", "unevaluatedItems", "unevaluatedProperties", "propertyNames"),
    *("dependencies", "dependentRequired", "dependentSchemas", "contentEncoding", "contentMediaType", "contentSchema"),
}

NEUTRAL: dict[str, list[Any]] = {"uniqueItems": [False], "propertyNames": [True, {}, {"type": "string"}]}
"""Keywords that are not supported, and values of them that ask for nothing. zod writes such `propertyNames`."""
FORMLESS = ("password", "path", "file-path", "directory-path", "binary")
"""Values of `format` that tell what a text is for and not how it looks, as pydantic writes them for SecretStr, Path and
bytes; llguidance knows none of them."""


class Vocabulary:
    """The tokens of a tokenizer, with the interface that llguidance requires."""

    def __init__(self, tokens: Sequence[bytes], eos: int, encode: Callable[[str], list[int]]) -> None:
        self.tokens = tokens
        self.eos_token_id = eos
        self.bos_token_id = None
        self.special_token_ids = [id for id, spelled in enumerate(tokens) if not spelled]
        self.encode = encode

    def __call__(self, text: str) -> list[int]:
        """The token ids of a text."""
        return self.encode(text)

    def for_grammars(self, ends: Sequence[int]) -> LLTokenizer:
        """llguidance's view of the vocabulary. Creating it takes a fifth of a second for 50,000 tokens."""
        return LLTokenizer(TokenizerWrapper(self), n_vocab=len(self.tokens), eos_token=list(ends))


def compile_grammar(vocabulary: LLTokenizer, kind: str, source: str) -> LLMatcher:
    """A matcher for a `regex`, or for a `json` schema as JSON. Raises ValueError with one sentence."""
    try:
        if kind == "regex":
            grammar = LLMatcher.grammar_from_regex(source)
        else:
            source = json.dumps(readable(json.loads(source)))
            grammar = LLMatcher.grammar_from_json_schema(source, overrides={"whitespace_pattern": WHITESPACE})
        matcher = LLMatcher(vocabulary, grammar, log_level=0, limits=PARSER_LIMITS)
        matcher.compute_bitmask()  # the first step is the most expensive one
        if matcher.is_error():
            raise ValueError(matcher.get_error())
    except ValueError as error:
        message = explain(str(error))
        raise ValueError(CIRCLE if message == NO_TEXT and '"$ref"' in source else message) from None
    return matcher


def readable(schema: Any) -> Any:
    """A schema in which OpenAPI's `nullable` is written as a type, and what asks for nothing is left out. Raises
    ValueError for a name that would not be obeyed: llguidance reads over those that it does not know, and x-guidance
    can have it read over others."""
    left = [schema]
    while left:
        one = left.pop()
        if isinstance(one, list):
            left += one
        elif isinstance(one, dict):
            for name, value in [*one.items()]:
                if value in NEUTRAL.get(name, ()) or (name == "format" and value in FORMLESS):
                    del one[name]
                elif name not in OBEYED and (not name.startswith("x-") or name == "x-guidance"):
                    raise ValueError(unknown(name[:100]))
            if not isinstance(one.get("required", []), list):
                raise ValueError('"required" must be a list of names, beside "properties"')
            if one.get("nullable") is True and isinstance(one.get("type"), str) and one["type"] != "null":
                one["type"] = [one["type"], "null"]
            left += [one[name] for name in SUBSCHEMAS if name in one]
            left += [
                each for name in NAMED_SUBSCHEMAS if isinstance(one.get(name), dict) for each in one[name].values()
            ]
    return schema


def unknown(name: str) -> str:
    """Why a schema may not hold a name."""
    if name in UNIMPLEMENTED:
        return f'keywords that are not supported: "{name}"'
    near = difflib.get_close_matches(name, IMPLEMENTED, n=1)
    return f'there is no keyword "{name}"; ' + (f'did you mean "{near[0]}"?' if near else "leave it out")


def error_of(matcher: LLMatcher) -> str:
    """The error of a matcher, without the long dump of its state."""
    return explain(matcher.get_error())


def explain(message: str) -> str:
    """One sentence from an error of llguidance."""
    lines = message.strip().splitlines()
    line = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
    for pattern, meaning in EXPLANATIONS.items():
        if found := re.search(pattern, line):
            return found.expand(meaning)[:200]
    return line[:200]


def trial(vocabulary: LLTokenizer, kind: str, source: str) -> dict[str, Any]:
    """Compile a grammar in a fork of this process. Returns its `error` or None, and the `seconds` and `bytes` used."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        with contextlib.suppress(BaseException):  # whatever happens, this process must end here
            limit_process()
            error = None
            before = address_space()
            try:
                compile_grammar(vocabulary, kind, source)
            except Exception as refused:  # the compiler raises plain Exception; the parent reports it
                error = str(refused)
            used = resource.getrusage(resource.RUSAGE_SELF)
            grown = address_space() - before
            result = {"error": error, "seconds": used.ru_utime + used.ru_stime, "bytes": grown}
            os.write(writing, json.dumps(result).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        result = pipe.read()
    os.waitpid(child, 0)
    return json.loads(result) if result else {"error": TOO_MUCH, "seconds": MAX_SECONDS, "bytes": 0}


def limit_process() -> None:
    """Have the system end this process when it takes too much time or memory."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # what an aborting allocator says
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_STACK, (MAX_STACK_BYTES, MAX_STACK_BYTES))
    if size := address_space():
        resource.setrlimit(resource.RLIMIT_AS, (size + MAX_BYTES, size + MAX_BYTES))
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)  # which ends the process
    signal.alarm(MAX_WALL_SECONDS)
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)


def address_space() -> int:
    """Bytes of this process's address space; 0 where the system does not tell it."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return 0


def main() -> None:
    """Read a vocabulary and then grammars from standard input, one JSON array on each line; answer each of them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends with the server, which closes its standard input
    os.nice(5)  # whoever generates text comes first
    if not (vocabulary := sys.stdin.readline()):
        return  # the server has ended
    tokens, eos, ends = json.loads(vocabulary)
    spelled = [token.encode("latin-1") for token in tokens]
    byte_tokens = {token: id for id, token in enumerate(spelled) if len(token) == 1}

    def encode(text: str) -> list[int]:  # any tokens will do for a trial, and this needs no tokenizer
        return [byte_tokens[byte] for byte in map(bytes, zip(text.encode(), strict=True)) if byte in byte_tokens]

    vocabulary = Vocabulary(spelled, eos, encode).for_grammars(ends)
    for line in sys.stdin:
        print(json.dumps(trial(vocabulary, *json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
