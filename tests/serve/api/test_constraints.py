"""Constrained answers have the requested form, whatever the logits."""

import json
import re

import jsonschema_rs
import pytest
import torch

from bluejay.serve.api.constraints import Constraints
from bluejay.tokenizer import Tokenizer


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
    return Constraints(byte_tokenizer if request.param == "bytes" else Tokenizer.load("gpt2"))


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
def test_an_invalid_regular_expression_is_rejected_in_one_sentence(byte_tokenizer, pattern):
    with pytest.raises(ValueError) as refused:
        Constraints(byte_tokenizer).regex(pattern)
    assert 5 < len(str(refused.value)) < 200 and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "schema", [{"type": "text"}, {"$ref": "http://example.org/x"}, {"enum": ["x" * 5000] * 1000}, {"type": 5}]
)
def test_an_invalid_schema_is_rejected_in_one_sentence(byte_tokenizer, schema):
    with pytest.raises(ValueError) as refused:
        Constraints(byte_tokenizer).json(schema)
    assert "\n" not in str(refused.value)


def test_a_deeply_nested_schema_works(byte_tokenizer):
    schema = {"type": "string"}
    for _ in range(400):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    with pytest.raises(ValueError):
        Constraints(byte_tokenizer).json(schema)
