"""Constrained decoding: a regular expression or a JSON schema determines, token by token, what may be drawn.

`llguidance` tracks the state of the grammar and computes the allowed tokens: https://github.com/guidance-ai/llguidance
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
"""Limits on the work of a grammar per step, some milliseconds: all samples of the batch wait for it."""

WHITESPACE = r"\n? {0,24}"
"""Whitespace allowed between JSON tokens: enough to indent. Without a limit, small models produce spaces forever."""


class GrammarTokenizer:
    """A tokenizer with the interface that llguidance requires."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.eos_token_id = tokenizer.eot
        self.bos_token_id = None
        self.tokens = tokenizer.token_bytes()
        self.special_token_ids = [id for id, spelled in enumerate(self.tokens) if not spelled]

    def __call__(self, text: str) -> list[int]:
        """The token ids of a text."""
        return self.tokenizer.encode(text)


class Constraints:
    """Creates constraints for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @cached_property
    def vocabulary(self) -> LLTokenizer:
        """llguidance's view of the vocabulary. Creating it takes a fifth of a second for 50,000 tokens."""
        wrapped = TokenizerWrapper(GrammarTokenizer(self.tokenizer))
        return LLTokenizer(wrapped, n_vocab=self.tokenizer.vocab_size, eos_token=list(self.tokenizer.ends))

    def regex(self, pattern: str) -> "Constraint":
        """The constraint that a whole answer matches a regular expression in Rust's syntax. Raises ValueError."""
        return self.from_grammar(LLMatcher.grammar_from_regex(pattern))

    def json(self, schema: dict[str, Any]) -> "Constraint":
        """The constraint that answers follow a JSON schema. Raises ValueError if it is invalid or not supported."""
        return self.from_grammar(
            LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": WHITESPACE})
        )

    def from_grammar(self, grammar: str) -> "Constraint":
        """The constraint that a grammar of llguidance derives the answers. Raises ValueError."""
        matcher = LLMatcher(self.vocabulary, grammar, log_level=0, limits=PARSER_LIMITS)
        matcher.compute_bitmask()  # the first step is the most expensive one
        if matcher.is_error():
            raise ValueError(error_of(matcher))
        return Constraint(matcher, self.tokenizer.ends)


class Constraint:
    """A constraint on the answers to one request. The engine calls it for the logits processor of each sample."""

    def __init__(self, matcher: LLMatcher, ends: Sequence[int]) -> None:
        self.matcher = matcher
        self.ends = list(ends)
        self.error: str | None = None
        """Why a sample could not be constrained to its end, which may become known only during generation."""

    def __call__(self) -> LogitsProcessor:
        """The logits processor of a new sample."""
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
    """The error of a matcher, without the long dump of its state."""
    lines = matcher.get_error().strip().splitlines()
    return next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])[:200]
