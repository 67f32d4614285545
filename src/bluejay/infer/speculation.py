"""Guessing the next tokens from the text itself (prompt lookup decoding): quotations and edits repeat what they quote.

The draft is what followed the last time that the same three tokens came. A draft is only work done ahead: the engine
draws every token as it would have without, and goes on with the draft's logits as long as it draws what was guessed.
"""

import math
from collections.abc import Sequence

NGRAM = 3
"""Tokens that must agree for what followed them to be a draft."""
MAX_DRAFT = 16
"""Tokens guessed at once, at most."""
MIN_ACCEPTANCE = 0.25
"""A token is guessed if it comes true with at least this probability: about what one more row costs of a step."""
RATE_MEMORY = 0.8
"""How slowly the rate of guesses that come true forgets."""


class PromptLookup:
    """The guesses for one growing sequence. How often they come true is counted whether they are used or not."""

    def __init__(self) -> None:
        self.followed: dict[tuple[int, ...], int] = {}
        """Where the text went on after each run of NGRAM tokens, the last time."""
        self.seen = 0
        self.match: int | None = None
        """The position whose token is the draft for the next one."""
        self.acceptance_rate = 0.5

    def draft(self, tokens: Sequence[int], limit: int) -> list[int]:
        """At most `limit` tokens that may follow `tokens`, a sequence that only grows; none where it does not pay."""
        self._read(tokens)
        if self.match is None or self.acceptance_rate < MIN_ACCEPTANCE:
            return []
        worth = (
            MAX_DRAFT if self.acceptance_rate > 0.99 else int(math.log(MIN_ACCEPTANCE) / math.log(self.acceptance_rate))
        )
        period = len(tokens) - self.match  # a draft that reaches the end of the text goes round
        return [tokens[self.match + i % period] for i in range(min(worth, MAX_DRAFT, limit))]

    def _read(self, tokens: Sequence[int]) -> None:
        for at in range(self.seen, len(tokens)):
            if self.match is not None:
                hit = tokens[self.match] == tokens[at]
                self.acceptance_rate = RATE_MEMORY * self.acceptance_rate + (1 - RATE_MEMORY) * hit
            key = tuple(tokens[max(0, at + 1 - NGRAM) : at + 1])
            self.match = self.followed.get(key)
            self.followed[key] = at + 1
        self.seen = len(tokens)
