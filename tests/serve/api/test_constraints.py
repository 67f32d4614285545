"""Constrained answers have the requested form, whatever the logits."""

import asyncio
import contextlib
import decimal
import json
import re
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import httpx
import jsonschema_rs
import pytest
import torch
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, Field, SecretStr

from bluejay.serve.api.constraints import Constraints
from bluejay.serve.middleware.access_log import RequestRecord
from bluejay.serve.middleware.rates import Account, Limits
from bluejay.serve.settings import PublicSettings, ServeSettings
from bluejay.tokenizer import Tokenizer
from tests.waiting import PATIENCE, eventually


def drawn(form, tokenizer: Tokenizer, seed: int, limit: int = 600) -> str | None:
    """A text drawn from random logits under a constraint; None if it does not end."""
    processor, tokens = form(), []
    generator = torch.Generator().manual_seed(seed)
    while len(tokens) < limit:
        logits = processor(tokens, torch.randn(tokenizer.vocab_size, generator=generator))
        token = int(logits.softmax(-1).multinomial(1, generator=generator))
        if token in tokenizer.ends:
            return tokenizer.decode(tokens)
        tokens.append(token)
    return None


@pytest.fixture(scope="module", params=["bytes", "gpt2"])
def constraints(request, byte_tokenizer):
    constraints = Constraints(byte_tokenizer if request.param == "bytes" else Tokenizer.load("gpt2"))
    yield constraints
    constraints.close()


@pytest.fixture(scope="module")
def of_bytes(byte_tokenizer):
    constraints = Constraints(byte_tokenizer)
    yield constraints
    constraints.close()


@pytest.mark.parametrize("pattern", [r"[a-z]{3,5} (yes|no)", r"\d{4}-\d\d-\d\d", "日本(語|人)", r"", r"(ab?){2,9}"])
def test_answers_match_the_regular_expression(constraints, pattern):
    form = constraints.regex(pattern)
    assert all(re.fullmatch(pattern, drawn(form, constraints.tokenizer, seed)) is not None for seed in range(4))
    assert form.error is None


SCHEMAS = [
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 130}},
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"enum": ["red", 1, None]}, "minItems": 2, "maxItems": 4},
    {"anyOf": [{"type": "boolean"}, {"const": {"a": []}}]},
    {
        "$ref": "#/$defs/pair",
        "$defs": {
            "pair": {"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False, "minItems": 2}
        },
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_answers_follow_the_json_schema(constraints, schema):
    form, validator = constraints.json(schema), jsonschema_rs.validator_for(schema)
    texts = [drawn(form, constraints.tokenizer, seed) for seed in range(4)]
    for text in texts:
        assert text is not None
        validator.validate(json.loads(text))


@pytest.mark.parametrize("pattern", ["(", "(?=a)b", "a{3,1}", "["])
def test_an_invalid_regular_expression_is_rejected_in_one_sentence(of_bytes, pattern):
    with pytest.raises(ValueError) as refused:
        of_bytes.regex(pattern)
    assert 5 < len(str(refused.value)) < 200 and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "schema", [{"type": "text"}, {"$ref": "http://example.org/x"}, {"enum": ["x" * 5000] * 1000}, {"type": 5}]
)
def test_an_invalid_schema_is_rejected_in_one_sentence(of_bytes, schema):
    with pytest.raises(ValueError) as refused:
        of_bytes.json(schema)
    assert "\n" not in str(refused.value)


def test_a_deeply_nested_schema_is_refused(of_bytes):
    schema = {"type": "string"}
    for _ in range(400):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    with pytest.raises(ValueError, match="nested too deeply"):
        of_bytes.json(schema)


def of_multiples(*multiples: int) -> dict:
    return {"type": "array", "items": {"anyOf": [{"type": "integer", "multipleOf": one} for one in multiples]}}


def objects(n: int) -> dict:
    return {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(n)}}


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("json", {"type": "integer", "multipleOf": 999_983}),
        ("json", {"type": "integer", "multipleOf": 3_999_971}),
        ("json", {"properties": {"deep": {"items": {"type": "integer", "multipleOf": 9_999_991}}}}),
        ("json", of_multiples(99_991, 99_989)),
        ("json", {"allOf": [{"type": "integer", "multipleOf": 1009}, {"type": "integer", "multipleOf": 1013}]}),
        ("json", objects(4000)),
        ("regex", "((a{1,1000}){1,1000}b){1,200}" + "x?" * 50_000),
    ],
    ids=range(7),
)
def test_grammar_that_would_take_long_costs_nothing_here(of_bytes, kind, source):
    """The trial ends it: this process neither works nor grows, and the next grammar compiles."""
    of_bytes.regex("a")
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(ValueError, match=r"takes more than 0\.2 s or 32 MB"):
        of_bytes.json(source) if kind == "json" else of_bytes.regex(source)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3
    assert after.ru_maxrss - before.ru_maxrss < 20_000
    assert drawn(of_bytes.json({"const": 7}), of_bytes.tokenizer, 0) == "7"


@pytest.mark.parametrize("multiple", [60, 100, 0.01, 997])
def test_ordinary_multiples_work(of_bytes, multiple):
    form = of_bytes.json({"type": "number", "multipleOf": multiple})
    number = next(filter(None, (drawn(form, of_bytes.tokenizer, seed) for seed in range(50))))
    assert decimal.Decimal(number) % decimal.Decimal(str(multiple)) == 0 and form.error is None


def test_grammar_process_that_is_killed_is_replaced(of_bytes):
    of_bytes.regex("a")
    of_bytes.process.kill()
    assert drawn(of_bytes.regex("ab"), of_bytes.tokenizer, 0) == "ab"


REFERENCE = {"$ref": "#/$defs/a"}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": REFERENCE}, **REFERENCE}, "references go in a circle"),
        ({"$defs": {"a": REFERENCE}, **REFERENCE}, "references go in a circle"),
        ({"$ref": "#"}, "references go in a circle"),
        ({"$defs": {"a": {"allOf": [REFERENCE, {"type": "string"}]}}, **REFERENCE}, "references go in a circle"),
        ({"oneOf": [{"type": "object"}, {"type": "object"}]}, "use anyOf"),
        ({"oneOf": [{"minimum": 1}, {"type": "integer"}]}, "use anyOf"),
        ({"$ref": "other.json"}, "refers to other.json"),
        ({"$ref": "#/nowhere"}, "refers to /nowhere"),
        ({"not": {"type": "string"}}, 'not supported: "not"'),
        ({"const": "\ud800"}, "half of a surrogate pair"),
        ({"properties": {"a": {}}, "require": ["a"]}, 'no keyword "require"; did you mean "required"?'),
        ({"properties": {"a": {"items": [{"type": "string", "maxlength": 3}]}}}, 'did you mean "maxLength"?'),
        ({"$defs": {"a": {"anyOf": [{"extends": {}}]}}, **REFERENCE}, 'no keyword "extends"; leave it out'),
        ({"additionalProperties": {"contentEncoding": "base64"}}, 'not supported: "contentEncoding"'),
        ({"x-guidance": {"lenient": True}, "not": {}}, 'no keyword "x-guidance"'),
        (
            {"type": "string", "format": "ipv4network"},
            'format "ipv4network" is not supported; .* describe it by "pattern"',
        ),
        ({"items": {"format": ["path"]}}, "'format'"),
        ({"properties": {"a": {"type": "int"}}}, 'no type "int"; a type is string, number, integer'),
        ({"properties": {"a": {"type": "string", "required": True}}}, '"required" must be a list of names'),
        ({"type": "integer", "minimum": -(2**63)}, "too far from zero"),
        ({"type": "number", "maximum": 3.4e38}, "too far from zero"),
        ({"type": "string", "pattern": r"\bword"}, r"\\b, .* not supported"),
        ({"type": "array", "uniqueItems": True}, 'not supported: "uniqueItems"'),
        ({"propertyNames": {"enum": ["a"]}}, 'not supported: "propertyNames"'),
    ],
    ids=range(24),
)
def test_message_says_what_is_wrong_with_a_schema(of_bytes, schema, reason):
    with pytest.raises(ValueError, match=reason) as refused:
        of_bytes.json(schema)
    assert "option" not in str(refused.value) and "Bias" not in str(refused.value)


class Kept(BaseModel):
    """What pydantic describes by formats that say nothing about the form of a text."""

    folder: Path = Field(max_length=3)
    secret: SecretStr = Field(max_length=3)
    content: bytes = Field(max_length=3)


@pytest.mark.parametrize(
    "schema",
    [
        to_strict_json_schema(Kept),
        {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"const": 1}},  # zod's record
        {"type": "array", "items": {"const": 1}, "uniqueItems": False},
    ],
    ids=["pydantic", "zod", "unique"],
)
def test_what_asks_for_nothing_in_a_schema_is_read_over(of_bytes, schema):
    made = [drawn(of_bytes.json(schema), of_bytes.tokenizer, seed) for seed in range(6)]
    validator = jsonschema_rs.validator_for(schema)
    assert any(made)
    for text in filter(None, made):
        validator.validate(json.loads(text))


class Cat(BaseModel):
    """A pet."""

    kind: Literal["cat"]


class Dog(BaseModel):
    """Another."""

    kind: Literal["dog"]


class Ann(BaseModel):
    """What clients send beside keywords: titles, a description, a default, examples, a discriminator."""

    name: Annotated[str, Field(max_length=3, examples=["Ann"], json_schema_extra={"x-order": 1, "deprecated": True})]
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    age: int | None = Field(None, description="In years.", ge=0)


def test_what_a_schema_says_to_readers_is_read_over(of_bytes):
    """OpenAI's package writes `additionalProperties` and `required`, that for JavaScript also `nullable`."""
    schema = to_strict_json_schema(Ann) | {"$schema": "https://json-schema.org/draft/2020-12/schema", "$comment": "x"}
    answer = drawn(of_bytes.json(schema), of_bytes.tokenizer, 1)
    assert answer is not None
    Ann.model_validate_json(answer)
    form = of_bytes.json({"type": "boolean", "nullable": True, "title": "maxlength", "default": {"maxlength": 1}})
    assert {drawn(form, of_bytes.tokenizer, seed) for seed in range(20)} == {"true", "false", "null"}


def test_schemas_that_refer_to_themselves_below_work(of_bytes):
    tree = {"type": "object", "properties": {"next": REFERENCE}, "additionalProperties": False}
    assert isinstance(
        json.loads(drawn(of_bytes.json({"$defs": {"a": tree}, **REFERENCE}), of_bytes.tokenizer, 3)), dict
    )


def test_grammars_are_charged_once(of_bytes, monkeypatch):
    charged = []
    monkeypatch.setattr(Account, "reserve", lambda _, n: charged.append(n))
    monkeypatch.setattr(Account, "refund", lambda _, n: charged.append(-n))
    account = Account(Limits(PublicSettings()), "a")

    async def compile_all() -> None:
        record = RequestRecord("POST", "/v1/completions", "a", account=account)
        for source in ("[ab]+c", "[ab]+c", "(", "("):
            with contextlib.suppress(ValueError):
                await of_bytes.compile("regex", source, record)

    asyncio.run(compile_all())
    assert charged[0::2] == [200, 200] and all(0 < 200 + refund < 100 for refund in charged[1::2])


def test_other_clients_do_not_wait_for_grammars(running, model):
    def ask(address: str, **body) -> httpx.Response:
        return httpx.post(
            f"{server.url}/v1/completions",
            json={"prompt": "a", "max_tokens": 1, **body},
            headers={"X-Forwarded-For": address},
            timeout=PATIENCE,
        )

    def grammar(number: int) -> httpx.Response:
        named = {"name": "a", "schema": {"type": "integer", "multipleOf": number}}
        return ask("198.51.100.7", response_format={"type": "json_schema", "json_schema": named})

    with running(model, ServeSettings(port=0, public=PublicSettings())) as server, ThreadPoolExecutor(6) as pool:
        assert grammar(60).status_code == 200
        waiting = server.models.first.service.constraints
        asked = [pool.submit(grammar, 599_999 + 2 * i) for i in range(6)]
        assert eventually(lambda: waiting.n_queued > 1)
        assert ask("198.51.100.9").status_code == 200
        assert waiting.n_queued > 0
        assert [one.result().status_code for one in asked] == [400] * 6
