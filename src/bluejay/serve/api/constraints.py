"""Answers of a given form: a regular expression or a JSON schema decides, token by token, what may be drawn.

`llguidance` keeps the grammar's state and says which tokens may follow: https://github.com/guidance-ai/llguidance
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from torch import Tensor

from bluejay.infer.sampling import LogitsProcessor
from bluejay.tokenizer import Tokenizer

PARSER_LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000, step_lexer_fuel=50_000, step_max_items=20_000, max_lexer_states=20_000
)
"""A grammar that asks for more work than this at a step, some milliseconds, is one that others would wait for."""

WHITESPACE = r"\n? {0,24}"
"""What may stand between the parts of JSON: as much as indents it. Small models would go on with spaces for ever."""


class GrammarTokenizer:
    """A tokenizer as llguidance wants to see it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.eos_token_id = tokenizer.eot
        self.bos_token_id = None
        self.tokens = tokenizer.token_bytes()
        self.special_token_ids = [id for id, spelled in enumerate(self.tokens) if not spelled]

    def __call__(self, text: str) -> list[int]:
        """The ids of a text."""
        return self.tokenizer.encode(text)


class Constraints:
    """Makes constraints for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @cached_property
    def vocabulary(self) -> LLTokenizer:
        """Made when the first constraint is; a fifth of a second for 50,000 tokens."""
        wrapped = TokenizerWrapper(GrammarTokenizer(self.tokenizer))
        return LLTokenizer(wrapped, n_vocab=self.tokenizer.vocab_size, eos_token=list(self.tokenizer.ends))

    def regex(self, pattern: str) -> "Constraint":
        """Answers that match a regular expression as a whole (Rust's syntax). Raises ValueError where it is none."""
        return self.form(LLMatcher.grammar_from_regex(pattern))

    def json(self, schema: dict[str, Any]) -> "Constraint":
        """Answers that are JSON of a schema. Raises ValueError where it is none, or cannot be enforced."""
        return self.form(LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": WHITESPACE}))

    def form(self, grammar: str) -> "Constraint":
        """Answers that a grammar of llguidance derives."""
        matcher = LLMatcher(self.vocabulary, grammar, log_level=0, limits=PARSER_LIMITS)
        matcher.compute_bitmask()  # the most expensive one comes first
        if matcher.is_error():
            raise ValueError(error_of(matcher))
        return Constraint(matcher, self.tokenizer.ends)


class Constraint:
    """What the answers of one call must be; called by the engine for what constrains one sample."""

    def __init__(self, matcher: LLMatcher, ends: Sequence[int]) -> None:
        self.matcher = matcher
        self.ends = list(ends)
        self.error: str | None = None
        """Why a sample could not be followed to its end, which may show on the way only."""

    def __call__(self) -> LogitsProcessor:
        """The processor of a new sample."""
        matcher = self.matcher.deep_copy()

        def constrain(generated: list[int], logits: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
            if generated:
                matcher.consume_token(generated[-1])
            bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
            allowed = torch.from_numpy(np.unpackbits(bits, count=len(logits), bitorder="little").astype(bool))
            if matcher.is_error():
                self.error = error_of(matcher)
                allowed[self.ends] = True
            return logits.masked_fill(~allowed.to(logits.device), -torch.inf)

        return constrain


def error_of(matcher: LLMatcher) -> str:
    """What a matcher could not do, without the pages about its state that follow."""
    lines = matcher.get_error().strip().splitlines()
    return next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])[:200]
